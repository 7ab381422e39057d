"""Dense convolutions among the passes of a cell's edges; kernels.h says what the kernel does.

Shapes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from gdas.cnn.fused.calls import Gradient, new_gradient
from gdas.cnn.fused.interface import (
    ConvolutionStruct,
    Map,
    at,
    batch_norm,
    check,
    kernels,
    new_map,
    shape_of,
)
from gdas.cnn.norm import BatchNorm


class Convolution(NamedTuple):
    """A dense pass: ReLU or not, a 1 x 1 or 3 x 3 convolution, and batch norm, if there is one."""

    weight: Tensor
    norm: BatchNorm | None
    stride: int
    relu: bool = True

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """The one."""
        return (self.weight,)

    @property
    def kernel(self) -> int:
        """The side of its window."""
        return int(self.weight.shape[-1])

    def struct(self) -> ConvolutionStruct:
        """Itself for a kernel: weights may be channels-last or not."""
        of_out, of_in, _, of_tap = self.weight.stride()
        return ConvolutionStruct(
            self.weight.data_ptr(), of_out, of_in, of_tap, len(self.weight), self.relu
        )


def convolution_forward(x: Map, layers: Convolution) -> Map:
    """ReLU or not, convolution, and batch norm, which there must be."""
    assert layers.norm is not None
    y_BCHW = new_map(x.values_BCHW, len(layers.weight), layers.stride)
    norm_4C, layer = batch_norm(layers.norm, y_BCHW)
    check(
        kernels().gdas_convolution_forward(
            shape_of(x.values_BCHW, layers.kernel, layers.stride),
            ctypes.byref(layers.struct()),
            x.values_BCHW.data_ptr(),
            at(x.norm_4C),
            y_BCHW.data_ptr(),
            ctypes.byref(layer),
        )
    )
    return Map(y_BCHW, norm_4C)


def convolution_backward(
    of_y: Gradient,
    y: Map,
    x: Map,
    layers: Convolution,
    *,
    weights: bool,
    base_BCHW: Tensor | None = None,
    into_BCHW: Tensor | None = None,
    of_input: bool = True,
) -> tuple[Gradient | None, Tensor | None]:
    """The gradients of the input and of the weights; arguments as those of separable_backward.

    Args:
        of_input: whether that of the input is wanted; without it, None is in its place.
    """
    sums_2C = None
    if of_input:
        into_BCHW, sums_2C = new_gradient(x, into_BCHW)
    of_weight = torch.empty_like(layers.weight) if weights else None
    check(
        kernels().gdas_convolution_backward(
            shape_of(x.values_BCHW, layers.kernel, layers.stride),
            ctypes.byref(layers.struct()),
            of_y.values_BCHW.data_ptr(),
            at(of_y.keep_B),
            y.values_BCHW.data_ptr(),
            at(y.norm_4C),
            at(of_y.sums_2C),
            x.values_BCHW.data_ptr(),
            at(x.norm_4C),
            at(base_BCHW),
            at(into_BCHW),
            at(sums_2C),
            at(of_weight),
        )
    )
    return None if into_BCHW is None else Gradient(into_BCHW, sums_2C), of_weight
