"""The operations of a cell, with equal input and output channels (gdas.cnn.genotype.OPERATIONS).

Paper section 3.1 names them. Layers, order of batch norms and padding are those of the authors'
2019 code, in which batch norm also follows the pooling operations. Stride 2 turns size n into
ceil(n / 2).

Shapes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.cnn.norm import BatchNorm
from gdas.cnn.pooling import AveragePool
from gdas.cnn.rearrange import alternate_pixels, depthwise
from gdas.outside import check_named, import_operation, is_outside


@dataclass(frozen=True)
class Style:
    """How the layers of a cell are normalised.

    Attributes:
        affine: whether batch norms inside cells learn scale and shift (derived networks do, the
            supernet does not).
        pooling_norm: whether a batch norm (never affine) follows each pooling (2019 yes, 2020 no).
        bias_without_affine: whether all but depthwise convolutions have a bias if batch norm is not
            affine (2020 yes).
    """

    affine: bool
    pooling_norm: bool = True
    bias_without_affine: bool = False

    @property
    def bias(self) -> bool:
        """Whether convolutions, except depthwise ones, have a bias."""
        return self.bias_without_affine and not self.affine


class Zero(nn.Module):
    """The operation `none`: a zero tensor of the right shape (a cell skips it instead)."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Zeros, at half the size for stride 2."""
        return torch.zeros_like(x_BCHW[:, :, :: self.stride, :: self.stride])


class Pool(nn.Module):
    """3 x 3 pooling, then (2019) batch norm without affine. Padding does not count in the mean."""

    def __init__(self, kind: str, channels: int, stride: int, style: Style) -> None:
        super().__init__()
        self.pool: nn.Module
        if kind == "max":
            self.pool = nn.MaxPool2d(3, stride, 1)
        else:
            self.pool = AveragePool(stride)
        self.norm = BatchNorm(channels, affine=False) if style.pooling_norm else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Pool and normalise B x C x H x W to size ceil(n / stride)."""
        out: Tensor = self.norm(self.pool(x_BCHW))
        return out


class FactorizedReduce(nn.Module):
    """Halve the size: ReLU and two 1 x 1 stride-2 convolutions, the second a pixel down and right.

    A 1 x 1 convolution of stride 2 reads every other pixel, so those are selected first: the result
    is the same for a quarter of the ReLU. (On CPUs, oneDNN also corrupts memory in the backward
    pass of a strided 1 x 1 convolution with fewer than 8 or 16 channels in channels-last layout.)

    Args:
        activate: False if the input has already passed a ReLU.
    """

    def __init__(self, c_in: int, c_out: int, style: Style, *, activate: bool = True) -> None:
        super().__init__()
        self.activate = activate
        if c_out % 2:
            raise ValueError(f"FactorizedReduce needs an even number of channels, got {c_out}")
        self.even = nn.Conv2d(c_in, c_out // 2, 1, bias=style.bias)
        self.odd = nn.Conv2d(c_in, c_out // 2, 1, bias=style.bias)
        self.norm = BatchNorm(c_out, affine=style.affine)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """B x c_in x H x W to B x c_out x ceil(H / 2) x ceil(W / 2)."""
        height, width = x_BCHW.shape[2:]
        even_BCHW, odd_BCHW = alternate_pixels(x_BCHW)
        if self.activate:
            even_BCHW, odd_BCHW = F.relu(even_BCHW), F.relu(odd_BCHW)
        if height % 2 or width % 2:  # the shifted image is padded with a row and a column of zeros
            odd_BCHW = F.pad(odd_BCHW, (0, width % 2, 0, height % 2))
        out: Tensor = self.norm(torch.cat([self.even(even_BCHW), self.odd(odd_BCHW)], dim=1))
        return out


def conv_norm(c_in: int, c_out: int, style: Style) -> nn.Sequential:
    """A 1 x 1 convolution and batch norm, for an input that has already passed a ReLU."""
    return nn.Sequential(
        nn.Identity(),  # in the ReLU's place, so that the next layers keep their numbers as names
        nn.Conv2d(c_in, c_out, 1, bias=style.bias),
        BatchNorm(c_out, affine=style.affine),
    )


class Depthwise(nn.Conv2d):
    """A depthwise convolution with an odd kernel; see gdas.cnn.rearrange.depthwise."""

    def __init__(self, channels: int, kernel: int, stride: int, dilation: int) -> None:
        padding = dilation * (kernel - 1) // 2
        super().__init__(
            channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Convolve B x C x H x W; size n becomes ceil(n / stride)."""
        return depthwise(x_BCHW, self.weight, self.stride[0], self.dilation[0])


def _separable_pass(
    channels: int, kernel: int, stride: int, dilation: int, style: Style, *, inplace: bool = False
) -> list[nn.Module]:
    return [
        nn.ReLU(inplace),
        Depthwise(channels, kernel, stride, dilation),
        nn.Conv2d(channels, channels, 1, bias=style.bias),
        BatchNorm(channels, affine=style.affine),
    ]


def _separable(channels: int, kernel: int, stride: int, style: Style) -> nn.Sequential:
    return nn.Sequential(
        *_separable_pass(channels, kernel, stride, 1, style),
        *_separable_pass(channels, kernel, 1, 1, style, inplace=True),
    )


class Outside(nn.Module):
    """An operation from outside the package (gdas.outside).

    It is a class of its own, so that nothing takes what is inside for layers of ours:
    gdas.cnn.fused leaves a cell with one to plain PyTorch.
    """

    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """B x C x H x W to the same, or at stride 2 to B x C x ceil(H / 2) x ceil(W / 2)."""
        out: Tensor = self.operation(x_BCHW)
        return out


def build_operation(
    name: str, channels: int, stride: int, style: Style, named: Sequence[str] = ()
) -> nn.Module:
    """Build one operation of a cell.

    Args:
        name: one of gdas.cnn.genotype.DERIVED_OPERATIONS, or one of `named`.
        channels: C, the same for input and output.
        stride: 1 or 2.
        named: the operations from outside that may be imported, which runs their code.

    Raises:
        InputError: the name is from outside and not among `named`, or cannot be imported.
        ValueError: the name is unknown.
    """
    if is_outside(name):
        check_named([name], named, "the cell", "operations=['{}']")
        return Outside(import_operation(name)(channels, stride, style.affine))
    match name:
        case "none":
            return Zero(stride)
        case "max_pool_3x3":
            return Pool("max", channels, stride, style)
        case "avg_pool_3x3":
            return Pool("avg", channels, stride, style)
        case "skip_connect":
            return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, style)
        case "sep_conv_3x3":
            return _separable(channels, 3, stride, style)
        case "sep_conv_5x5":
            return _separable(channels, 5, stride, style)
        case "sep_conv_7x7":
            return _separable(channels, 7, stride, style)
        case "dil_conv_3x3":
            return nn.Sequential(*_separable_pass(channels, 3, stride, 2, style))
        case "dil_conv_5x5":
            return nn.Sequential(*_separable_pass(channels, 5, stride, 2, style))
        case "conv_7x1_1x7":
            return nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=style.bias),
                nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=style.bias),
                BatchNorm(channels, affine=style.affine),
            )
    raise ValueError(f"unknown operation {name!r}")
