"""What trainings and searches need of images, in memory (arrow.Images) or on disk (photos.Photos).

Both give uint8 pixels on the device, which gdas.data.augment turns into the network's input.

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
