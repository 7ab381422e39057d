"""The same arithmetic on denser tensors, so that backward passes run many times faster on CPUs.

Forward passes are PyTorch's own throughout. This module defines how gradients are computed: by
PyTorch's kernels, on the same numbers in another arrangement. Measured with PyTorch 2.14 and oneDNN
3.12, channels-last, one thread:

- the backward pass of batch norm and ReLU is ten times slower through a slice of a concatenation
  than through a dense tensor;
- that of a dilated depthwise convolution is 5 to 20 times slower than that of a plain one;
- the gradient of a depthwise weight of 5 columns takes three times longer than two of 3 columns;
- the gradient of a mean over all pixels comes in the usual layout, and the backward pass of a ReLU
  before it, from one layout to the other, takes 12 times longer (64 x 64 x 8 x 8).

Shapes: B batch, C channels, H and W height and width, k kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

DEPTHWISE_ON = ("cpu",)
"""Device types on which depthwise convolutions use the backward pass of this module.

It works around weak spots of oneDNN. CUDA has other kernels, for which the copies may not pay (not
measured).
"""
WIDEST = 3
"""How many columns a depthwise kernel may have for oneDNN to compute its gradient quickly."""
LOWEST = 4
"""Up to this many rows of an image, oneDNN's own padding makes that gradient 10 times slower."""


def layout_of(x_BCHW: Tensor) -> torch.memory_format:
    """channels_last if the tensor has that layout and not, at the same time, the usual one."""
    if x_BCHW.is_contiguous() or not x_BCHW.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


class _Concatenate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parts_BCHW: Tensor) -> Tensor:
        ctx.layouts = [layout_of(part) for part in parts_BCHW]
        ctx.channels = [part.shape[1] for part in parts_BCHW]
        ctx.dtypes = [part.dtype for part in parts_BCHW]
        return torch.cat(parts_BCHW, dim=1)

    @staticmethod
    def backward(ctx: Any, gradient_BCHW: Tensor) -> tuple[Tensor, ...]:
        if len(set(ctx.layouts)) == len(set(ctx.channels)) == len(set(ctx.dtypes)) == 1:
            parts = _split_evenly(
                gradient_BCHW.to(ctx.dtypes[0]), len(ctx.channels), ctx.layouts[0]
            )
            return tuple(parts)
        return tuple(
            part.to(dtype).contiguous(memory_format=layout)
            for part, dtype, layout in zip(
                gradient_BCHW.split(ctx.channels, dim=1), ctx.dtypes, ctx.layouts, strict=True
            )
        )


def _split_evenly(x_BCHW: Tensor, parts: int, layout: torch.memory_format) -> list[Tensor]:
    """Parts with equal channels, each dense in a layout, by one copy."""
    x_BnCHW = x_BCHW.unflatten(1, (parts, -1))
    if layout == torch.channels_last:
        x_nBHWC = x_BnCHW.permute(1, 0, 3, 4, 2).contiguous()
        return list(x_nBHWC.permute(0, 1, 4, 2, 3))
    return list(x_BnCHW.transpose(0, 1).contiguous())


def concatenate(parts_BCHW: Sequence[Tensor]) -> Tensor:
    """Concatenate channels; each part's gradient is dense in the part's layout, not a slice."""
    out: Tensor = _Concatenate.apply(*parts_BCHW)
    return out


class _GatherGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor) -> Tensor:
        ctx.layout = layout_of(x_BCHW)
        return x_BCHW.view_as(x_BCHW)

    @staticmethod
    def backward(ctx: Any, gradient_BCHW: Tensor) -> Tensor:
        return gradient_BCHW.contiguous(memory_format=ctx.layout)


def with_dense_gradient(x_BCHW: Tensor) -> Tensor:
    """The same images; on a CPU their gradient is dense, in their layout."""
    if x_BCHW.device.type != "cpu" or not x_BCHW.requires_grad:
        return x_BCHW
    out: Tensor = _GatherGradient.apply(x_BCHW)
    return out


