"""The image data sets: their source, their checksums, their splits.

`open_images` converts a split once to Arrow and memory-maps it from then on (gdas.data.cifar,
gdas.data.digits). The test split has its own file, which only a final training opens. Photos
(PhotoData) are converted once by a separate command: see gdas.data.shards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import overload

import torch

from gdas.data.arrow import Arrays, Images, convert_once, read_images, write_images
from gdas.data.cifar import CIFAR, cifar_identity, read_cifar
from gdas.data.digits import DIGITS_TEST, digits, digits_identity, read_digits
from gdas.data.settings import IMAGE_DATA, AnyImageData, Checksum, ImageData, PhotoData
from gdas.data.shard_index import read_index
from gdas.data.source import ImageSource, Split
from gdas.errors import InputError
from gdas.randomness import generator

DIGIT_PHOTOS = "digit-photos"
"""The name of the photos that need no download (gdas.data.digit_photos)."""


@dataclass(frozen=True)
class ImageSet:
    """A known data set of arrays.

    Attributes:
        classes, size: the number of classes; the side of an image in pixels.
        counts: the number of images in a split.
        identity: gives a split's checksum; if it is published, without opening a file.
        read: reads a split to arrays, and checks it.
    """

    classes: int
    size: int
    counts: dict[Split, int]
    identity: Callable[[Split, Path, Checksum], str]
    read: Callable[[Split, Path, Checksum], Arrays]


def known(name: str) -> ImageSet:
    """Look up a data set by name.

    Raises:
        InputError: the name is unknown.
    """
    counts: dict[Split, int]
    if name in CIFAR:
        counts = {"train": 50_000, "test": 10_000}
        identity, read = partial(cifar_identity, name), partial(read_cifar, name)
        return ImageSet(CIFAR[name].classes, 32, counts, identity, read)
    if name == "digits":
        counts = {"train": 1797 - DIGITS_TEST, "test": DIGITS_TEST}
        return ImageSet(10, 32, counts, lambda split, *_: digits_identity(split), read_digits)
    raise InputError(f"data.name={name}: unknown data set; use {', '.join(IMAGE_DATA)}")


def identity(data: AnyImageData, split: Split, folder: Path) -> str:
    """A split's checksum, which enters the id of every job that reads the split.

    Raises:
        InputError: it depends on files that are missing.
    """
    if data.name == DIGIT_PHOTOS:  # it is known before the photos are made
        images, _ = digits(split)
        return f"photos-{len(images)}-of-{digits_identity(split)}"
    if isinstance(data, PhotoData):
        return read_index(folder / data.name).identity(split)
    return known(data.name).identity(split, folder, data.checksum)


@overload
def open_images(
    data: str | ImageData, split: Split, folder: Path, *, verify: bool = False
) -> Images: ...
@overload
def open_images(
    data: AnyImageData, split: Split, folder: Path, *, verify: bool = False
) -> ImageSource: ...
def open_images(
    data: str | AnyImageData, split: Split, folder: Path, *, verify: bool = False
) -> ImageSource:
    """Open a split of images or photos; images are converted first if that has not been done.

    Args:
        data: the settings, or the name of a known data set of arrays.
        folder: the folder of the data sets; the converted files are in `folder`/arrow.
        verify: whether to compare the whole content with its checksum.

    Raises:
        InputError: the source is missing and cannot be downloaded, or damaged.
    """
    if isinstance(data, PhotoData):
        # Here, because torchvision's transforms take a second to import.
        from gdas.data.photos import open_photos

        return open_photos(data, split, folder, verify=verify)
    name = data if isinstance(data, str) else data.name
    checksum: Checksum = "published" if isinstance(data, str) else data.checksum
    source = known(name)
    path = folder / "arrow" / f"{name}-{split}.arrow"
    identity = source.identity(split, folder, checksum)

    def convert() -> None:
        images, labels = source.read(split, folder, checksum)
        write_images(path, images, labels, classes=source.classes, identity=identity)

    convert_once(path, identity, convert)
    return read_images(path, identity=identity, verify=verify)


def split_indices(
    total: int, seed: int, train: int | None, valid: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two halves of the training images: D_T for the weights and D_V for the logits.

    Source: paper section 4.2 (random halves); `train` and `valid` make them smaller.

    Raises:
        InputError: more images asked for than there are.
    """
    train = total // 2 if train is None else train
    valid = max(0, total - train) if valid is None else valid
    if train + valid > total:
        raise InputError(
            f"train_images={train} and valid_images={valid}: the training split has only {total}; "
            f"use {total} or fewer in both together, or null"
        )
    order = torch.randperm(total, generator=generator(seed, "split"))
    return order[:train], order[train : train + valid]


def subset(total: int, seed: int, count: int | None) -> torch.Tensor:
    """The indices of `count` random training images for `seed`; of all images, if None.

    Raises:
        InputError: there are fewer images than asked for.
    """
    if count is None:
        return torch.arange(total)
    if count > total:
        raise InputError(
            f"train_images={count}: the training split has only {total}; use {total} or fewer, or "
            "null for all of them"
        )
    return torch.randperm(total, generator=generator(seed, "subset"))[:count].sort().values
