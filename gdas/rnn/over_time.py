"""Products of one matrix with the states of many time steps, whose gradient is a single product.

Autograd would compute a matrix's gradient separately for every time step, from as many rows as the
batch has, and add them up: thin products and passes over the whole matrix. Here the factors and the
gradients of all time steps are kept, and multiplied once at the end. This is the same sum in
another order, by PyTorch's own kernels, on any device.

Shapes: B rows, N and M the matrix's rows and columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

Kept = list[tuple[Tensor, Tensor]]
"""The left factor of every product, and the gradient of its result."""


class Matrix(NamedTuple):
    """A matrix that is multiplied at many time steps.

    Attributes:
        weight_NM: the matrix.
        kept: filled during the backward pass; None: autograd computes the gradient.
    """

    weight_NM: Tensor
    kept: Kept | None


def over_time(weight_NM: Tensor, dtype: torch.dtype, *, at_once: bool = True) -> Matrix:
    """Prepare a matrix for one sequence.

    Args:
        weight_NM: the matrix.
        dtype: the dtype of the products; the matrix is converted once.
        at_once: whether its gradient is computed as one product; False for torch.compile.
    """
    weight_NM = weight_NM.to(dtype)
    if not (at_once and weight_NM.requires_grad and torch.is_grad_enabled()):
        return Matrix(weight_NM, None)
    kept: Kept = []
    return Matrix(_Gathered.apply(weight_NM, kept), kept)


def times(x_BN: Tensor, matrix: Matrix) -> Tensor:
    """The product of `x_BN` and the matrix; x may have further leading dimensions."""
    x_BN = x_BN.to(matrix.weight_NM.dtype)
    if matrix.kept is None:
        return x_BN @ matrix.weight_NM
    out_BM: Tensor = _Product.apply(x_BN, matrix.weight_NM, matrix.kept)
    return out_BM


class _Gathered(torch.autograd.Function):
    """Returns the matrix unchanged; its backward pass runs after those of all its products."""

    @staticmethod
    def forward(ctx: Any, weight_NM: Tensor, kept: Kept) -> Tensor:
        ctx.kept = kept
        ctx.set_materialize_grads(False)
        return weight_NM.view_as(weight_NM)

    @staticmethod
    def backward(ctx: Any, _: None) -> tuple[Tensor | None, None]:
        kept: Kept = ctx.kept
        if not kept:  # the loss does not depend on any of the products
            return None, None
        x_BN, gradient_BM = (torch.cat(parts) for parts in zip(*kept, strict=True))
        kept.clear()
        return x_BN.t() @ gradient_BM, None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BN: Tensor, weight_NM: Tensor, kept: Kept) -> Tensor:
        ctx.save_for_backward(x_BN, weight_NM)
        ctx.kept = kept
        return x_BN @ weight_NM

    @staticmethod
    def backward(ctx: Any, gradient_BM: Tensor) -> tuple[Tensor | None, None, None]:
        x_BN, weight_NM = ctx.saved_tensors
        ctx.kept.append((x_BN.flatten(0, -2), gradient_BM.flatten(0, -2)))
        return gradient_BM @ weight_NM.t() if ctx.needs_input_grad[0] else None, None, None
