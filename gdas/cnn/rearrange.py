"""Feature maps rearranged so that forward and backward passes run on dense tensors.

None of this changes a value. CPU kernels are several times slower on strided tensors, and on some
shapes of convolution; REARRANGED_ON says where that pays.

Shapes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

REARRANGED_ON = ("cpu",)
"""Device types on which a convolution is computed by way of others. CUDA's own depthwise kernels
take dilation and any width without such a penalty, and copies would only cost."""


def rearranged(x_BCHW: Tensor) -> bool:
    """Whether convolutions of this tensor are computed by way of others."""
    return x_BCHW.device.type in REARRANGED_ON


def layout_of(x_BCHW: Tensor) -> torch.memory_format:
    """The layout that a dense tensor of this one's kind has."""
    channels_last = x_BCHW.is_contiguous(memory_format=torch.channels_last)
    if channels_last and not x_BCHW.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format


class _DenseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor) -> Tensor:
        ctx.layout = layout_of(x_BCHW)
        return x_BCHW.view_as(x_BCHW)

    @staticmethod
    def backward(ctx: Any, gradient_BCHW: Tensor) -> Tensor:  # type: ignore[override]
        return gradient_BCHW.contiguous(memory_format=ctx.layout)


def concatenate(parts_BCHW: Sequence[Tensor]) -> Tensor:
    """Concatenate channels; every part's gradient is made dense in the part's layout.

    It would be a slice, and backward through batch norm and ReLU takes about ten times longer with
    the slice of a channels-last gradient.
    """
    dense = [_DenseGradient.apply(part) for part in parts_BCHW]  # type: ignore[no-untyped-call]
    return torch.cat(dense, dim=1)


class _Alternate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.shape, ctx.layout = x_BCHW.shape, layout_of(x_BCHW)
        return tuple(
            x_BCHW[:, :, i::2, i::2].contiguous(memory_format=ctx.layout) for i in (0, 1)
        )  # type: ignore[return-value]

    @staticmethod
    def backward(ctx: Any, *gradients_BCHW: Tensor | None) -> Tensor | None:  # type: ignore[override]
        x_BCHW = None
        for i, part_BCHW in enumerate(gradients_BCHW):
            if part_BCHW is not None:
                if x_BCHW is None:
                    x_BCHW = torch.empty(
                        ctx.shape,
                        dtype=part_BCHW.dtype,
                        device=part_BCHW.device,
                        memory_format=ctx.layout,
                    ).zero_()
                x_BCHW[:, :, i::2, i::2] = part_BCHW
        return x_BCHW


def alternate_pixels(x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """The pixels of even row and column, and those of odd row and column.

    As two slices, whose gradients would be two whole images, of another layout at times.
    """
    return _Alternate.apply(x_BCHW)  # type: ignore[no-any-return,no-untyped-call]


def split_phases(x_BCHW: Tensor) -> Tensor:
    """4B images of half the size, of even and odd rows and columns; height and width are even."""
    batch, channels, height, width = x_BCHW.shape
    h, w = height // 2, width // 2
    if layout_of(x_BCHW) == torch.channels_last:
        x_BhpwqC = x_BCHW.permute(0, 2, 3, 1).reshape(batch, h, 2, w, 2, channels)
        x_pqBhwC = x_BhpwqC.permute(2, 4, 0, 1, 3, 5)
        return x_pqBhwC.reshape(4 * batch, h, w, channels).permute(0, 3, 1, 2)
    x_pqBChw = x_BCHW.reshape(batch, channels, h, 2, w, 2).permute(3, 5, 0, 1, 2, 4)
    return x_pqBChw.reshape(4 * batch, channels, h, w)


def join_phases(x_BCHW: Tensor) -> Tensor:
    """The inverse of split_phases."""
    batch, channels, h, w = x_BCHW.shape
    batch //= 4
    if layout_of(x_BCHW) == torch.channels_last:
        x_pqBhwC = x_BCHW.permute(0, 2, 3, 1).reshape(2, 2, batch, h, w, channels)
        x_BhpwqC = x_pqBhwC.permute(2, 3, 0, 4, 1, 5)
        return x_BhpwqC.reshape(batch, 2 * h, 2 * w, channels).permute(0, 3, 1, 2)
    x_BChpwq = x_BCHW.reshape(2, 2, batch, channels, h, w).permute(2, 3, 4, 0, 5, 1)
    return x_BChpwq.reshape(batch, channels, 2 * h, 2 * w)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, weight_C1kk: Tensor) -> Tensor:
        ctx.save_for_backward(x_BCHW, weight_C1kk)
        kernel = weight_C1kk.shape[-1]
        return F.conv2d(x_BCHW, weight_C1kk, padding=kernel // 2, groups=len(weight_C1kk))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(  # type: ignore[override]
        ctx: Any, gradient_BCHW: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        x_BCHW, weight_C1kk = ctx.saved_tensors
        kernel = weight_C1kk.shape[-1]
        pad = kernel // 2
        x_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient, _ = _gradients(gradient_BCHW, x_BCHW, weight_C1kk, pad, of_x=True)
        if ctx.needs_input_grad[1]:
            parts = []
            for first in range(0, kernel, 3):
                columns = weight_C1kk[..., first : first + 3]
                # So wide that a convolution with these columns alone gives the width again. (Padded
                # in height by oneDNN itself, maps of 4 rows or fewer are 30 times slower.)
                left, right = pad - first, first + columns.shape[-1] - 1 - pad
                padded_BCHW = F.pad(x_BCHW, (left, right, pad, pad))
                _, part = _gradients(gradient_BCHW, padded_BCHW, columns, 0, of_x=False)
                parts.append(part)
            weight_gradient = torch.cat(parts, dim=3)  # type: ignore[arg-type]
        return x_gradient, weight_gradient


def _gradients(
    gradient_BCHW: Tensor,
    x_BCHW: Tensor,
    weight_C1hw: Tensor,
    padding: int,
    *,
    of_x: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """A depthwise convolution's gradient, of its input or of its weight."""
    x_gradient, weight_gradient, _ = torch.ops.aten.convolution_backward(
        gradient_BCHW,
        x_BCHW,
        weight_C1hw,
        None,
        (1, 1),
        (padding, padding),
        (1, 1),
        False,
        (0, 0),
        len(weight_C1hw),
        (of_x, not of_x, False),
    )
    return x_gradient, weight_gradient


def depthwise(x_BCHW: Tensor, weight_C1kk: Tensor) -> Tensor:
    """Depthwise convolution of stride 1 with an odd kernel, padded to the same size.

    oneDNN's gradient of a depthwise weight is five times slower for kernels wider than 3, so it is
    computed for three columns of the kernel at a time.
    """
    if rearranged(x_BCHW) and weight_C1kk.shape[-1] > 3:
        return _Depthwise.apply(x_BCHW, weight_C1kk)  # type: ignore[no-any-return,no-untyped-call]
    return F.conv2d(
        x_BCHW, weight_C1kk, padding=weight_C1kk.shape[-1] // 2, groups=len(weight_C1kk)
    )
