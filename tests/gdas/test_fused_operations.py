"""Every operation of a cell with fused kernels against float64, in any size."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gdas.cnn.cell import _reducing_convolution
from gdas.cnn.fused.build import library
from gdas.cnn.fused.cell import read_parts, run_cell
from gdas.cnn.fused.interface import Map
from gdas.cnn.fused.layers import Edge, edge_of, reader_of, reducing_edge
from gdas.cnn.fused.plan import CellPlan, Node
from gdas.cnn.norm import BatchNorm
from gdas.cnn.operations import FactorizedReduce, Style, build_operation, conv_norm
from tests.gdas.test_fused_kernels import assert_as_close, images

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels cannot be compiled here")

NAMES = (
    *("max_pool_3x3", "avg_pool_3x3", "skip_connect"),
    *("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5", "reducing"),
)
FEWEST_VALUES = 12
"""With fewer values in a channel, a batch norm's gradient is mostly rounding."""


def layer_of(name: str, channels: int, stride: int, style: Style) -> nn.Module:
    if name == "reducing":
        return _reducing_convolution(channels, style)
    return build_operation(name, channels, stride, style)


def edge(layer: nn.Module, name: str) -> Edge:
    own = reducing_edge(layer, 0) if name == "reducing" else edge_of(layer, 0)
    assert own is not None
    return own


def randomise(layer: nn.Module, draw: torch.Generator) -> None:
    with torch.no_grad():
        for module in layer.modules():
            if isinstance(module, BatchNorm) and module.affine:
                module.weight.copy_(torch.randn(module.weight.shape, generator=draw))
                module.bias.copy_(torch.randn(module.bias.shape, generator=draw))


Values = list[tuple[str, Tensor]]


def results(out: Sequence[Tensor], inputs: Sequence[Tensor], layers: nn.Module) -> Values:
    """Outputs, gradients and running statistics, named."""
    found = [(f"output {i}", x.detach()) for i, x in enumerate(out)]
    for i, x in enumerate(inputs):
        assert x.grad is not None
        found.append((f"of input {i}", x.grad))
    for name, p in layers.named_parameters():
        assert p.grad is not None, name
        found.append((f"of {name}", p.grad))
    return found + [(n, b) for n, b in layers.named_buffers() if "running" in n]


def compare(
    layers: nn.Module,
    inputs: Sequence[Tensor],
    plain: Callable[[Any, Sequence[Tensor]], Sequence[Tensor]],
    fused: Callable[[Any, Sequence[Tensor]], Sequence[Tensor]],
) -> None:
    """Compare outputs and gradients of two ways to run layers with those in float64."""
    found: list[Values] = []
    gradients: list[Tensor] = []
    for run, dtype in ((fused, torch.float32), (plain, torch.float32), (plain, torch.float64)):
        own = copy.deepcopy(layers).to(dtype)
        leaves = [x.to(dtype).detach().requires_grad_() for x in inputs]
        out = run(own, leaves)
        draw = torch.Generator().manual_seed(1)
        gradients = gradients or [images(draw, *x.shape) for x in out]
        torch.autograd.backward(list(out), [g.to(dtype) for g in gradients])
        found.append(results(out, leaves, own))
    for (what, a), (_, b), (_, c) in zip(*found, strict=True):
        if float(c.norm()) > 1e-4 * c.numel() ** 0.5:  # else rounding is all that there is
            assert_as_close(a, b, c, what=what)


