"""One operation's backward pass, several times over: the same bits every time?"""

from __future__ import annotations

import dataclasses
import statistics
import time
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.cnn.cell import FixedReductionCell, on_rows, sum_through_gates
from gdas.cnn.genotype import DERIVED_OPERATIONS
from gdas.cnn.network import AuxiliaryHead
from gdas.cnn.operations import Style, build_operation
from gdas.cnn.rearrange import alternate_pixels
from gdas.data.augment import augment, draw_moves
from gdas.data.settings import IMAGE_DATA
from gdas.randomness import generator
from tests.bench.search_step import random_images
from tests.gpu.clock import wait
from tests.gpu.findings import Figures, Findings
from tests.gpu.sizes import Sizes

TIMES = 6
"""Backward passes that are compared with the first."""


Backward = Callable[[], list[Tensor]]
"""One forward and backward pass; its output's and its leaves' gradients."""


def backward(function: Callable[..., Tensor], *leaves: Tensor) -> Backward:
    """Of a function of leaves, with random but always equal gradients at its output."""

    def once() -> list[Tensor]:
        out = function(*leaves)
        towards = torch.rand(out.shape, generator=generator(0, "towards")) - 0.5
        found = torch.autograd.grad(
            out, [leaf for leaf in leaves if leaf.requires_grad], towards.to(out.device, out.dtype)
        )
        return [out.detach(), *found]

    return once


def of_module(module: nn.Module, device: torch.device, *inputs: Tensor) -> Backward:
    module = module.to(device).train()
    parameters = [p for p in module.parameters() if p.requires_grad]
    return backward(lambda *leaves: module(*leaves[: len(inputs)]), *inputs, *parameters)


def _input(device: torch.device, *shape: int, last: bool = True) -> Tensor:
    x = torch.randn(shape, generator=generator(0, "input")).to(device)
    if last and len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return x.requires_grad_()


def operations(sizes: Sizes, device: torch.device) -> Iterator[tuple[str, Backward]]:
    """Every operation of the networks at the size of a search's first cells."""
    batch, width = sizes.batches[-1], sizes.channels
    style = Style(affine=False)
    torch.manual_seed(0)
    for last in (True, False):
        for name in DERIVED_OPERATIONS:
            for stride in (1, 2):
                if name == "none" or (name, stride) == ("skip_connect", 1):
                    continue
                x = _input(device, batch, width, 32, 32, last=last)
                module = build_operation(name, width, stride, style)
                layout = "channels last" if last else "channels first"
                yield f"{name}, stride {stride}, {layout}", of_module(module, device, x)
    yield from _others(sizes, device)


def _others(sizes: Sizes, device: torch.device) -> Iterator[tuple[str, Backward]]:
    """What is neither an operation of a cell nor tiny."""
    batch, width = sizes.batches[-1], max(8, sizes.channels)
    x = _input(device, batch, width, 32, 32)
    wide = _input(device, batch, 4 * width, 32, 32)
    cell = FixedReductionCell(4 * width, 4 * width, width, Style(affine=True), last_reduced=False)
    yield "fixed reduction cell", of_module(_Called(lambda a: cell(a, a, None), cell), device, wide)
    yield (
        "auxiliary head",
        of_module(
            AuxiliaryHead(4 * width, 10, "cifar"), device, _input(device, batch, 4 * width, 8, 8)
        ),
    )
    yield "mean over pixels", backward(lambda a: nn.AdaptiveAvgPool2d(1)(a), x)
    yield "alternate pixels", backward(lambda a: torch.cat(alternate_pixels(a)), x)
    gates = torch.ones(2, device=device, requires_grad=True)
    yield (
        "sum through gates",
        backward(lambda g, a: sum_through_gates(g.unbind(), [a, a * 2]), gates, x),
    )
    rows = torch.arange(0, batch, 2)
    yield (
        "operation on some images (index_add)",
        backward(lambda a: on_rows(nn.Identity(), a, rows, None, 0, 0), x),
    )
    table = torch.rand(6, 8, device=device, requires_grad=True)
    index = torch.arange(5, device=device)
    yield "gates by their places", backward(lambda t: t.flatten()[index], table)
    labels = torch.randint(10, (batch,), generator=generator(0, "labels")).to(device)
    scores = _input(device, batch, 10)
    yield "cross entropy", backward(lambda a: F.cross_entropy(a, labels)[None], scores)
    hidden, vocabulary, columns, bptt = sizes.language
    words = _input(device, vocabulary, hidden)
    tokens = torch.randint(vocabulary, (bptt, columns), generator=generator(0, "text")).to(device)
    yield "embedding", backward(lambda w: F.embedding(tokens, w), words)
    outputs = _input(device, bptt * columns, hidden)
    yield (
        "scores of words",
        backward(
            lambda o, w: F.cross_entropy(F.linear(o, w), tokens.flatten())[None], outputs, words
        ),
    )
    data = dataclasses.replace(IMAGE_DATA["cifar10"], cutout=16)
    pixels = random_images(batch).images_NCHW.to(device)
    moves = draw_moves(data, batch, 32, generator(0, "moves"))
    scale = torch.ones(1, device=device, requires_grad=True)
    yield "augmentation", backward(lambda s: augment(pixels, data, moves) * s, scale)


class _Called(nn.Module):
    """A module that is called in another way."""

    def __init__(self, call: Callable[[Tensor], Tensor], module: nn.Module) -> None:
        super().__init__()
        self.call, self.module = call, module

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


def repeated(once: Backward, device: torch.device, *, bfloat16: bool) -> Figures:
    """Whether a backward pass gives equal bits every time, and what a deterministic one costs."""

    def take(deterministic: bool) -> tuple[list[list[Tensor]], float]:
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        results, times = [], []
        try:
            for _ in range(TIMES + 1):
                wait(device)
                began = time.perf_counter()
                with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                    results.append(once())
                wait(device)
                times.append(time.perf_counter() - began)
        finally:
            torch.use_deterministic_algorithms(False)
        return results, 1e3 * statistics.median(times[1:])

    def equal(results: list[list[Tensor]]) -> bool:
        return all(
            torch.equal(a, b)
            for other in results[1:]
            for a, b in zip(results[0], other, strict=True)
        )

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        usual, usual_ms = take(False)
        sure, sure_ms = take(True)
    return {
        "equal": equal(usual),
        "equal, deterministic": equal(sure),
        "ms": usual_ms,
        "deterministic_ms": sure_ms,
        "warns": any("determinis" in str(w.message) for w in caught),
    }


def all_operations(of: Findings, sizes: Sizes, device: torch.device, *, bfloat16: bool) -> Figures:
    """All operations in one check; those that are left when the time is over are not in it."""
    figures: Figures = {}
    for name, once in operations(sizes, device):
        if of.left() <= 0:
            break
        try:
            figures[name] = repeated(once, device, bfloat16=bfloat16)
        except Exception as error:
            figures[name] = {"error": f"{type(error).__name__}: {error}"[:300]}
    return {"n": TIMES + 1, "operations": figures}
