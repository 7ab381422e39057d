"""Crop, flip, normalise and cutout as batched tensor operations on the training device.

Source: paper section 4.2 and the authors' code (flip, crop after padding, normalise, and cutout
last, so that its square is zero after normalising and may overhang the border).

All random numbers are drawn on the CPU for the whole global batch, from one generator. A worker
takes its share of them, so that two workers see what one would see. Photos differ in size, so they
are cropped and coloured one by one when they are decoded (gdas.data.photos), and only normalised
here.

Shapes: B batch, C channels, H and W height and width, U uniform numbers per photo.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from gdas.data.settings import AnyImageData, ImageData, PhotoData


class Moves(NamedTuple):
    """The augmentation of each image of a global batch.

    Attributes:
        moves_B5: integers on the CPU, one row per image: crop offset down and right, flip (0 or 1),
            row and column of the cutout's centre.
    """

    moves_B5: Tensor

    def share(self, rows: slice) -> Moves:
        """The rows of one worker."""
        return Moves(self.moves_B5[rows])


class PhotoMoves(NamedTuple):
    """The augmentation of each photo of a global batch, whatever its size.

    Attributes:
        uniform_BU: float64 in [0, 1), on the CPU; gdas.data.photos explains the use of each.
    """

    uniform_BU: Tensor

    def share(self, rows: slice) -> PhotoMoves:
        """The rows of one worker."""
        return PhotoMoves(self.uniform_BU[rows])


AnyMoves = Moves | PhotoMoves

CROP_ATTEMPTS = 10
"""How many crops are tried until one lies within the photo (as in torchvision)."""
PHOTO_NUMBERS = 2 * CROP_ATTEMPTS + 2 + 1 + 4 + 4
"""Numbers per photo: area and ratio of each crop, its place, flip, four colour strengths, order."""


def draw_moves(data: AnyImageData, batch: int, size: int, generator: Generator) -> AnyMoves:
    """Draw the augmentation of a global batch of `batch` images of `size` x `size`."""
    if isinstance(data, PhotoData):
        shape = (batch, PHOTO_NUMBERS)
        return PhotoMoves(torch.rand(shape, dtype=torch.float64, generator=generator))

    def integers(below: int) -> Tensor:
        return torch.randint(0, below, (batch,), generator=generator)

    span = 2 * data.crop_padding + 1
    columns = [integers(span), integers(span), integers(2), integers(size), integers(size)]
    return Moves(torch.stack(columns, dim=1))


def normalise(images_BCHW: Tensor, data: AnyImageData) -> Tensor:
    """uint8 images to float32 with the data set's mean and standard deviation."""
    std_C = torch.tensor(data.std)
    constants = torch.stack([1.0 / (255.0 * std_C), torch.tensor(data.mean) / std_C])
    # Made on the CPU and copied without waiting, because making a tensor from Python numbers on a
    # GPU waits for all earlier work.
    scale_C, shift_C = constants.to(images_BCHW.device, non_blocking=True).unbind()
    return images_BCHW.float() * scale_C[:, None, None] - shift_C[:, None, None]


def augment(images_BCHW: Tensor, data: AnyImageData, moves: AnyMoves) -> Tensor:
    """From uint8 images to augmented, normalised float32 images.

    Padding is black (0) before normalising, as in torchvision's RandomCrop.
    """
    if isinstance(data, PhotoData):
        return normalise(images_BCHW, data)
    assert isinstance(moves, Moves)
    return _augment_arrays(images_BCHW, data, moves)


def _augment_arrays(images_BCHW: Tensor, data: ImageData, moves: Moves) -> Tensor:
    """Augment with indices from the CPU, which takes fewer operations on the device."""
    _, channels, height, width = images_BCHW.shape
    down, right, flip, row, column = moves.moves_B5.unbind(1)
    padding = data.crop_padding
    outside = -2 * height * width  # makes a pixel's index negative if its row or column is outside
    y_BH = torch.arange(height) + (down - padding)[:, None]
    x_BW = torch.arange(width) + (right - padding)[:, None]
    if data.flip:
        # Flip first, then crop: a flipped image read at column x is the original at W - 1 - x.
        x_BW = torch.where(flip[:, None] == 1, width - 1 - x_BW, x_BW)
    places = [
        torch.where((y_BH >= 0) & (y_BH < height), y_BH * width, outside),
        torch.where((x_BW >= 0) & (x_BW < width), x_BW, outside),
    ]
    if data.cutout:
        places += [_in_square(row, data.cutout, height), _in_square(column, data.cutout, width)]
    moved = torch.cat(places, dim=1).to(images_BCHW.device, non_blocking=True)
    y_BH, x_BW, *squares = moved.split([place.shape[1] for place in places], dim=1)
    place_BHW = y_BH[:, :, None] + x_BW[:, None, :]
    inside_BHW = place_BHW >= 0
    place_B1P = place_BHW.clamp_(min=0).flatten(1)[:, None]
    moved_BCP = images_BCHW.flatten(2).gather(2, place_B1P.expand(-1, channels, -1))
    out_BCHW = normalise(moved_BCP.view_as(images_BCHW) * inside_BHW[:, None], data)
    if data.cutout:
        in_y_BH, in_x_BW = squares
        outside_BHW = 1 - in_y_BH[:, :, None] * in_x_BW[:, None, :]
        out_BCHW = out_BCHW * outside_BHW[:, None]
    return out_BCHW


def _in_square(centre_B: Tensor, side: int, size: int) -> Tensor:
    """1 in each image's rows or columns [centre - side // 2, centre + side // 2), else 0."""
    n_N = torch.arange(size)
    from_B1, half = centre_B[:, None] - side // 2, side // 2
    return ((n_N >= from_B1) & (n_N < from_B1 + 2 * half)).long()
