"""Photos in tars, read in place: ImageNet's two tars, and WebDataset's shards.

A tar is listed once, to find where each member's bytes begin; nothing is unpacked. `tarfile` ends
its listing silently at a damaged header and at the end of a truncated file, so the end-of-archive
block is checked.
"""

from __future__ import annotations

import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from gdas.data.label_files import DEVKIT, devkit_labels, label_files, read_labels
from gdas.data.layouts import (
    HELD_OUT,
    HIDDEN,
    TRAIN,
    Found,
    Labelled,
    class_names,
    ending_of,
    hidden,
    is_photo,
    sorted_by_class,
    unknown_class,
)
from gdas.data.photo_places import Span
from gdas.data.source import Split
from gdas.errors import InputError, one_line

IMAGENET: dict[Split, str] = {"train": "ILSVRC2012_img_train.tar", "test": "ILSVRC2012_img_val.tar"}
LABEL_BYTES = 256
"""The most bytes that a .cls file of a WebDataset may have."""


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    span: Span


def members(path: Path, inside: Span | None = None) -> Iterator[Member]:
    """The regular files in a tar, or in a tar that is a member of one.

    Raises:
        InputError: it is not a tar, or is compressed or damaged.
    """
    where = f"{path}" if inside is None else f"{path} (from byte {inside.start})"
    start, length = (0, path.stat().st_size) if inside is None else (inside.start, inside.bytes)
    try:
        with path.open("rb") as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    if member.isreg() and not member.issparse():
                        if member.offset_data + member.size > start + length:
                            raise tarfile.ReadError(f"{member.name} lies beyond its end")
                        span = Span(str(path), member.offset_data, member.size)
                        yield Member(member.name, span)
                    tar.members.clear()  # type: ignore[attr-defined]  # millions otherwise
                end = tar.offset
            file.seek(end)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"no member and no end at byte {end}")
    except OSError as error:
        raise InputError(f"{where}: cannot read ({error.strerror or one_line(error)})") from None
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
        raise InputError(
            f"{where}: not a whole, uncompressed tar ({one_line(error, 200)}); fetch it again, or "
            "unpack it with gunzip if it is compressed"
        ) from None


# ImageNet as it was published


def imagenet_tars(source: Path, names: Sequence[str]) -> Found | None:
    """ILSVRC2012_img_train.tar, with one tar per class, and ILSVRC2012_img_val.tar with its labels.

    Raises:
        InputError: a tar is missing or damaged, or there are no labels of the scored photos.
    """
    train, val = (source / IMAGENET[split] for split in ("train", "test"))
    if not train.is_file():
        return None
    if not val.is_file():
        raise InputError(f"{val}: missing; put it beside {train.name}, it is from the same page")
    left_out = Counter[str]()
    of_train = list[Labelled]()
    for outer in members(train):
        name = PurePosixPath(outer.name)
        if name.suffix != ".tar" or hidden(outer.name):
            left_out[ending_of(name.name)] += 1
            continue
        of_class = [m for m in members(train, outer.span) if _taken(m, left_out)]
        of_train += [Labelled(m.span, _plain(m.name), name.stem, m.span.bytes) for m in of_class]
    classes = sorted({one.name for one in of_train})
    if not classes:
        raise InputError(
            f"{train}: holds no tars of photos; must be one for each class, such as n01440764.tar; "
            "fetch it again"
        )
    found = {_plain(m.name): m for m in members(val) if _taken(m, left_out)}
    labels, how = _labels_of_tar(source, list(found), classes)
    left_out[f"photos that {how} does not name"] += len(found) - len(labels)
    scored = [
        Labelled(found[file].span, PurePosixPath(file).name, name, found[file].span.bytes)
        for file, name in labels.items()
    ]
    return Found(
        f"ImageNet's tars ({train.name}, {val.name}, labels in {how})",
        classes,
        {"train": sorted_by_class(of_train, classes), "test": sorted_by_class(scored, classes)},
        left_out,
    )


def _labels_of_tar(
    source: Path, files: Sequence[str], classes: Sequence[str]
) -> tuple[dict[str, str], str]:
    by_folder = {file: PurePosixPath(file).parent.name for file in files}
    if files and set(by_folder.values()) <= set(classes):
        return by_folder, "its folders"
    beside = [path for path in label_files(source, "val", above=0) if "val" in path.name.lower()]
    if (read := read_labels(beside, files, classes)) is not None:
        return read.classes, read.file.name
    labels = devkit_labels(source, files)
    if labels is None:
        raise InputError(
            f"{source / IMAGENET['test']}: nothing says of which class its photos are; put "
            f"{DEVKIT}.tar.gz (from the same page) or Kaggle's LOC_val_solution.csv beside it"
        )
    if unknown := sorted(set(labels.values()) - set(classes)):
        raise unknown_class(f"{source / DEVKIT}: {unknown[0]}", unknown)
    return labels, DEVKIT


def _plain(name: str) -> str:
    return name.removeprefix("./")


