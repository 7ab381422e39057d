"""A search cell as kernels beside today's cell: outputs, statistics and every gradient.

Without a GPU the kernels run in Triton's interpreter.
"""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from gdas.cnn.cell import SearchCell
from gdas.cnn.genotype import OPERATIONS
from gdas.cnn.supernet import Supernet

pytest.importorskip("triton")

from gdas.cnn.graph import tiles
from gdas.cnn.graph.cell import TILE, apply_cell, graph_cell
from gdas.cnn.graph.flat import flatten_weights
from gdas.cnn.graph.search import KERNELS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Results = dict[str, Tensor]


class Through(nn.Module):
    """In place of preprocessing: a cell by itself."""

    def forward(self, s0: Tensor, s1: Tensor) -> list[Tensor]:
        return [s0, s1]


def plain(cell: SearchCell, inputs: list[Tensor], drawn: list[int], weight: Tensor) -> Results:
    """Today's cell in the inputs' precision."""
    cell.preprocess = Through()  # type: ignore[assignment]
    s = [x.clone().requires_grad_() for x in inputs]
    gate = nn.functional.one_hot(torch.tensor(drawn), len(OPERATIONS)).to(DEVICE, s[0].dtype)
    gate.requires_grad_()
    out = cell(s[0], s[1], list(enumerate(drawn)), gate)
    # The zeros are there for what a draw leaves without a gradient.
    ((out * weight).sum() + 0 * (s[0].sum() + s[1].sum() + gate.sum())).backward()
    assert gate.grad is not None
    gates = torch.stack([gate.grad[e, k] for e, k in enumerate(drawn)])
    found = {"out": out.detach(), "s0": s[0].grad, "s1": s[1].grad, "gates": gates}
    parameters = dict(cell.edges.named_parameters())
    found |= {f"gradient of {n}": p.grad for n, p in parameters.items() if p.grad is not None}
    state = cell.edges.state_dict()  # in which batches are counted
    found |= {name: state[name] for name, _ in cell.edges.named_buffers()}
    return found


RUNS = 2 if torch.cuda.is_available() else 1
"""The interpreter runs one program after the other: what it repeats has the same bits."""


