"""How a map whose batch norm is left to its readers goes through autograd: as two tensors.

They are its values, whose gradient is that of the normalised map, and its norm_4C, in whose
gradient the first two rows are the sums that batch norm's own gradient needs. Only the autograd
functions of this folder make and read such pairs.

Shapes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from gdas.cnn.fused import calls
from gdas.cnn.fused.calls import Gradient
from gdas.cnn.fused.interface import Map, Term
from gdas.cnn.norm import BatchNorm


def dense(x_BCHW: Tensor) -> Tensor:
    """The tensor in the kernels' layout."""
    return x_BCHW.contiguous(memory_format=torch.channels_last)


def flat(maps: Sequence[Map]) -> list[Tensor | None]:
    """Maps as the tensors that an autograd function takes and saves."""
    return [x for own in maps for x in own]


def maps_of(tensors: Iterator[Any], count: int) -> list[Map]:
    """The next maps of such tensors."""
    return [Map(next(tensors), next(tensors)) for _ in range(count)]


def with_sums(y: Map, gradient_BCHW: Tensor, of_norm_4C: Tensor | None) -> Gradient:
    """A gradient with its sums, which came as the norm's gradient or are computed now."""
    if of_norm_4C is not None:
        return Gradient(gradient_BCHW, of_norm_4C[:2].double())
    return Gradient(gradient_BCHW, calls.gradient_sums(gradient_BCHW, [Term(y)])[0][0])


def sums_as_norm(x: Map, sums_2C: Tensor | None) -> Tensor | None:
    """A gradient's sums as the gradient of the map's norm."""
    if x.norm_4C is None or sums_2C is None:
        return None
    return torch.cat([sums_2C, torch.zeros_like(sums_2C)]).to(x.norm_4C.dtype)


def of_norm(norm: BatchNorm | None, y: Map, sums_2C: Tensor | None) -> list[Tensor]:
    """The gradients of a batch norm's scale and shift, if it has them."""
    if norm is None or not norm.affine:
        return []
    assert y.norm_4C is not None and sums_2C is not None
    return [(sums_2C[1] * y.norm_4C[1]).float(), sums_2C[0].float()]
