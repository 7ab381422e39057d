"""The fused kernels against float64: no further from it than PyTorch's own float32."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import pytest
import torch
from torch import Tensor, nn

from gdas.cnn.fused.build import library
from gdas.cnn.fused.calls import Pool
from gdas.cnn.fused.cell import run_cell
from gdas.cnn.fused.interface import Map
from gdas.cnn.fused.layers import Edge, edge_of
from gdas.cnn.fused.plan import CellPlan, Node
from gdas.cnn.norm import BatchNorm
from gdas.cnn.operations import Style, _separable_pass
from gdas.cnn.pooling import AveragePool

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels cannot be compiled here")

CL = torch.channels_last
FLOOR = 5e-7
"""The rounding of single numbers, beyond twice the error of PyTorch's own float32."""


def images(draw: torch.Generator, *shape: int, mean: float = 0.0) -> Tensor:
    return (torch.randn(shape, generator=draw) + mean).contiguous(memory_format=CL)


def error(found: Tensor, true: Tensor) -> float:
    return float((found.double() - true.double()).norm() / (true.double().norm() + 1e-30))


def assert_as_close(found: Tensor, eager: Tensor, true: Tensor, *, what: str) -> None:
    """No further from float64 than twice what PyTorch is; rounding of single numbers aside."""
    allowed = 2 * error(eager, true) + FLOOR
    assert error(found, true) <= allowed, (what, error(found, true), error(eager, true))


@dataclass
class Case:
    """A size at which an operation is tried."""

    batch: int
    channels: int
    height: int
    width: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    threads: int = 1


def some_norm(draw: torch.Generator, channels: int, *, affine: bool) -> BatchNorm:
    norm = BatchNorm(channels, affine=affine)
    if affine:
        with torch.no_grad():
            norm.weight.copy_(torch.randn(channels, generator=draw))
            norm.bias.copy_(torch.randn(channels, generator=draw))
    return norm


def running(norm: BatchNorm) -> list[Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    return [norm.running_mean, norm.running_var]


def check_pass(case: Case, *, with_norm: bool = True, affine: bool = False) -> None:
    """A pass that reads a map whose norm was left to it, backwards with drop path.

    Where a norm has four values a channel, they may be nearly equal, and dividing by their spread
    makes roundings large, now ours and now PyTorch's; then the medians of five draws are compared.
    """
    size = -(-case.height // case.stride) * -(-case.width // case.stride)
    draws = 5 if case.batch * size <= 4 else 1
    errors: dict[str, list[tuple[float, float]]] = {}
    for seed in range(draws):
        torch.manual_seed(seed)
        for what, found, eager, true in pass_results(case, with_norm=with_norm, affine=affine):
            errors.setdefault(what, []).append((error(found, true), error(eager, true)))
    for what, pairs in errors.items():
        ours, theirs = (median(pair[i] for pair in pairs) for i in (0, 1))
        assert ours <= 2 * theirs + FLOOR, (what, ours, theirs)


def pass_results(
    case: Case, *, with_norm: bool, affine: bool
) -> list[tuple[str, Tensor, Tensor, Tensor]]:
    """What comes out of a pass and its gradients: fused, by PyTorch, and in float64.

    A pooling reads the map before it, so that the pass adds to a gradient.
    """
    draw = torch.Generator().manual_seed(0)
    style = Style(affine)
    layers = nn.Sequential(
        *_separable_pass(case.channels, case.kernel, case.stride, case.dilation, style)
    )
    norms = [some_norm(draw, case.channels, affine=affine) for _ in range(2)]
    layers[3] = norms[1]
    x = images(draw, case.batch, case.channels, case.height, case.width, mean=0.3)
    keep = torch.rand(case.batch, generator=draw) + 0.5
    size = -(-case.height // case.stride), -(-case.width // case.stride)
    g = images(draw, case.batch, case.channels, *size)
    results: dict[str, list[Tensor]] = {}
    for name, dtype in (("eager", torch.float32), ("float64", torch.float64)):
        own, before = copy.deepcopy(layers).to(dtype), copy.deepcopy(norms[0]).to(dtype)
        z = (before(x.to(dtype)) if with_norm else x.to(dtype)).detach().requires_grad_()
        out = own(z) * keep.to(dtype)[:, None, None, None] + AveragePool(case.stride)(z)
        out.backward(g.to(dtype))
        assert z.grad is not None
        last = own[3]
        assert isinstance(last, BatchNorm)
        results[name] = [out.detach(), *running(last), z.grad]
        results[name] += [p.grad for p in own.parameters() if p.grad is not None]
    results["fused"] = fused_pass(x, g, keep, layers, norms if with_norm else norms[1:], case)
    names = ["out", "running mean", "running var", "of x", "of depthwise", "of pointwise"]
    names += ["of gamma", "of beta"] if affine else []
    found, eager, true = (results[name] for name in ("fused", "eager", "float64"))
    return list(zip(names, found, eager, true, strict=True))


def fused_pass(
    x: Tensor,
    g: Tensor,
    keep: Tensor,
    layers: nn.Sequential,
    norms: Sequence[BatchNorm],
    case: Case,
) -> list[Tensor]:
    torch.set_num_threads(case.threads)
    norm = norms[-1]
    norm.reset_running_stats()
    leaf, before = x.clone().requires_grad_(), None
    if len(norms) == 2:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        istd = (var + norms[0].eps).rsqrt()
        affine = norms[0].affine
        scale = istd * norms[0].weight.detach() if affine else istd
        before = torch.stack([mean, istd, scale, norms[0].bias if affine else mean * 0])
        before = before.detach().requires_grad_()
    edge = edge_of(layers, 0)
    assert edge is not None
    node = Node((Edge(0, (Pool(True, None, case.stride),)), edge), sites=(None, 0))
    states = Map(leaf, before), Map(torch.zeros_like(x))
    plan = CellPlan((node,), case.stride, (0,))
    (out,) = run_cell(plan, *states, gate_EK=None, keep_DB=keep[None])
    out.values_BCHW.backward(g)
    torch.set_num_threads(1)
    assert leaf.grad is not None
    if before is not None:
        assert before.grad is not None
        away = x - before.detach()[0][:, None, None]
        for i, factor in enumerate((torch.ones_like(x), away)):
            products = leaf.grad.double() * factor.double()
            true, scale = products.sum((0, 2, 3)), products.abs().sum((0, 2, 3))
            assert ((before.grad[i] - true).abs() <= 1e-5 * scale + 1e-9).all()
    of_weights = [p.grad for p in layers.parameters() if p.grad is not None]
    return [out.values_BCHW.detach(), *running(norm), leaf.grad, *of_weights]


PASSES = [
    Case(2, 16, 8, 8),
    Case(3, 16, 9, 7, kernel=5),
    Case(2, 32, 8, 8, stride=2),
    Case(2, 36, 7, 5, kernel=5, stride=2),
    Case(1, 4, 6, 6, dilation=2),
    Case(40, 8, 3, 11, kernel=5, dilation=2, threads=2),
    Case(2, 52, 9, 10, stride=2, dilation=2),
    Case(2, 50, 5, 5, kernel=5, stride=2, dilation=2),
    Case(6, 64, 1, 1),
    Case(2, 100, 1, 3, kernel=5, stride=2),
]


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("case", PASSES, ids=str)
def test_a_separable_pass(case: Case, affine: bool) -> None:
    check_pass(case, affine=affine, with_norm=case.channels != 32)
