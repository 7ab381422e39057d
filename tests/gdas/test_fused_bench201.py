"""Dense convolutions and NAS-Bench-201's cells with fused kernels, against float64."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gdas.bench201.network
from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.genotype import CELL_OPERATIONS, EDGES
from gdas.bench201.network import CELL_TYPE, Cell, Network, ResidualBlock
from gdas.bench201.space import Bench201Space
from gdas.checkpoint import digest
from gdas.cnn.fused import calls
from gdas.cnn.fused.build import library
from gdas.cnn.fused.calls import Gradient
from gdas.cnn.fused.choice import use
from gdas.cnn.fused.convolution import Convolution, convolution_backward, convolution_forward
from gdas.cnn.fused.interface import Map, Term
from gdas.cnn.fused.layers import shortcut_edge
from gdas.data.arrow import Images
from gdas.data.settings import IMAGE_DATA
from gdas.sampler import Pick
from gdas.search import search
from tests.gdas.test_fused_kernels import assert_as_close, images, some_norm

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels cannot be compiled here")

CL = torch.channels_last


class Size(NamedTuple):
    batch: int
    c_in: int
    c_out: int
    height: int
    width: int
    kernel: int = 3
    stride: int = 1
    affine: bool = False
    normed: bool = False  # whether the input's norm is left to the kernel
    keep: bool = False


SIZES = [
    Size(3, 16, 16, 9, 7, normed=True),
    Size(1, 4, 4, 1, 40),
    Size(2, 5, 19, 13, 8, affine=True, normed=True),
    Size(40, 16, 33, 4, 4, keep=True),
    Size(2, 64, 64, 6, 5),
    Size(2, 8, 70, 1, 40, normed=True),
    Size(17, 33, 9, 3, 2, affine=True, keep=True),
    Size(1, 16, 16, 33, 32),
    Size(2, 17, 70, 8, 8, kernel=1, normed=True),
    Size(3, 208, 9, 3, 3, kernel=1, affine=True),
    Size(2, 16, 32, 9, 12, stride=2, normed=True, affine=True),
    Size(5, 7, 8, 1, 1, stride=2),
    Size(2, 3, 6, 10, 15, stride=2, kernel=1, keep=True),
]


def reference(
    size: Size, x: Map, layers: Convolution, g: Tensor, keep: Tensor | None, dtype: torch.dtype
) -> dict[str, Tensor]:
    """What PyTorch computes."""
    assert layers.norm is not None
    own = copy.deepcopy(layers.norm).to(dtype)
    weight = layers.weight.detach().to(dtype).requires_grad_()
    meant = x.values_BCHW.to(dtype)
    if x.norm_4C is not None:
        mean, _, scale, shift = (row.to(dtype)[:, None, None] for row in x.norm_4C)
        meant = (meant - mean) * scale + shift
    meant = meant.detach().requires_grad_()
    y = own(F.conv2d(F.relu(meant), weight, None, size.stride, size.kernel // 2))
    term = y if keep is None else y * keep.to(dtype)[:, None, None, None]
    (term * g.to(dtype)).sum().backward()
    assert meant.grad is not None and weight.grad is not None
    found = {"y": term.detach(), "x": meant.grad, "weight": weight.grad}
    assert own.running_mean is not None and own.running_var is not None
    found |= {"mean": own.running_mean, "var": own.running_var}
    if size.affine:
        found |= {"gamma": own.weight.grad, "beta": own.bias.grad}
    return found


def fused(
    x: Map, layers: Convolution, g: Tensor, keep: Tensor | None, base: Tensor | None
) -> dict[str, Tensor]:
    y = convolution_forward(x, layers)
    term = Term(y, keep)
    sums, _ = calls.gradient_sums(g, [term])
    of_y = Gradient(g, sums[0], keep)
    of_x, of_weight = convolution_backward(of_y, y, x, layers, weights=True, base_BCHW=base)
    alone, none = convolution_backward(of_y, y, x, layers, weights=False, base_BCHW=base)
    assert none is None and of_weight is not None
    assert of_x is not None and alone is not None
    assert torch.equal(alone.values_BCHW, of_x.values_BCHW)
    norm = layers.norm
    assert norm is not None and y.norm_4C is not None
    found = {"y": calls.sum_of_terms([term]), "x": of_x.values_BCHW, "weight": of_weight}
    assert norm.running_mean is not None and norm.running_var is not None
    found |= {"mean": norm.running_mean, "var": norm.running_var}
    if norm.affine:
        found |= {"gamma": (sums[0, 1] * y.norm_4C[1]).float(), "beta": sums[0, 0].float()}
    if x.norm_4C is not None:
        assert of_x.sums_2C is not None
        away = x.values_BCHW - x.norm_4C[0][:, None, None]
        for sum_C, values in zip(of_x.sums_2C, (torch.ones(()), away), strict=True):
            exact = (of_x.values_BCHW * values).double().sum((0, 2, 3))
            assert sum_C == pytest.approx(exact, rel=1e-4, abs=1e-3)
    return found


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "-".join(str(int(n)) for n in size))
@pytest.mark.parametrize("layout", [torch.contiguous_format, CL], ids=["plain", "channels-last"])
def test_a_dense_pass_is_as_exact_as_pytorchs(size: Size, layout: torch.memory_format) -> None:
    draw = torch.Generator().manual_seed(sum(size))
    x_BCHW = images(draw, size.batch, size.c_in, size.height, size.width, mean=0.5)
    norm_4C = None
    if size.normed:
        norm_4C = torch.rand(4, size.c_in, generator=draw) + 0.5
        mean, _, scale, shift = (row[:, None, None] for row in norm_4C)
        near = ((x_BCHW - mean) * scale + shift).abs() < 1e-3
        x_BCHW[near] += 0.1  # a ReLU's side must not depend on rounding
    weight = torch.randn(size.c_out, size.c_in, size.kernel, size.kernel, generator=draw)
    weight = (weight / (size.c_in * size.kernel**2) ** 0.5).contiguous(memory_format=layout)
    norm = some_norm(draw, size.c_out, affine=size.affine)
    layers = Convolution(weight, norm, size.stride)
    out = [-(-n // size.stride) for n in (size.height, size.width)]
    g = images(draw, size.batch, size.c_out, *out)
    keep = torch.rand(size.batch, generator=draw) + 0.5 if size.keep else None
    base = images(draw, *x_BCHW.shape)
    x = Map(x_BCHW, norm_4C)
    if size.batch * out[0] * out[1] == 1:
        pytest.skip("batch norm of one value")
    true = reference(size, x, layers, g, keep, torch.float64)
    eager = reference(size, x, layers, g, keep, torch.float32)
    again = layers._replace(norm=copy.deepcopy(norm))
    found = fused(x, layers, g, keep, base)
    torch.set_num_threads(2)
    try:
        other = fused(x, again, g, keep, base)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(other[what], found[what]) for what in found), "bits depend on threads"
    found["x"] = found["x"] - base
    for what, own in found.items():
        assert_as_close(own, eager[what], true[what], what=what)


def drawn(seed: int) -> list[Pick]:
    draw = torch.Generator().manual_seed(seed)
    operations = torch.randint(len(CELL_OPERATIONS), (len(EDGES),), generator=draw)
    return list(enumerate(operations.tolist()))


def one_step(network: Network, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Scores, all gradients and the statistics, of one drawn architecture."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 3, 12, 10, generator=draw).to(dtype).contiguous(memory_format=CL)
    picks = [drawn(seed + i) if t == CELL_TYPE else [] for i, t in enumerate(network.cell_types)]
    gate = torch.ones(len(EDGES), len(CELL_OPERATIONS), dtype=dtype, requires_grad=True)
    scores = network.train()(x, picks, [gate] * len(picks))
    F.cross_entropy(scores, torch.arange(6)).backward()
    found = {"scores": scores.detach()}
    if gate.grad is not None:
        found["gate"] = gate.grad
    found |= {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return found | {name: b for name, b in network.named_buffers() if "running" in name}


@pytest.mark.parametrize("seed", range(5))
def test_a_network_is_as_exact_as_pytorchs_and_no_gradient_is_missing(seed: int) -> None:
    torch.manual_seed(seed)
    plain = Network(10, channels=5, normals_per_block=1).to(memory_format=CL)
    own, exact = copy.deepcopy(plain), copy.deepcopy(plain).double()
    use(own, "fused")
    assert own.cells[0].fused and not plain.cells[0].fused
    true = one_step(exact, seed, torch.float64)
    eager, found = (one_step(network, seed, torch.float32) for network in (plain, own))
    assert set(found) == set(eager)
    for name in found:
        if true[name].norm() > 1e-9:
            assert_as_close(found[name], eager[name], true[name], what=name)


@pytest.mark.parametrize("seed", range(3))
def test_gates_of_all_operations_are_as_exact_as_pytorchs(seed: int) -> None:
    torch.manual_seed(seed)
    plain = Network(10, channels=5, normals_per_block=1).to(memory_format=CL)
    for p in plain.parameters():
        p.requires_grad_(False)
    own, exact = copy.deepcopy(plain), copy.deepcopy(plain).double()
    use(own, "fused")
    found = {}
    for name, network in {"own": own, "plain": plain, "exact": exact}.items():
        dtype = torch.float64 if name == "exact" else torch.float32
        draw = torch.Generator().manual_seed(seed)
        x = torch.randn(6, 3, 12, 10, generator=draw).to(dtype).contiguous(memory_format=CL)
        gate = torch.zeros(len(EDGES), len(CELL_OPERATIONS), dtype=dtype)
        gate[range(len(EDGES)), [k for _, k in drawn(seed)]] = 1.0
        gate.requires_grad_()
        every = [(e, k) for e in range(len(EDGES)) for k in range(len(CELL_OPERATIONS))]
        picks = [every if kind == CELL_TYPE else [] for kind in network.cell_types]
        F.cross_entropy(network.train()(x, picks, [gate] * len(picks)), torch.arange(6)).backward()
        assert gate.grad is not None
        found[name] = gate.grad
    assert torch.equal(found["own"] != 0, found["plain"] != 0) and (found["own"] != 0).sum() > 15
    assert_as_close(found["own"], found["plain"], found["exact"], what="gates")


@pytest.mark.parametrize("size", [(12, 10), (9, 7), (1, 6), (5, 2)], ids=str)
def test_a_residual_block_is_as_exact_as_pytorchs(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    plain = ResidualBlock(20, 36).to(memory_format=CL).train()
    own, exact = copy.deepcopy(plain), copy.deepcopy(plain).double()
    own.fused = True
    x = torch.randn(7, 20, *size).contiguous(memory_format=CL)
    g = torch.randn(7, 36, *(-(-n // 2) for n in size))

    def run(block: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
        leaf = x.to(dtype).requires_grad_()
        out = block(leaf)
        out.backward(g.to(dtype))
        assert leaf.grad is not None
        found = {"out": out.detach(), "x": leaf.grad}
        return found | {name: p.grad for name, p in block.named_parameters() if p.grad is not None}

    true, eager = run(exact, torch.float64), run(plain, torch.float32)
    monkeypatch.setattr(nn.AvgPool2d, "forward", lambda *_: pytest.fail("left to PyTorch"))
    found = run(own, torch.float32)
    assert list(found) == list(eager) and len(found) == 9
    for name in found:
        assert_as_close(found[name], eager[name], true[name], what=name)


def test_a_residual_block_with_another_shortcut_leaves_it_to_pytorch() -> None:
    block = ResidualBlock(4, 8).train()
    assert shortcut_edge(block.shortcut, 0) is not None
    others = (
        nn.AvgPool2d(2, 2),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False, divisor_override=3),
        nn.MaxPool2d(2, 2, ceil_mode=True),
    )
    for other in others:
        assert shortcut_edge(nn.Sequential(other, block.shortcut[1]), 0) is None
    biased = nn.Sequential(block.shortcut[0], nn.Conv2d(4, 8, 1))
    assert shortcut_edge(biased, 0) is None


def test_what_the_kernels_cover() -> None:
    cell = Cell(4, [(e, k) for e in range(6) for k in range(5)], affine=False)
    picks = list(enumerate([4, 1, 2, 4, 0, 3]))
    assert cell._plan(picks, None) is not None and cell._plan([], None) is not None
    assert cell._plan([*picks, (0, 1)], None) is None, "two operations on an edge have factors"
    gate_EK = torch.zeros(len(EDGES), len(CELL_OPERATIONS))
    gate_EK[range(len(EDGES)), [k for _, k in picks]] = 1.0
    every = [(e, k) for e in range(len(EDGES)) for k in range(len(CELL_OPERATIONS))]
    assert cell._plan(every, gate_EK) is None, "in a W step the undrawn weights get a gradient of 0"
    assert cell._plan(every, gate_EK.requires_grad_()) is None, "the weights want a gradient"
    for p in cell.parameters():
        p.requires_grad_(False)
    plan = cell._plan(every, gate_EK)
    assert plan is not None and [len(node.undrawn) for node in plan.nodes] == [3, 6, 10]
    half = gate_EK.detach() * 0.5
    assert cell._plan(every, half.requires_grad_()) is None, "the terms have factors"
    assert cell.eval()._plan([(0, 3)], None) is None, "batch norm does not collect statistics now"


def test_everything_else_runs_in_plain_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """By image, in float64, under autocast, in evaluation."""
    monkeypatch.setattr(gdas.bench201.network, "run_cell", lambda *a, **k: pytest.fail("fused"))
    cell = Cell(4, [(e, k) for e in range(6) for k in range(5)], affine=False)
    block = ResidualBlock(4, 8)
    for own in (cell, block):
        use(own, "fused")
    x = torch.randn(3, 4, 6, 6)
    gate = torch.ones(3, len(EDGES), len(CELL_OPERATIONS))
    cell(x, [(0, 3), (0, 2)], gate, torch.full((3, len(EDGES)), 3))
    copy.deepcopy(cell).double()(x.double(), [(0, 3)])
    with torch.autocast("cpu", torch.bfloat16):
        cell(x, [(0, 3)])
        block(x)
    cell.eval()(x, [(0, 3)])
    block.eval()(x)


def test_a_search_with_fused_kernels_resumes_exactly(small_digits: Images) -> None:
    config = Bench201SearchConfig(
        data=IMAGE_DATA["digits"],
        epochs=2,
        batch_size=16,
        train_images=32,
        valid_images=32,
        channels=4,
        normals_per_block=1,
    )

    def run(state: Any = None, **changes: Any) -> list[Any]:
        own = dataclasses.replace(config, **changes)
        space = Bench201Space(own, small_digits, torch.device("cpu"))
        assert space.supernet.cells[0].fused == (own.kernels == "fused")
        return [
            (copy.deepcopy(s.state), dict(s.metrics)) for s in search(own, space, checkpoint=state)
        ]

    whole = run()
    assert digest(run(whole[0][0])[-1][0]) == digest(whole[-1][0])
    state, metrics = run(kernels="plain")[-1]
    assert metrics["train/loss"] == pytest.approx(whole[-1][1]["train/loss"], rel=1e-3)
    assert digest(state["weights"]) != digest(whole[-1][0]["weights"]), "rounded in the same way"
