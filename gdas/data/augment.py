"""Crop, flip, normalise and cutout as batched tensor operations on the training device.

Source: paper section 4.2 and the authors' code (flip, crop after padding, normalise, cutout last,
so that its square is zero after normalising and may overhang the border).

All random numbers are drawn on the CPU for the whole global batch, from one generator; a worker
takes its share of them, so that two workers see what one would. Photos differ in size: they are
cut and coloured one by one where they are decoded (gdas.data.photos), and only normalised here.

Shapes: B batch, C channels, H and W height and width, U uniform numbers a photo.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from gdas.data.settings import AnyImageData, ImageData, PhotoData


class Moves(NamedTuple):
    """What happens to each image of a global batch; integers on the CPU, one row a sample.

    Attributes:
        moves_B5: crop offset down and right, flip (0 or 1), cutout centre row and column.
    """

    moves_B5: Tensor

    def share(self, rows: slice) -> Moves:
        return Moves(self.moves_B5[rows])


class PhotoMoves(NamedTuple):
    """What happens to each photo of a global batch, whatever its size turns out to be.

    Attributes:
        uniform_BU: float64 in [0, 1), on the CPU; gdas.data.photos says what each is for.
    """

    uniform_BU: Tensor

    def share(self, rows: slice) -> PhotoMoves:
        return PhotoMoves(self.uniform_BU[rows])


AnyMoves = Moves | PhotoMoves

CROP_ATTEMPTS = 10
"""Crops that are tried in turn until one lies within the photo (torchvision's number)."""
PHOTO_NUMBERS = 2 * CROP_ATTEMPTS + 2 + 1 + 4 + 4
"""Area and ratio of every attempt, place, flip, strength of four colour operations, their order."""


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
    # Made on the CPU and copied without waiting: a tensor made on a GPU from Python's numbers
    # waits until all work before it is done.
    scale_C, shift_C = constants.to(images_BCHW.device, non_blocking=True).unbind()
    return images_BCHW.float() * scale_C[:, None, None] - shift_C[:, None, None]


def augment(images_BCHW: Tensor, data: AnyImageData, moves: AnyMoves) -> Tensor:
    """uint8 images to augmented, normalised float32 images.

    Padding is black (0) before normalising, as with torchvision's RandomCrop on pixels.
    """
    if isinstance(data, PhotoData):
        return normalise(images_BCHW, data)
    assert isinstance(moves, Moves)
    return _augment_arrays(images_BCHW, data, moves)


def _augment_arrays(images_BCHW: Tensor, data: ImageData, moves: Moves) -> Tensor:
    device = images_BCHW.device
    batch, _, height, width = images_BCHW.shape
    down, right, flip, row, column = moves.moves_B5.to(device, non_blocking=True).unbind(1)
    padding = data.crop_padding
    y_BH = torch.arange(height, device=device) + (down - padding)[:, None]
    steps_W = torch.arange(width, device=device).expand(batch, width)
    if data.flip:
        # Flip first, then crop: a flipped image read at column x is the original at W - 1 - x.
        x_BW = steps_W + (right - padding)[:, None]
        x_BW = torch.where(flip[:, None] == 1, width - 1 - x_BW, x_BW)
    else:
        x_BW = steps_W + (right - padding)[:, None]
    inside_BHW = ((y_BH >= 0) & (y_BH < height))[:, :, None] & ((x_BW >= 0) & (x_BW < width))[
        :, None, :
    ]
    flat_BHW = y_BH.clamp(0, height - 1)[:, :, None] * width + x_BW.clamp(0, width - 1)[:, None, :]
    flat = flat_BHW.flatten(1)[:, None, :].expand(-1, images_BCHW.shape[1], -1)
    moved_BCHW = images_BCHW.flatten(2).gather(2, flat).view_as(images_BCHW)
    out_BCHW = normalise(moved_BCHW * inside_BHW[:, None], data)
    if data.cutout:
        out_BCHW = out_BCHW * _cutout_mask(row, column, data.cutout, height, width)[:, None]
    return out_BCHW


def _cutout_mask(row_B: Tensor, column_B: Tensor, side: int, height: int, width: int) -> Tensor:
    """0 inside each sample's square, 1 outside: rows [centre - side // 2, centre + side // 2)."""
    half = side // 2
    y_H = torch.arange(height, device=row_B.device)
    x_W = torch.arange(width, device=row_B.device)
    in_y_BH = (y_H >= row_B[:, None] - half) & (y_H < row_B[:, None] + half)
    in_x_BW = (x_W >= column_B[:, None] - half) & (x_W < column_B[:, None] + half)
    return (~(in_y_BH[:, :, None] & in_x_BW[:, None, :])).float()
