"""The C interface of the kernels, as kernels.h declares it."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gdas.cnn.fused.build import library
from gdas.cnn.norm import BatchNorm

POINTER = ctypes.c_void_p
INT = ctypes.c_int
SIZES = ("batch", "height", "width", "channels", "kernel", "stride", "dilation", "threads")


class Map(NamedTuple):
    """A feature map, channels-last, whose normalisation may be left to its readers.

    Attributes:
        values_BCHW: what is stored.
        norm_4C: mean, 1 / standard deviation, scale and shift; None: the values are meant as they
            are.
    """

    values_BCHW: Tensor
    norm_4C: Tensor | None = None


class Term(NamedTuple):
    """A map as one term of a sum; `keep_B` multiplies its images (drop path)."""

    map: Map
    keep_B: Tensor | None = None


class ShapeStruct(ctypes.Structure):
    """The sizes of a call."""

    _fields_ = [(name, INT) for name in SIZES]


class BatchNormStruct(ctypes.Structure):
    """A batch norm whose statistics a kernel collects."""

    _fields_ = [
        *((name, POINTER) for name in ("gamma", "beta", "running_mean", "running_var")),
        ("momentum", ctypes.c_double),
        ("epsilon", ctypes.c_double),
        ("norm", POINTER),
    ]


class TermStruct(ctypes.Structure):
    """A term of a sum, or a part of a map."""

    _fields_ = [("map", POINTER), ("norm", POINTER), ("keep", POINTER)]


class ConvolutionStruct(ctypes.Structure):
    """A dense convolution."""

    _fields_ = [
        ("weight", POINTER),
        *((name, INT) for name in ("of_out", "of_in", "of_tap", "channels", "relu")),
    ]


class ReaderStruct(ctypes.Structure):
    """Who reads a cell's output."""

    _fields_ = [
        ("weight", POINTER),
        ("odd", POINTER),
        ("channels", INT),
        ("y", POINTER),
        ("batch_norm", ctypes.POINTER(BatchNormStruct)),
        ("gradient", POINTER),
        ("norm", POINTER),
        ("sums", POINTER),
        ("of_weight", POINTER),
        ("of_odd", POINTER),
    ]


class LayerStruct(ctypes.Structure):
    """A layer of a cell's edge."""

    _fields_ = [
        *((name, INT) for name in ("kind", "kernel", "stride", "dilation", "channels")),
        *((name, INT) for name in ("of_out", "of_in", "of_tap", "relu")),
        *((name, POINTER) for name in ("weight", "second")),
        ("norm", BatchNormStruct),
        *((name, POINTER) for name in ("y", "index")),
        *((name, POINTER) for name in ("of_weight", "of_second", "of_gamma", "of_beta")),
    ]


class EdgeStruct(ctypes.Structure):
    """An edge of a cell."""

    _fields_ = [
        *((name, INT) for name in ("source", "layers")),
        ("keep", POINTER),
        ("ran", INT),
        ("product", ctypes.c_double),
    ]


class StateStruct(ctypes.Structure):
    """An input or a node of a cell."""

    _fields_ = [
        *((name, POINTER) for name in ("map", "norm")),
        *((name, INT) for name in ("height", "width", "channels", "edges", "undrawn", "wanted")),
        *((name, POINTER) for name in ("gradient", "into", "sums")),
        ("summed", INT),
    ]


class CellStruct(ctypes.Structure):
    """A cell."""

    _fields_ = [
        *((name, INT) for name in ("batch", "threads", "nodes")),
        *((name, POINTER) for name in ("states", "edges", "layers")),
        *((name, INT) for name in ("weights", "gates")),
        ("between", POINTER * 2),
        ("kept", POINTER),
    ]


SIGNATURES = {
    "gdas_convolution_forward": "Sppppp",
    "gdas_convolution_backward": "Spppppppppppp",
    "gdas_readers_forward": "Sipip",
    "gdas_readers_backward": "Sipipppp",
    "gdas_sum": "Sipp",
    "gdas_gradient_sums": "Spippp",
    "gdas_cell_forward": "p",
    "gdas_cell_backward": "p",
}
"""The arguments of each function: S a shape, i an int, p a pointer."""


@functools.cache
def kernels() -> ctypes.CDLL:
    """The library with its functions' types."""
    found = library()
    assert found is not None, "the kernels cannot be compiled here"
    types = {"S": ctypes.POINTER(ShapeStruct), "i": INT, "p": POINTER}
    for name, arguments in SIGNATURES.items():
        function = getattr(found, name)
        function.restype = INT
        function.argtypes = [types[a] for a in arguments]
    return found


@functools.lru_cache(maxsize=4096)
def _shape(shape: torch.Size, threads: int, kernel: int, stride: int, dilation: int) -> ShapeStruct:
    batch, channels, height, width = shape
    return ShapeStruct(batch, height, width, channels, kernel, stride, dilation, threads)


def shape_of(x_BCHW: Tensor, kernel: int = 0, stride: int = 1, dilation: int = 1) -> ShapeStruct:
    """The sizes of a call whose input this is."""
    return _shape(x_BCHW.shape, torch.get_num_threads(), kernel, stride, dilation)


def at(x: Tensor | None) -> int | None:
    """A tensor's address, for an argument that may be null."""
    return None if x is None else x.data_ptr()


def check(status: int) -> None:
    """Raise what a kernel could not."""
    if status == 1:
        raise MemoryError("no memory for a fused kernel")
    assert status == 0, "a size that no kernel was compiled for"


def batch_norm(norm: BatchNorm, y_BCHW: Tensor) -> tuple[Tensor, BatchNormStruct]:
    """A norm_4C of y to be written by a kernel, and the layer; counts the batch.

    Raises:
        ValueError: y has one value in a channel, as PyTorch's batch norm does.
    """
    norm_4C = torch.empty(4, norm.num_features)
    return norm_4C, batch_norm_struct(norm, y_BCHW.shape, norm_4C.data_ptr())


def batch_norm_struct(
    norm: BatchNorm, shape: Sequence[int], norm_at: int | None
) -> BatchNormStruct:
    """The same for a map of this shape, whose norm_4C is written to an address, maybe a later one.

    Raises:
        ValueError: as batch_norm.
    """
    batch, channels, height, width = shape
    if batch * height * width <= 1:
        size = [batch, channels, height, width]
        raise ValueError(f"batch norm needs more than 1 value per channel in training, got {size}")
    return BatchNormStruct(
        at(norm.weight),
        at(norm.bias),
        at(norm.running_mean),
        at(norm.running_var),
        norm.count_batch(),
        norm.eps,
        norm_at,
    )


def terms_of(terms: Sequence[Term]) -> ctypes.Array[TermStruct]:
    """Terms for a kernel."""
    structs = (
        TermStruct(t.map.values_BCHW.data_ptr(), at(t.map.norm_4C), at(t.keep_B)) for t in terms
    )
    return (TermStruct * len(terms))(*structs)


def addresses(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    """An array of pointers."""
    return (POINTER * len(tensors))(*(at(x) for x in tensors))


def new_map(like_BCHW: Tensor, channels: int, stride: int = 1) -> Tensor:
    """An uninitialised channels-last map of ceil(size / stride)."""
    batch, _, height, width = like_BCHW.shape
    return torch.empty(
        (batch, channels, -(-height // stride), -(-width // stride)),
        memory_format=torch.channels_last,
    )