def _taken(member: Member, left_out: Counter[str]) -> bool:
    """Whether a member is a photo; if not, it is counted."""
    if hidden(member.name):
        left_out[HIDDEN] += is_photo(member.name)
        return False
    if not is_photo(member.name):
        left_out[ending_of(member.name)] += 1
        return False
    return True


# WebDataset


def web_dataset(source: Path, names: Sequence[str]) -> Found | None:
    """Tars with NAME.jpg and NAME.cls, whose own names tell their split.

    Raises:
        InputError: a tar is damaged, its name tells no split, or no photo of a split has a label.
    """
    tars = split_files(source, (".tar", ".tar.gz", ".tgz"), names)
    if tars is None:
        return None
    left_out, read = tars.left_out, dict[Split, list[Labelled]]()
    for split, paths in tars.files.items():
        read[split] = [one for path in paths for one in _samples(source, path, left_out)]
        if not read[split]:
            raise InputError(
                f"{paths[0]}: no photo with a label; a WebDataset's tar must have NAME.jpg and, "
                "beside it, NAME.cls with the number or the name of its class; unpack one of "
                f"folders (tar -xf {paths[0].name}) and name the folder that comes of it"
            )
    classes = class_names(one.name for one in read["train"])
    if unknown := sorted({one.name for one in read["test"]} - set(classes)):
        raise unknown_class(f"{tars.files['test'][0]}: class {unknown[0]}", unknown)
    count = sum(map(len, tars.files.values()))
    return Found(
        f"WebDataset, {count} tars (train, {tars.held_out})",
        classes,
        {split: sorted_by_class(found, classes) for split, found in read.items()},
        left_out,
    )


def _samples(source: Path, path: Path, left_out: Counter[str]) -> Iterator[Labelled]:
    """The photos of a tar that have a label."""
    samples: dict[str, dict[str, Span]] = defaultdict(dict)
    for member in members(path):
        name = PurePosixPath(_plain(member.name))
        if hidden(str(name)):
            left_out[HIDDEN] += is_photo(member.name)
            continue
        key, _, ending = name.name.partition(".")
        samples[str(name.parent / key)].setdefault(ending.lower(), member.span)
    shard = path.relative_to(source).as_posix()
    for key, parts in samples.items():
        photos = [ending for ending in parts if is_photo(f"x.{ending}")]
        for ending in parts:
            if ending not in photos and ending != "cls":
                left_out[ending_of(f"x.{ending}")] += 1
        if photos and "cls" in parts:
            label = _label(parts["cls"], f"{path}: {key}.cls")
            span = parts[photos[0]]
            yield Labelled(span, f"{shard}/{key}.{photos[0]}", label, span.bytes)
        left_out["photos without a label"] += len(photos) - bool(photos and "cls" in parts)


def _label(span: Span, where: str) -> str:
    with Path(span.path).open("rb") as file:
        file.seek(span.start)
        content = file.read(min(span.bytes, LABEL_BYTES + 1))
    try:
        word = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        word = ""
    if not word or len(content) > LABEL_BYTES or not word.isprintable():
        raise InputError(f"{where}: must hold the number or the name of a class, such as 7")
    return word


# Which split a file is of, by its name


class SplitFiles(NamedTuple):
    """Files by their split.

    Attributes:
        files: the files of each split.
        held_out: the name of the scored split.
        left_out: kinds of files that are not used, and how many there are.
    """

    files: dict[Split, list[Path]]
    held_out: str
    left_out: Counter[str]


def split_files(source: Path, endings: tuple[str, ...], names: Sequence[str]) -> SplitFiles | None:
    """The files of the training split and of the preferred one of `names`, two folders deep.

    Raises:
        InputError: there are files, but one of the two splits has none.
    """
    paths = [
        path
        for pattern in ("*", "*/*", "*/*/*")
        for path in sorted(source.glob(pattern))
        if path.name.lower().endswith(endings) and path.is_file()
    ]
    paths = [path for path in paths if not hidden(path.relative_to(source).as_posix())]
    if not paths:
        return None
    of: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        words = re.split(r"[^a-z]+", path.relative_to(source).as_posix().lower())
        of[next((w for w in words if w in (*TRAIN, *HELD_OUT, *names)), "")].append(path)
    train = next((name for name in TRAIN if of.get(name)), None)
    held = next((name for name in names if of.get(name)), None)
    if train is None or held is None:
        lacking = "train" if train is None else names[0]
        raise InputError(
            f"{source}: {len(paths)} files such as {paths[0].name}, and no name says that one is "
            f"of {lacking}; call them {lacking}-0000{endings[0]} or {lacking}/0000{endings[0]}"
        )
    left_out = Counter[str]()
    for name, found in of.items():
        if name not in (train, held):
            kind = f"files of {name} ({held} is scored)" if name else "files of no known split"
            left_out[kind] += len(found)
    return SplitFiles({"train": of[train], "test": of[held]}, held, left_out)
