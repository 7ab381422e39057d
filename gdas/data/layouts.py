"""The layouts in which people have photos: find out which one a folder has, its classes and photos.

`find_photos` tries the layouts in turn: folders (gdas.data.folder_layouts: one folder per class,
Kaggle's ImageNet, a flat folder with a file of labels), tars (gdas.data.tar_layouts: ImageNet's
own, WebDataset) and tables (gdas.data.table_layouts: Parquet, Arrow). Folders and ImageNet's tars
give the same names to the same photos, so that ImageNet becomes the same shards from each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gdas.data.photo_places import Photo, Row, Span
from gdas.data.source import Split
from gdas.errors import InputError
from gdas.files import as_text

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Endings of photos, in upper or lower case: torchvision's IMG_EXTENSIONS."""

TRAIN = ("train", "training")
HELD_OUT = ("val", "valid", "validation", "test", "testing")
"""Names of the split that is scored; the first one that has photos and labels is used."""

LAYOUTS = """the layouts that are read:
  train/CLASS/*.jpg and val/CLASS/*.jpg (or valid, validation, test)
  a flat val/*.jpg with a file of labels: val/labels.csv, FILE,CLASS a line; train/ alike
  Kaggle's ImageNet: ILSVRC/Data/CLS-LOC and LOC_val_solution.csv
  ImageNet's tars: ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar, ILSVRC2012_devkit_t12.tar.gz
  WebDataset: train-0000.tar ..., val-0000.tar ..., with NAME.jpg and NAME.cls
  Parquet or Arrow: train-*.parquet ..., validation-*.parquet ..., with image and label"""


class Labelled(NamedTuple):
    """A photo, and its class as the layout gives it."""

    place: str | Span | Row
    file: str  # path below the folder of its class
    name: str  # name of its class
    bytes: int


@dataclass
class Found:
    """What was found in a folder.

    Attributes:
        layout: the layout, in words.
        classes: the names of the classes; a photo's label is the index of its class.
        photos: the photos of each split, in the order of the shards before shuffling.
        left_out: kinds of files that are not converted, and how many there are.
        blocks: whether photos must be read one row group after the other.
    """

    layout: str
    classes: Sequence[str]
    photos: dict[Split, list[Photo]]
    left_out: Counter[str] = field(default_factory=Counter)
    blocks: bool = False


def find_photos(source: Path, *, held_out: str | None = None) -> Found:
    """Find out which layout a folder has, and list its photos.

    Args:
        held_out: the name of the split to be scored, if there are several; None: the first one.

    Raises:
        InputError: it has no known layout, or something in it does not fit; the error says what is
            expected.
    """
    from gdas.data import folder_layouts, table_layouts, tar_layouts  # they use what is above

    if held_out is not None and held_out.lower() in TRAIN:
        raise InputError(
            f"--scored {held_out}: training photos cannot be scored; name a split apart from "
            f"them, such as {HELD_OUT[0]}"
        )
    if not source.is_dir():
        raise InputError(
            f"{source}: no such folder; name the folder that holds train and val, as a folder, "
            "tars or tables (--help lists the layouts)"
        )
    if (source / "index.json").is_file() and (source / "train" / "00000.parquet").is_file():
        raise InputError(f"{source}: is converted already; name the folder it was made from")
    names = HELD_OUT if held_out is None else (held_out,)
    for read in (
        folder_layouts.image_folder,
        tar_layouts.imagenet_tars,
        tar_layouts.web_dataset,
        table_layouts.tables,
    ):
        if (found := read(source, names)) is not None:
            _refuse_one_class(source, found)
            return found
    raise folder_layouts.no_layout(source, names)


def _refuse_one_class(source: Path, found: Found) -> None:
    if len(found.classes) < 2:
        raise InputError(
            f"{source}: has one class, {found.classes[0]} ({found.layout}), and a network must "
            "tell two or more apart; add photos of another"
        )


def sorted_by_class(labelled: Iterable[Labelled], classes: Sequence[str]) -> list[Photo]:
    """Sort photos by class and name."""
    places = {name: label for label, name in enumerate(classes)}
    photos = [
        Photo(one.place, f"{one.name}/{one.file}", places[one.name], one.bytes) for one in labelled
    ]
    photos.sort(key=lambda photo: (photo.label, photo.name))
    return [photo._replace(name=as_text(photo.name)) for photo in photos]


def class_names(words: Iterable[str]) -> list[str]:
    """The names of classes in the order of their labels: numbers by value, else by name."""
    names = set(words)
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def is_photo(name: str) -> bool:
    """Whether a file is a photo, by its ending."""
    return name.lower().endswith(EXTENSIONS)


def ending_of(name: str) -> str:
    """The kind under which a file that is not converted is counted."""
    suffix = Path(name).suffix.lower()
    return suffix if 1 < len(suffix) <= 12 else "files without an ending"


HIDDEN = "photos whose name or folder begins with a dot"


def hidden(name: str) -> bool:
    """Whether a part of a path begins with a dot: thumbnails, checkpoints, files of the system."""
    return any(part.startswith(".") for part in name.split("/") if part not in (".", ".."))


def say_left_out(left_out: Counter[str]) -> str:
    """A list of the kinds of files that are not converted, with their numbers, as text."""
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(left_out.items()) if count)


def unknown_class(where: str, unknown: Sequence[str]) -> InputError:
    """The error for classes that only the scored photos have."""
    more = len(unknown) - 1
    others = f" (and {more} other{'s' if more > 1 else ''})" if more else ""
    return InputError(f"{where}: train has no such class{others}; leave it out, or add it to train")
