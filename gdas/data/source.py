"""What trainings and searches need of images, in memory (arrow.Images) or on disk (photos.Photos).

Both give uint8 pixels on the device, which gdas.data.augment turns into the network's input.

Shapes: B batch, C channels, H and W height and width, N images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from gdas.data.arrays import stacked
from gdas.data.augment import AnyMoves
from gdas.errors import InputError

Split = Literal["train", "test"]


class Wanted(NamedTuple):
    """Images to read.

    Attributes:
        rows_B: their indices, on the CPU.
        moves: their augmentation, one row each; None: no augmentation, for scoring.
    """

    rows_B: Tensor
    moves: AnyMoves | None


class Batch(NamedTuple):
    """Images that were read, on the source's device.

    Attributes:
        pixels_BCHW: uint8, all of the same size.
        labels_B: int64.
    """

    pixels_BCHW: Tensor
    labels_B: Tensor


READ = ("classes", "size", "to", "order", "reading_order", "take", "__len__")
"""What an `ImageSource` has."""


def require_images(images: object, what: str) -> None:
    """Raise InputError unless something is a source of images; the error says how to make one."""
    if all(hasattr(images, name) for name in READ):
        return
    stack = stacked(images)
    pixels = f"; pixels are {stack}" if stack else ""
    raise InputError(
        f"{what}: is a {type(images).__name__}; must be Images(pixels, labels, classes=10) of "
        f"gdas.data.arrow, or a source of your own{pixels}"
    )


def require_rows(rows_N: object, images: int, what: str) -> None:
    """Raise InputError unless something is the indices of some of so many images.

    Negative ones would count from the end.
    """
    if not isinstance(rows_N, Tensor) or rows_N.dtype != torch.int64 or rows_N.ndim != 1:
        has = f"{rows_N.dtype} of shape {tuple(rows_N.shape)}" if isinstance(rows_N, Tensor) else ""
        raise InputError(
            f"{what}: is a {type(rows_N).__name__} {has}".rstrip()
            + f"; must be a tensor of indices, such as torch.arange({images}) for all images"
        )
    if not len(rows_N) or int(rows_N.min()) < 0 or int(rows_N.max()) >= images:
        has = f"from {int(rows_N.min())} to {int(rows_N.max())}" if len(rows_N) else "none"
        raise InputError(
            f"{what}: indices are {has}; must be one or more from 0 to {images - 1}, the images "
            "that there are"
        )


class ImageSource(Protocol):
    """A split of an image data set."""

    @property
    def classes(self) -> int:
        """The number of classes."""
        ...

    @property
    def size(self) -> int:
        """The side of the images that the network sees, in pixels."""
        ...

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> ImageSource:
        """The same images with batches on `device`, and with separate buffers if it has any."""
        ...

    def order(self, rows_N: Tensor, seed: int, stream: str, *position: int) -> Tensor:
        """The rows in random order: a permutation that depends only on the arguments."""
        ...

    def reading_order(self, rows_N: Tensor) -> Tensor:
        """The rows in an order that is fast to read, for passes in any order."""
        ...

    def take(self, wanted: Wanted, then: Callable[[], Wanted] | None = None) -> Batch:
        """Read images.

        Args:
            wanted: the images.
            then: gives the images of the next call, which a source on disk begins to read.
        """
        ...
