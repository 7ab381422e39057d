"""The kernels as functions of tensors; kernels.h says what each of them does.

Tensors are float32 and channels-last; who calls has made sure of it.

Shapes: B batch, C channels, H and W height and width, T terms, P parts.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gdas.cnn.fused.interface import (
    BatchNormStruct,
    Map,
    ReaderStruct,
    Term,
    addresses,
    at,
    batch_norm,
    check,
    kernels,
    new_map,
    shape_of,
    terms_of,
)
from gdas.cnn.norm import BatchNorm


class Pass(NamedTuple):
    """The layers of a separable pass, after its ReLU."""

    depthwise: Tensor
    pointwise: Tensor
    norm: BatchNorm
    stride: int
    dilation: int

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """Both convolutions'."""
        return self.depthwise, self.pointwise


class Pool(NamedTuple):
    """Pooling and batch norm, if there is one.

    Attributes:
        kernel: 3, with a padding of 1; or 2 for means of stride 2, without padding.
    """

    average: bool
    norm: BatchNorm | None
    stride: int
    kernel: int = 3

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """None, but for its norm's."""
        return ()


class Reader(NamedTuple):
    """A 1 x 1 convolution of a ReLU; with `odd` two, which halve the size; and batch norm."""

    weight: Tensor
    odd: Tensor | None
    norm: BatchNorm

    @property
    def channels(self) -> int:
        """How many come out."""
        return len(self.weight) * self.stride

    @property
    def stride(self) -> int:
        """2 if it halves the size."""
        return 1 if self.odd is None else 2

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """Of one convolution, or of two."""
        return (self.weight,) if self.odd is None else (self.weight, self.odd)


class Reducing(NamedTuple):
    """The grouped convolutions of the fixed reduction cell, 1 x 3 and 3 x 1, and batch norm."""

    rows: Tensor
    columns: Tensor
    norm: BatchNorm

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """Both convolutions'."""
        return self.rows, self.columns


class Gradient(NamedTuple):
    """The gradient of a term.

    Attributes:
        values_BCHW: the gradient of the sum that the term is in.
        sums_2C: the sums of it, and of it times (values - mean), which batch norm needs.
        keep_B: what multiplies the term's images.
    """

    values_BCHW: Tensor
    sums_2C: Tensor | None
    keep_B: Tensor | None = None


def new_gradient(x: Map, into_BCHW: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Where the gradient of a map is written, and its sums if the map's norm needs them."""
    written = torch.empty_like(x.values_BCHW) if into_BCHW is None else into_BCHW
    if x.norm_4C is None:
        return written, None
    return written, torch.empty(2, x.values_BCHW.shape[1], dtype=torch.float64)


def read(parts: Sequence[Map], readers: Sequence[Reader]) -> list[Map]:
    """What every reader makes of the ReLU of the parts side by side."""
    like_BCHW = parts[0].values_BCHW
    structs = (ReaderStruct * len(readers))()
    layers: list[BatchNormStruct] = []
    out = []
    for struct, reader in zip(structs, readers, strict=True):
        y_BCHW = new_map(like_BCHW, reader.channels, reader.stride)
        norm_4C, layer = batch_norm(reader.norm, y_BCHW)
        layers.append(layer)
        struct.weight, struct.odd = reader.weight.data_ptr(), at(reader.odd)
        struct.channels, struct.y = reader.channels, y_BCHW.data_ptr()
        struct.batch_norm = ctypes.pointer(layer)
        out.append(Map(y_BCHW, norm_4C))
    check(
        kernels().gdas_readers_forward(
            shape_of(like_BCHW),
            len(parts),
            terms_of([Term(part) for part in parts]),
            len(readers),
            structs,
        )
    )
    return out


class Reading(NamedTuple):
    """A reader, what it made, and the gradient of that."""

    reader: Reader
    y: Map
    of_y: Gradient


def read_backward(
    parts: Sequence[Map],
    readings: Sequence[Reading],
    *,
    weights: bool,
    bases: Sequence[Tensor | None] = (),
    into: Sequence[Tensor | None] = (),
) -> tuple[list[Gradient], list[tuple[Tensor | None, Tensor | None]]]:
    """The parts' gradients, and for every reader those of its weights.

    Args:
        bases, into: for every part, as in separable_backward; none: no bases, new tensors.
    """
    like_BCHW = parts[0].values_BCHW
    bases = bases or [None] * len(parts)
    written = [
        torch.empty_like(part.values_BCHW) if own is None else own
        for part, own in zip(parts, into or bases, strict=True)
    ]
    structs = (ReaderStruct * len(readings))()
    of_weights: list[tuple[Tensor | None, Tensor | None]] = []
    of_outputs = [kept(of_y) for _, _, of_y in readings]
    for struct, (reader, y, of_y), own_BCHW in zip(structs, readings, of_outputs, strict=True):
        struct.weight, struct.odd = reader.weight.data_ptr(), at(reader.odd)
        struct.channels, struct.y = reader.channels, y.values_BCHW.data_ptr()
        struct.gradient, struct.norm = own_BCHW.data_ptr(), at(y.norm_4C)
        struct.sums = at(of_y.sums_2C)
        own = torch.empty_like(reader.weight) if weights else None
        odd = torch.empty_like(reader.odd) if weights and reader.odd is not None else None
        struct.of_weight, struct.of_odd = at(own), at(odd)
        of_weights.append((own, odd))
    sums_P2C = None
    if any(part.norm_4C is not None for part in parts):
        sums_P2C = torch.empty(len(parts), 2, like_BCHW.shape[1], dtype=torch.float64)
    check(
        kernels().gdas_readers_backward(
            shape_of(like_BCHW),
            len(parts),
            terms_of([Term(part) for part in parts]),
            len(readings),
            structs,
            addresses(bases),
            addresses(written),
            at(sums_P2C),
        )
    )
    gradients = [
        Gradient(x, None if sums_P2C is None else sums_P2C[i]) for i, x in enumerate(written)
    ]
    return gradients, of_weights


def kept(of_y: Gradient) -> Tensor:
    """A gradient after drop path, where no kernel applies it on its way."""
    if of_y.keep_B is None:
        return of_y.values_BCHW
    return of_y.values_BCHW * of_y.keep_B[:, None, None, None]


def sum_of_terms(terms: Sequence[Term]) -> Tensor:
    """The sum of what the terms mean."""
    out_BCHW = torch.empty_like(terms[0].map.values_BCHW)
    check(kernels().gdas_sum(shape_of(out_BCHW), len(terms), terms_of(terms), out_BCHW.data_ptr()))
    return out_BCHW


def gradient_sums(gradient_BCHW: Tensor, terms: Sequence[Term]) -> tuple[Tensor, Tensor]:
    """For each term, what its gradient needs, given the gradient of the terms' sum.

    Returns:
        T x 2 x C: the sums of Gradient. T: the inner product of the gradient and the term, which
        is the gradient of a factor on the term.
    """
    sums_T2C = torch.empty(len(terms), 2, gradient_BCHW.shape[1], dtype=torch.float64)
    products_T = torch.empty(len(terms), dtype=torch.float64)
    check(
        kernels().gdas_gradient_sums(
            shape_of(gradient_BCHW),
            gradient_BCHW.data_ptr(),
            len(terms),
            terms_of(terms),
            sums_T2C.data_ptr(),
            products_T.data_ptr(),
        )
    )
    return sums_T2C, products_T