class _Alternate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        ctx.shape, ctx.layout = x_BCHW.shape, layout_of(x_BCHW)
        even_BCHW, odd_BCHW = (
            x_BCHW[:, :, i::2, i::2].contiguous(memory_format=ctx.layout) for i in (0, 1)
        )
        return even_BCHW, odd_BCHW

    @staticmethod
    def backward(ctx: Any, even_BCHW: Tensor, odd_BCHW: Tensor) -> Tensor:
        return _spread(ctx.shape, ctx.layout, even_BCHW, odd_BCHW)


def alternate_pixels(x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """The pixels in even rows and columns, and those in odd rows and columns.

    With plain slices, the backward pass would make a whole image of zeros for each, sometimes in
    another layout.
    """
    return _Alternate.apply(x_BCHW)  # type: ignore[no-any-return]


def _spread(shape: torch.Size, layout: torch.memory_format, *parts_BCHW: Tensor) -> Tensor:
    """An image with the given even and odd pixels, and zeros elsewhere."""
    like = parts_BCHW[0]
    x_BCHW = torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout).zero_()
    for i, part_BCHW in enumerate(parts_BCHW):
        x_BCHW[:, :, i::2, i::2] = part_BCHW
    return x_BCHW


def split_phases(x_BCHW: Tensor) -> Tensor:
    """Split B images into 4B images of half the size: even and odd rows by even and odd columns.

    An odd size is first made even with zeros.
    """
    batch, channels, height, width = x_BCHW.shape
    if height % 2 or width % 2:
        x_BCHW = F.pad(x_BCHW, (0, width % 2, 0, height % 2))
    h, w = (height + 1) // 2, (width + 1) // 2
    if layout_of(x_BCHW) == torch.channels_last:
        x_BhpwqC = x_BCHW.permute(0, 2, 3, 1).reshape(batch, h, 2, w, 2, channels)
        x_pqBhwC = x_BhpwqC.permute(2, 4, 0, 1, 3, 5)
        return x_pqBhwC.reshape(4 * batch, h, w, channels).permute(0, 3, 1, 2)
    x_pqBChw = x_BCHW.reshape(batch, channels, h, 2, w, 2).permute(3, 5, 0, 1, 2, 4)
    return x_pqBChw.reshape(4 * batch, channels, h, w)


def join_phases(x_BCHW: Tensor, height: int, width: int) -> Tensor:
    """The inverse of split_phases for images of this size."""
    batch, channels, h, w = x_BCHW.shape
    batch //= 4
    if layout_of(x_BCHW) == torch.channels_last:
        x_pqBhwC = x_BCHW.permute(0, 2, 3, 1).reshape(2, 2, batch, h, w, channels)
        x_BhpwqC = x_pqBhwC.permute(2, 3, 0, 4, 1, 5)
        joined_BCHW = x_BhpwqC.reshape(batch, 2 * h, 2 * w, channels).permute(0, 3, 1, 2)
    else:
        x_BChpwq = x_BCHW.reshape(2, 2, batch, channels, h, w).permute(2, 3, 4, 0, 5, 1)
        joined_BCHW = x_BChpwq.reshape(batch, channels, 2 * h, 2 * w)
    return joined_BCHW[:, :, :height, :width]


def split_rows(x_BCHW: Tensor) -> Tensor:
    """Split images into even and odd rows, with each pair of columns as one of twice the channels.

    The result has 2B images. For channels-last images of even width this copies whole rows, which
    is much faster than single pixels. An odd height is first made even with zeros.
    """
    batch, channels, height, width = x_BCHW.shape
    if height % 2:
        x_BCHW = F.pad(x_BCHW, (0, 0, 0, 1))
    h, w = (height + 1) // 2, width // 2
    x_BhpwC = x_BCHW.permute(0, 2, 3, 1).reshape(batch, h, 2, w, 2 * channels)
    x_pBhwC = x_BhpwC.permute(2, 0, 1, 3, 4).reshape(2 * batch, h, w, 2 * channels)
    return x_pBhwC.permute(0, 3, 1, 2)