def both(
    channels: int,
    nodes: int,
    size: tuple[int, int],
    drawn: list[int],
    *,
    reduction: bool,
    tile: int,
    before: list[int] | None = None,
) -> tuple[list[Results], Results, Results]:
    """Kernels, once or twice, today's cell in float32, and in float64.

    What was drawn `before` runs first in the same memory, and leaves its results in it.
    """
    torch.manual_seed(0)
    net = Supernet(10, channels=channels, normals_per_block=1, nodes=nodes).to(DEVICE)
    net.to(memory_format=torch.channels_last)
    place = 1 if reduction else 0
    cell = net.cells[place]
    assert isinstance(cell, SearchCell)
    exact, usual = deepcopy(cell).double(), deepcopy(cell)
    c = channels * (place + 1)
    inputs = [torch.randn(2, c, *size, device=DEVICE) for _ in range(2)]
    halved = [-(-n // 2) if reduction else n for n in size]
    weight = torch.randn(2, nodes * c, *halved, device=DEVICE)
    flat = flatten_weights(net)
    graph = graph_cell(cell, place, flat, tile=tile)
    buffers = {name: b.clone() for name, b in cell.edges.named_buffers()}
    found_by_kernels = []
    for draw in [*([before] if before else []), *[drawn] * RUNS]:
        operations = torch.tensor(draw, dtype=torch.int32, device=DEVICE)
        for name, b in cell.edges.named_buffers():
            b.copy_(buffers[name])
        flat.gradients.zero_()
        s = [x.clone().requires_grad_() for x in inputs]
        gates = torch.ones_like(graph.gate_gradients).requires_grad_()
        out = apply_cell(graph, s[0], s[1], gates, operations, weights=True)
        of_s0, of_s1, of_gates = torch.autograd.grad((out * weight).sum(), [*s, gates])
        found = {"out": out.detach(), "s0": of_s0, "s1": of_s1, "gates": of_gates[: len(drawn)]}
        gradients = dict(zip(map(id, net.parameters()), flat.gradient_of, strict=True))
        for name, p in cell.edges.named_parameters():
            found[f"gradient of {name}"] = gradients[id(p)]
        found |= dict(cell.edges.named_buffers())
        found_by_kernels.append({name: t.clone() for name, t in found.items()})
    float32 = plain(usual, inputs, drawn, weight)
    float64 = plain(exact, [x.double() for x in inputs], drawn, weight.double())
    return found_by_kernels[-RUNS:], float32, float64


def check(
    channels: int,
    nodes: int,
    size: tuple[int, int],
    drawn: list[int],
    *,
    reduction: bool,
    tile: int,
    before: list[int] | None = None,
) -> None:
    found, float32, float64 = both(
        channels, nodes, size, drawn, reduction=reduction, tile=tile, before=before
    )
    one, *others = found
    for name, t in one.items():
        assert all(torch.equal(t, run[name]) for run in others), f"{name} differs from run to run"
        if name not in float64:
            assert not t.any(), f"{name} was not drawn"
        elif t.numel():
            exact = float64[name].double()
            norm = exact.norm().clamp_min(1e-9)
            ours, eager = (((d[name].double() - exact).norm() / norm) for d in (one, float32))
            assert ours <= 3 * eager + 1e-6, f"{name}: off by {ours:.1e}, eager by {eager:.1e}"


PAIRS = [["max_pool_3x3", "avg_pool_3x3"], ["skip_connect", "sep_conv_3x3"]]
PAIRS += [["sep_conv_5x5", "dil_conv_3x3"], ["dil_conv_5x5", "none"]]


@pytest.mark.parametrize("reduction", [False, True])
@pytest.mark.parametrize("names", PAIRS)
def test_every_operation_gives_what_todays_cell_gives(names: list[str], reduction: bool) -> None:
    drawn = [OPERATIONS.index(name) for name in names]
    check(10, 1, (7, 6), drawn, reduction=reduction, tile=TILE)


def test_a_cell_of_two_nodes_in_several_tiles_after_another_draw() -> None:
    drawn, before = [4, 2, 1, 3, 7], [7, 3, 4, 1, 2]
    check(12, 2, (9, 5), drawn, reduction=False, tile=1024, before=before)


@pytest.mark.slow
@pytest.mark.parametrize("reduction", [False, True])
def test_a_whole_cell(reduction: bool) -> None:
    drawn = [*range(2, 8), 0, 1, 3, 3, 0, 4, 5, 6]
    check(16, 4, (8, 8), drawn, reduction=reduction, tile=512)


def test_a_node_without_operations_is_zero() -> None:
    (one, *_), *_ = both(16, 2, (4, 4), [0, 0, 3, 0, 3], reduction=False, tile=TILE)
    assert not one["out"][:, :16].any()
    assert one["out"][:, 16:].any()
    assert one["gates"][4] == 0  # a skip from the zero node


def test_the_kernels_number_the_operations_as_the_space_does() -> None:
    numbers = {
        "max_pool_3x3": tiles.MAX_POOL,
        "avg_pool_3x3": tiles.AVG_POOL,
        "skip_connect": tiles.SKIP,
        "sep_conv_3x3": tiles.SEP_3,
        "sep_conv_5x5": tiles.SEP_5,
        "dil_conv_3x3": tiles.DIL_3,
        "dil_conv_5x5": tiles.DIL_5,
    }
    found = {name: number.value for name, number in numbers.items()}
    assert found == {name: OPERATIONS.index(name) for name in numbers}
    assert tiles.OPERATIONS.value == len(OPERATIONS)
    assert OPERATIONS == KERNELS