def check_operation(
    name: str, channels: int, stride: int, shape: tuple[int, int, int], *, affine: bool
) -> None:
    """An operation that reads a preprocessed state, with drop path."""
    batch, height, width = shape
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)  # a layer's own weights
    layers = nn.ModuleList(
        [conv_norm(5, channels, Style(False)), layer_of(name, channels, stride, Style(affine))]
    )
    randomise(layers, draw)
    keep = torch.rand(1, batch, generator=draw) + 0.5
    halves = stride == 2 or name == "reducing"

    def plain(own: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
        factor = keep[0].to(inputs[0].dtype)[:, None, None, None]
        state = own[0](torch.relu(inputs[0]))
        out = own[1](state)
        # The state itself too, since its gradient is gathered from all that read it.
        return [out * factor + (0 if halves else state)]

    def fused(own: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
        reader = reader_of(own[0])
        assert reader is not None
        (s0,) = read_parts([Map(inputs[0])], [reader])
        s1 = Map(torch.zeros_like(s0.values_BCHW))  # nobody reads it
        edges = (edge(own[1], name),) if halves else (edge(own[1], name), Edge(0))
        node = Node(edges, sites=(0, None)[: len(edges)])
        plan = CellPlan((node,), 2 if halves else 1, (0,))
        out = run_cell(plan, s0, s1, gate_EK=None, keep_DB=keep)
        return [x.values_BCHW for x in out]

    compare(layers, [images(draw, batch, 5, height, width)], plain, fused)


def check_readers(
    channels: int, parts: int, out: int, shape: tuple[int, int, int], *, affine: bool
) -> None:
    """Two readers of the same parts, of which one halves the size."""
    batch, height, width = shape
    draw = torch.Generator().manual_seed(0)
    style = Style(affine)
    torch.manual_seed(0)
    layers = nn.ModuleList(
        [
            conv_norm(parts * channels, out, style),
            FactorizedReduce(parts * channels, out, style, activate=False),
        ]
    )
    randomise(layers, draw)

    def plain(own: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
        x = torch.relu(torch.cat(list(inputs), dim=1))
        return [own[0](x), own[1](x)]

    def fused(own: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
        readers = [reader_of(layer) for layer in own]
        made = read_parts([Map(x) for x in inputs], [r for r in readers if r is not None])
        return [meant(y) for y in made]

    inputs = [images(draw, batch, channels, height, width) for _ in range(parts)]
    compare(layers, inputs, plain, fused)


def meant(y: Map) -> Tensor:
    """What a map means, through a cell that only passes it on."""
    plan = CellPlan((Node((Edge(0),)),), 1, (0,))
    return run_cell(plan, y, Map(y.values_BCHW.detach()), gate_EK=None, keep_DB=None)[0].values_BCHW


def enough(shape: tuple[int, int, int], stride: int) -> bool:
    batch, height, width = shape
    return batch * -(-height // stride) * -(-width // stride) >= FEWEST_VALUES


def shapes(largest: int, images_of: int) -> Any:
    side = st.integers(1, largest)
    return st.tuples(st.integers(1, images_of), side, side).filter(lambda s: enough(s, 2))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(NAMES),
    half=st.integers(2, 20),
    stride=st.sampled_from([1, 2]),
    shape=shapes(10, 20),
    affine=st.booleans(),
)
def test_an_operation(
    name: str, half: int, stride: int, shape: tuple[int, int, int], affine: bool
) -> None:
    channels = 8 * (half % 4 + 1) if name == "reducing" else 2 * half
    check_operation(name, channels, stride, shape, affine=affine)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    channels=st.integers(3, 36),
    parts=st.integers(1, 4),
    half=st.integers(1, 26),
    shape=shapes(9, 18),
    affine=st.booleans(),
)
def test_readers(
    channels: int, parts: int, half: int, shape: tuple[int, int, int], affine: bool
) -> None:
    check_readers(channels, parts, 2 * half, shape, affine=affine)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(NAMES),
    half=st.integers(2, 104),
    stride=st.sampled_from([1, 2]),
    shape=shapes(40, 4) | shapes(8, 128),
    affine=st.booleans(),
)
def test_an_operation_in_any_size(
    name: str, half: int, stride: int, shape: tuple[int, int, int], affine: bool
) -> None:
    channels = 8 * (half % 26 + 1) if name == "reducing" else 2 * half
    check_operation(name, channels, stride, shape, affine=affine)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    channels=st.integers(3, 208),
    parts=st.integers(1, 5),
    half=st.integers(1, 104),
    shape=shapes(40, 3) | shapes(8, 64),
    affine=st.booleans(),
)
def test_readers_in_any_size(
    channels: int, parts: int, half: int, shape: tuple[int, int, int], affine: bool
) -> None:
    check_readers(channels, parts, 2 * half, shape, affine=affine)


@pytest.mark.parametrize("channels", [8, 16, 48])
def test_an_unlucky_first_pixel_costs_no_accuracy(channels: int) -> None:
    """A first pixel far from the mean, of which statistics were the differences."""
    check_readers(channels, 1, 16, (1, 9, 12), affine=channels == 48)
    check_operation("max_pool_3x3", channels, 2, (2, 31, 21), affine=False)
    check_operation("avg_pool_3x3", channels, 2, (1, 32, 32), affine=False)


def test_a_large_mean_costs_no_accuracy() -> None:
    """Sums of squares would lose all digits of a variance a million times smaller than the mean's
    square."""
    draw = torch.Generator().manual_seed(0)
    x = images(draw, 8, 6, 9, 9, mean=1000.0)

    def plain(own: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
        return [own[0](inputs[0])]

    def fused(own: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
        reader = reader_of(own[0])
        assert reader is not None
        return [meant(read_parts([Map(inputs[0])], [reader])[0])]

    compare(nn.ModuleList([conv_norm(6, 10, Style(False))]), [x], plain, fused)