def join_rows(x_BCHW: Tensor, height: int) -> Tensor:
    """The inverse of split_rows for images of this height."""
    batch, channels, h, w = x_BCHW.shape
    batch, channels = batch // 2, channels // 2
    x_pBhwC = x_BCHW.permute(0, 2, 3, 1).reshape(2, batch, h, w, 2 * channels)
    x_BHWC = x_pBhwC.permute(1, 2, 0, 3, 4).reshape(batch, 2 * h, 2 * w, channels)
    return x_BHWC.permute(0, 3, 1, 2)[:, :, :height]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BCHW: Tensor, weight_C1kk: Tensor, stride: int, dilation: int
    ) -> Tensor:
        ctx.save_for_backward(x_BCHW, weight_C1kk)
        ctx.stride, ctx.dilation = stride, dilation
        padding = dilation * (weight_C1kk.shape[-1] // 2)
        return F.conv2d(
            x_BCHW, weight_C1kk, None, stride, padding, dilation, groups=len(weight_C1kk)
        )

    @staticmethod
    def backward(
        ctx: Any, gradient_BCHW: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        x_BCHW, weight_C1kk = ctx.saved_tensors
        of_x, of_weight = ctx.needs_input_grad[:2]
        shape, layout, stride = x_BCHW.shape, layout_of(x_BCHW), ctx.stride
        gradient_BCHW = gradient_BCHW.contiguous(memory_format=layout)
        by_rows = layout == torch.channels_last and shape[3] % 2 == 0
        spread = ctx.dilation == 2 and stride == 2
        split = ctx.dilation == 2 and stride == 1
        copies = 2 if split and by_rows else 1  # of the weight, for even and for odd columns
        if spread:
            x_BCHW = x_BCHW[:, :, ::2, ::2].contiguous(memory_format=layout)
        elif split:
            apart = split_rows if by_rows else split_phases
            gradient_BCHW = apart(gradient_BCHW)
            # If the weight needs no gradient, only the input's shape matters.
            x_BCHW = apart(x_BCHW) if of_weight else gradient_BCHW
            weight_C1kk = weight_C1kk.repeat(copies, 1, 1, 1)
        step = stride if ctx.dilation == 1 else 1
        x_gradient = weight_gradient = None
        if of_x:
            padding = weight_C1kk.shape[-1] // 2
            x_gradient = _plain_gradients(
                gradient_BCHW, x_BCHW, weight_C1kk, step, padding, (True, False)
            )[0]
            if spread:
                x_gradient = _spread(shape, layout, x_gradient)
            elif split and by_rows:
                x_gradient = join_rows(x_gradient, shape[2])
            elif split:
                x_gradient = join_phases(x_gradient, *shape[2:])
        if of_weight:
            weight_gradient = _weight_gradient(gradient_BCHW, x_BCHW, weight_C1kk, step)
            if copies == 2:
                weight_gradient = torch.add(*weight_gradient.chunk(2))
        return x_gradient, weight_gradient, None, None


def _weight_gradient(
    gradient_BCHW: Tensor, x_BCHW: Tensor, weight_C1kk: Tensor, stride: int
) -> Tensor:
    """The gradient of a weight without dilation, a few columns at a time."""
    kernel = weight_C1kk.shape[-1]
    pad = kernel // 2
    height, width = x_BCHW.shape[2:]
    if kernel <= WIDEST or width < pad:
        return _plain_gradients(gradient_BCHW, x_BCHW, weight_C1kk, stride, pad, (False, True))[1]
    if kernel == 5 and width % 2 == 0 and height > LOWEST and _by_pixels(x_BCHW, gradient_BCHW):
        by_parity = _stride_two if stride == 2 else _stride_one
        return by_parity(gradient_BCHW, x_BCHW, weight_C1kk)
    parts = []
    for first in range(0, kernel, WIDEST):
        columns = weight_C1kk[..., first : first + WIDEST]
        # Padded so that a convolution with only these columns gives the same output. (With
        # oneDNN's own padding, images of four rows or fewer take 30 times longer.)
        left, right = pad - first, first + columns.shape[-1] - 1 - pad
        padded_BCHW = F.pad(x_BCHW, (left, right, pad, pad))
        part = _plain_gradients(gradient_BCHW, padded_BCHW, columns, stride, 0, (False, True))[1]
        parts.append(part)
    return torch.cat(parts, dim=3)


def _by_pixels(*x_BCHW: Tensor) -> bool:
    return all(x.is_contiguous(memory_format=torch.channels_last) for x in x_BCHW)


def _pairs(x_BCHW: Tensor) -> Tensor:
    """Put the channels of each even column and the odd one after it side by side; no copy."""
    batch, channels, height, width = x_BCHW.shape
    x_BHwC = x_BCHW.permute(0, 2, 3, 1).view(batch, height, width // 2, 2 * channels)
    return x_BHwC.permute(0, 3, 1, 2)


def _stride_one(gradient_BCHW: Tensor, x_BCHW: Tensor, weight_C1kk: Tensor) -> Tensor:
    """The gradient of a kernel of 5 columns, at stride 1.

    Columns 0, 2 and 4 join image columns of the same parity, columns 1 and 3 those of different
    parity. The image columns of one parity form an image on which a kernel of 3 columns reaches as
    far.
    """
    channels = len(weight_C1kk)
    g_BCHw, x_BCHw = _pairs(gradient_BCHW), _pairs(x_BCHW)
    swapped_BCHw = torch.cat([x_BCHw[:, channels:], x_BCHw[:, :channels]], dim=1)
    narrow = weight_C1kk[..., 1:4].repeat(2, 1, 1, 1)
    alike, unlike = (
        _plain_gradients(g_BCHw, x, narrow, 1, (2, 1), (False, True))[1].chunk(2)
        for x in (x_BCHw, swapped_BCHw)
    )
    first, second, third = (alike[0] + alike[1]).unbind(3)
    even, odd = unlike
    one, three = even[..., 0] + odd[..., 1], even[..., 1] + odd[..., 2]
    return torch.stack([first, one, second, three, third], dim=3)


def _stride_two(gradient_BCHW: Tensor, x_BCHW: Tensor, weight_C1kk: Tensor) -> Tensor:
    """The gradient of a kernel of 5 columns, at stride 2.

    Columns 0, 2 and 4 meet only even image columns, columns 1 and 3 only odd ones.
    """
    twice_BCHw = torch.cat([gradient_BCHW, gradient_BCHW], dim=1)
    narrow = weight_C1kk[..., 1:4].repeat(2, 1, 1, 1)
    both = _plain_gradients(twice_BCHw, _pairs(x_BCHW), narrow, (2, 1), (2, 1), (False, True))[1]
    even, odd = both.chunk(2)
    parts = [even[..., 0], odd[..., 0], even[..., 1], odd[..., 1], even[..., 2]]
    return torch.stack(parts, dim=3)


def _plain_gradients(
    gradient_BCHW: Tensor,
    x_BCHW: Tensor,
    weight_C1hw: Tensor,
    stride: int | tuple[int, int],
    padding: int | tuple[int, int],
    wanted: tuple[bool, bool],
) -> tuple[Tensor, Tensor]:
    """PyTorch's gradients of a depthwise convolution, for its input and its weight."""
    x_gradient, weight_gradient, _ = torch.ops.aten.convolution_backward(
        gradient_BCHW,
        x_BCHW,
        weight_C1hw,
        None,
        (stride, stride) if isinstance(stride, int) else stride,
        (padding, padding) if isinstance(padding, int) else padding,
        (1, 1),
        False,
        (0, 0),
        len(weight_C1hw),
        (*wanted, False),
    )
    return x_gradient, weight_gradient


def depthwise(x_BCHW: Tensor, weight_C1kk: Tensor, stride: int, dilation: int) -> Tensor:
    """Depthwise convolution with an odd kernel, and stride and dilation 1 or 2.

    It is padded so that size n becomes ceil(n / stride). With dilation 2, a pixel meets only pixels
    of its own phase (even or odd row, even or odd column). So the backward pass treats every phase
    as a separate image without dilation; with stride 2, only the even phase is ever read.
    """
    plain = dilation == 1 and weight_C1kk.shape[-1] <= WIDEST
    if plain or x_BCHW.device.type not in DEPTHWISE_ON:
        padding = dilation * (weight_C1kk.shape[-1] // 2)
        return F.conv2d(
            x_BCHW, weight_C1kk, None, stride, padding, dilation, groups=len(weight_C1kk)
        )
    if torch.is_autocast_enabled(x_BCHW.device.type):  # save the tensors in the dtype that is used
        dtype = torch.get_autocast_dtype(x_BCHW.device.type)
        x_BCHW, weight_C1kk = x_BCHW.to(dtype), weight_C1kk.to(dtype)
    out: Tensor = _Depthwise.apply(x_BCHW, weight_C1kk, stride, dilation)
    return out
