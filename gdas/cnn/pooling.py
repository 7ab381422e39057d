"""Average pooling whose gradient is right on every device and in every layout.

On CUDA, PyTorch's backward pass of `avg_pool2d` ignores the padding if images are channels-last: a
pixel gets the gradient of its neighbour one up and one left (PyTorch's issue 188344; in version
2.11 and before). Only gradients are wrong; those of a search's logits had a cosine of 0.87 with the
true ones. So on CUDA they are computed in the usual layout, whatever the version.

Shapes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.cnn.rearrange import layout_of

RIGHT_ON = ("cpu",)
"""Device types on which PyTorch's own gradient is used."""


class _AveragePool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, stride: int) -> Tensor:
        ctx.shape, ctx.layout, ctx.stride = x_BCHW.shape, layout_of(x_BCHW), stride
        return F.avg_pool2d(x_BCHW, 3, stride, 1, count_include_pad=False)

    @staticmethod
    def backward(ctx: Any, gradient_BCHW: Tensor) -> tuple[Tensor, None]:
        gradient_BCHW = gradient_BCHW.contiguous()
        of_x_BCHW: Tensor = torch.ops.aten.avg_pool2d_backward(
            gradient_BCHW,
            gradient_BCHW.new_empty(ctx.shape),  # only its shape and layout are read
            (3, 3),
            (ctx.stride, ctx.stride),
            (1, 1),
            False,
            False,
            None,
        )
        return of_x_BCHW.contiguous(memory_format=ctx.layout), None


class AveragePool(nn.Module):
    """The mean over 3 x 3 pixels with a padding of 1, which does not count in the mean.

    Args:
        stride: 1 or 2; size n becomes ceil(n / stride).
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Pool B x C x H x W images."""
        if x_BCHW.device.type in RIGHT_ON:
            return F.avg_pool2d(x_BCHW, 3, self.stride, 1, count_include_pad=False)
        out: Tensor = _AveragePool.apply(x_BCHW, self.stride)
        return out
