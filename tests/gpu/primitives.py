"""The smallest pieces that networks are made of, one by one, beside float64 on the CPU.

A wrong kernel shows here by its name; in a whole network it is only a worse gradient. Every piece
is taken at the widths and sizes of a search's three stages, and its gradients by its input and by
its weights are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.cnn.cell import on_rows, sum_through_gates
from gdas.cnn.layout import CifarStem
from gdas.cnn.network import AuxiliaryHead
from gdas.cnn.operations import Depthwise, FactorizedReduce, Style
from gdas.cnn.pooling import AveragePool
from gdas.cnn.rearrange import alternate_pixels, concatenate, layout_of
from tests.gpu.problems import Build, Problem, Way, labels, placed, random, weighed
from tests.gpu.setup import CLASSES

Make = Callable[[int], nn.Module]
"""A piece for C channels."""


class Function(nn.Module):
    """A function without weights as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.function(x_BCHW)


class Gated(nn.Module):
    """Three terms, each times its gate of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.ones(3))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return sum_through_gates(self.gates.unbind(), [x_BCHW, x_BCHW.relu(), x_BCHW * 2])


class Head(nn.Module):
    """The mean over pixels, the scores, and the loss of each image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(channels, CLASSES)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        scores = self.classifier(nn.AdaptiveAvgPool2d(1)(x_BCHW).flatten(1))
        return F.cross_entropy(scores, labels(len(x_BCHW), x_BCHW.device, 0), reduction="none")


class Stem(nn.Module):
    """Of the first three channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = CifarStem(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        images_BCHW = x_BCHW[:, :3].contiguous(memory_format=layout_of(x_BCHW))
        out: Tensor = self.stem(images_BCHW)[0]
        return out


def _relu_depthwise(kernel: int, stride: int, dilation: int) -> Make:
    return lambda c: nn.Sequential(nn.ReLU(), Depthwise(c, kernel, stride, dilation))


def _in_groups(kernel: tuple[int, int], stride: tuple[int, int]) -> Make:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return lambda c: nn.Conv2d(c, c, kernel, stride, padding, groups=8, bias=False)


def _pooling(build: Callable[[], nn.Module]) -> Make:
    """Whatever the number of channels is: pooling has no weights."""
    return lambda c: build()


def pieces() -> dict[str, Make]:
    """All of them, by name."""
    plain = Style(affine=False)
    found: dict[str, Make] = {}
    for kernel, dilation in ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1)):
        for stride in (1, 2):
            name = f"ReLU, depthwise {kernel} x {kernel}, dilation {dilation}, stride {stride}"
            found[name] = _relu_depthwise(kernel, stride, dilation)
    found["1 x 1 convolution"] = lambda c: nn.Conv2d(c, c, 1, bias=False)
    found["1 x 1 convolution, 4C to C"] = lambda c: nn.Sequential(
        Function(lambda x: concatenate([x, x * 2, x.relu(), -x])),
        nn.Conv2d(4 * c, c, 1, bias=False),
    )
    for (high, wide), (down, across) in (((1, 3), (1, 2)), ((3, 1), (2, 1))):
        name = f"{high} x {wide} convolution, 8 groups, stride {down} x {across}"
        found[name] = _in_groups((high, wide), (down, across))
    found["7 x 1 convolution"] = lambda c: nn.Conv2d(c, c, (7, 1), (1, 1), (3, 0), bias=False)
    found["batch norm"] = lambda c: nn.BatchNorm2d(c, affine=False)
    found["batch norm, affine"] = nn.BatchNorm2d
    for stride in (1, 2):
        found[f"max pooling, stride {stride}"] = _pooling(partial(nn.MaxPool2d, 3, stride, 1))
        found[f"average pooling, stride {stride}"] = _pooling(partial(AveragePool, stride))
        found[f"PyTorch's avg_pool2d, stride {stride}"] = _pooling(
            partial(nn.AvgPool2d, 3, stride, 1, count_include_pad=False)
        )
    found["factorized reduction"] = lambda c: FactorizedReduce(c, c, plain)
    found["alternate pixels"] = lambda c: Function(lambda x: torch.cat(alternate_pixels(x)))
    found["concatenation"] = lambda c: Function(lambda x: concatenate([x, x.relu(), x * 3]))
    found["sum through gates"] = lambda c: Gated()
    found["on some images"] = lambda c: Function(
        lambda x: on_rows(nn.Identity(), x, torch.arange(0, len(x), 2), None, 0, 0)
    )
    found["stem"] = Stem
    found["mean, scores, cross entropy"] = Head
    found["auxiliary head"] = lambda c: nn.Sequential(
        nn.AdaptiveAvgPool2d(8), AuxiliaryHead(c, CLASSES, "cifar")
    )
    return found


def problem(make: Make, channels: int, side: int, batch: int) -> Build:
    """A piece's gradients by its input and its weights."""

    def build(way: Way, device: torch.device) -> Problem:
        module = placed(lambda: make(channels), way, device)
        x = random(way, device, batch, channels, side, side).requires_grad_()
        return Problem(
            lambda: weighed(module(x), way), {"input": x, **dict(module.named_parameters())}
        )

    return build


def problems(
    stages: Sequence[tuple[int, int]], batch: int
) -> Iterator[tuple[str, Mapping[str, Build]]]:
    """Every piece and its problems, by their size: channels and side."""
    for name, make in pieces().items():
        yield (
            name,
            {
                f"{channels} x {side} x {side}": problem(make, channels, side, batch)
                for channels, side in stages
            },
        )
