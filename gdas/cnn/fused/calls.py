"""The kernels as functions of tensors; kernels.h says what each of them does.

Tensors are float32 and channels-last; who calls has made sure of it (gdas.cnn.fused.cover).

Shapes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gdas.cnn.fused.build import library
from gdas.cnn.norm import BatchNorm

FLOATS = ctypes.c_void_p
INT = ctypes.c_int


class Map(NamedTuple):
    """A feature map whose normalisation may be left to its readers.

    Attributes:
        values_BCHW: what is stored.
        norm_4C: mean, 1 / standard deviation, scale and shift; None: the values are meant as they
            are.
    """

    values_BCHW: Tensor
    norm_4C: Tensor | None = None


class Term(NamedTuple):
    """A map as one term of a sum; `keep_B` multiplies its images."""

    map: Map
    keep_B: Tensor | None = None


SIZES = ("batch", "height", "width", "channels", "kernel", "stride", "dilation", "threads")


class _Shape(ctypes.Structure):
    _fields_ = [(name, INT) for name in SIZES]


class _BatchNorm(ctypes.Structure):
    _fields_ = [
        *((name, FLOATS) for name in ("gamma", "beta", "running_mean", "running_var")),
        ("momentum", ctypes.c_double),
        ("epsilon", ctypes.c_double),
        ("norm", FLOATS),
    ]


class _Term(ctypes.Structure):
    _fields_ = [("map", FLOATS), ("norm", FLOATS), ("keep", FLOATS)]


SIGNATURES = {
    "gdas_separable_forward": "S" + "p" * 6,
    "gdas_separable_backward": "S" + "p" * 14,
    "gdas_sum": "Sipp",
    "gdas_gradient_sums": "Spipp",
}
"""The arguments of each function: S a shape, i an int, p a pointer."""


@functools.cache
def _kernels() -> ctypes.CDLL:
    found = library()
    assert found is not None, "the kernels cannot be compiled here"
    types = {"S": ctypes.POINTER(_Shape), "i": INT, "p": FLOATS}
    for name, arguments in SIGNATURES.items():
        function = getattr(found, name)
        function.restype = INT
        function.argtypes = [types[a] for a in arguments]
    return found


@functools.lru_cache(maxsize=4096)
def _shape(
    shape: torch.Size, threads: int, kernel: int = 0, stride: int = 1, dilation: int = 1
) -> _Shape:
    batch, channels, height, width = shape
    return _Shape(batch, height, width, channels, kernel, stride, dilation, threads)


def _at(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("no memory for a fused kernel")


def _batch_norm(norm: BatchNorm) -> tuple[Tensor, _BatchNorm]:
    """A norm to be written, and the layer for a kernel."""
    norm_4C = torch.empty(4, norm.num_features)
    layer = _BatchNorm(
        _at(norm.weight),
        _at(norm.bias),
        _at(norm.running_mean),
        _at(norm.running_var),
        norm.count_batch(),
        norm.eps,
        norm_4C.data_ptr(),
    )
    return norm_4C, layer


def _terms(terms: Sequence[Term]) -> ctypes.Array[_Term]:
    return (_Term * len(terms))(
        *(_Term(_at(t.map.values_BCHW), _at(t.map.norm_4C), _at(t.keep_B)) for t in terms)
    )


def new_map(like_BCHW: Tensor, channels: int, stride: int = 1) -> Tensor:
    """An uninitialised channels-last map, of ceil(size / stride)."""
    batch, _, height, width = like_BCHW.shape
    return torch.empty(
        (batch, channels, -(-height // stride), -(-width // stride)),
        memory_format=torch.channels_last,
    )


class Pass(NamedTuple):
    """The layers of a separable pass, after its ReLU."""

    depthwise: Tensor
    pointwise: Tensor
    norm: BatchNorm
    stride: int
    dilation: int


def separable_forward(x: Map, layers: Pass) -> Map:
    """ReLU, depthwise and pointwise convolution, batch norm."""
    y_BCHW = new_map(x.values_BCHW, x.values_BCHW.shape[1], layers.stride)
    norm_4C, layer = _batch_norm(layers.norm)
    shape = _shape(
        x.values_BCHW.shape,
        torch.get_num_threads(),
        layers.depthwise.shape[-1],
        layers.stride,
        layers.dilation,
    )
    failed = _kernels().gdas_separable_forward(
        shape,
        x.values_BCHW.data_ptr(),
        _at(x.norm_4C),
        layers.depthwise.data_ptr(),
        layers.pointwise.data_ptr(),
        y_BCHW.data_ptr(),
        ctypes.byref(layer),
    )
    _check(failed)
    return Map(y_BCHW, norm_4C)


class Gradient(NamedTuple):
    """The gradient of a term: that of the sum, and the two sums of it that batch norm needs."""

    values_BCHW: Tensor
    sums_2C: Tensor
    keep_B: Tensor | None = None


class PassGradients(NamedTuple):
    """What separable_backward computes."""

    values_BCHW: Tensor
    sums_2C: Tensor | None
    depthwise: Tensor | None
    pointwise: Tensor | None


def separable_backward(
    of_y: Gradient,
    y: Map,
    x: Map,
    layers: Pass,
    *,
    base_BCHW: Tensor | None,
    weights: bool,
) -> PassGradients:
    """The gradients of a pass.

    Args:
        base_BCHW: what the input's gradient is added to.
        weights: whether those of the weights are wanted.
    """
    of_x_BCHW = torch.empty_like(x.values_BCHW)
    channels = x.values_BCHW.shape[1]
    sums_2C = None if x.norm_4C is None else torch.empty(2, channels, dtype=torch.float64)
    of_depthwise = torch.empty_like(layers.depthwise) if weights else None
    of_pointwise = torch.empty_like(layers.pointwise) if weights else None
    shape = _shape(
        x.values_BCHW.shape,
        torch.get_num_threads(),
        layers.depthwise.shape[-1],
        layers.stride,
        layers.dilation,
    )
    failed = _kernels().gdas_separable_backward(
        shape,
        of_y.values_BCHW.data_ptr(),
        _at(of_y.keep_B),
        y.values_BCHW.data_ptr(),
        _at(y.norm_4C),
        of_y.sums_2C.data_ptr(),
        x.values_BCHW.data_ptr(),
        _at(x.norm_4C),
        layers.depthwise.data_ptr(),
        layers.pointwise.data_ptr(),
        _at(base_BCHW),
        of_x_BCHW.data_ptr(),
        _at(sums_2C),
        _at(of_depthwise),
        _at(of_pointwise),
    )
    _check(failed)
    return PassGradients(of_x_BCHW, sums_2C, of_depthwise, of_pointwise)


def sum_of_terms(terms: Sequence[Term]) -> Tensor:
    """The sum of what the terms mean."""
    out_BCHW = torch.empty_like(terms[0].map.values_BCHW)
    shape = _shape(out_BCHW.shape, torch.get_num_threads())
    failed = _kernels().gdas_sum(shape, len(terms), _terms(terms), out_BCHW.data_ptr())
    _check(failed)
    return out_BCHW


def gradient_sums(gradient_BCHW: Tensor, terms: Sequence[Term]) -> Tensor:
    """For each term the sums of its gradient, and of its gradient times (values - mean): T x 2 x C.

    Args:
        gradient_BCHW: the gradient of the terms' sum.
    """
    sums_T2C = torch.empty(len(terms), 2, gradient_BCHW.shape[1], dtype=torch.float64)
    shape = _shape(gradient_BCHW.shape, torch.get_num_threads())
    failed = _kernels().gdas_gradient_sums(
        shape, gradient_BCHW.data_ptr(), len(terms), _terms(terms), sums_T2C.data_ptr()
    )
    _check(failed)
    return sums_T2C
