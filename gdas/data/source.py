"""What trainings and searches need of images, in memory (arrow.Images) or on disk (photos.Photos).

Both give uint8 pixels on the device; gdas.data.augment makes of them what the network sees.

Shapes: B batch, C channels, H and W height and width, N images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from gdas.data.augment import AnyMoves

Split = Literal["train", "test"]


class Wanted(NamedTuple):
    """Images to read.

    Attributes:
        rows_B: their numbers, on the CPU.
        moves: their augmentation, a row each; None: none, to be scored.
    """

    rows_B: Tensor
    moves: AnyMoves | None


class Batch(NamedTuple):
    """Images that were read, on the source's device.

    Attributes:
        pixels_BCHW: uint8, all of one size.
        labels_B: int64.
    """

    pixels_BCHW: Tensor
    labels_B: Tensor


class ImageSource(Protocol):
    """A split of an image data set."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        ...

    @property
    def size(self) -> int:
        """Side of the images that the network sees, in pixels."""
        ...

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> ImageSource:
        """The same, giving batches on `device`; with buffers of its own, where it has any."""
        ...

    def order(self, rows_N: Tensor, seed: int, stream: str, *position: int) -> Tensor:
        """The rows in random order: a permutation that depends on the arguments alone."""
        ...

    def reading_order(self, rows_N: Tensor) -> Tensor:
        """The rows in an order that is quick to read, for passes in which the order is free."""
        ...

    def take(self, wanted: Wanted, then: Callable[[], Wanted] | None = None) -> Batch:
        """Read images.

        Args:
            then: what will be taken next; a source on disk begins with it meanwhile.
        """
        ...
