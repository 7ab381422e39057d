"""NAS-Bench-201: networks are the benchmark's, and a cell is the plain sum of its operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gdas.bench201.genotype import (
    CELL_OPERATIONS,
    bench201_cell,
    bench201_from_string,
)
from gdas.bench201.network import EVERYTHING, Cell, Network, ResidualBlock, picks_of
from gdas.bench201.space import build_bench201_supernet
from gdas.metrics import count_multiply_adds, count_parameters
from gdas.sampler import Pick
from tests.gdas.tiny_bench201 import (
    ALL_NONE,
    BEST,
    CONV1,
    CONV3,
    MIXED,
    NONE,
    POOL,
    SKIP,
    config,
    repeated,
)

# By hand, C = 16, N = 5: weights of a convolution, and 2 a channel for its batch norm.
STEM = 3 * 16 * 9 + 2 * 16
TO_32 = (16 * 32 * 9 + 2 * 32) + (32 * 32 * 9 + 2 * 32) + 16 * 32
TO_64 = (32 * 64 * 9 + 2 * 64) + (64 * 64 * 9 + 2 * 64) + 32 * 64
HEAD = 2 * 64 + (64 * 10 + 10)
AROUND = STEM + TO_32 + TO_64 + HEAD
EDGE_3x3 = 5 * ((16 * 16 * 9 + 2 * 16) + (32 * 32 * 9 + 2 * 32) + (64 * 64 * 9 + 2 * 64))
EDGE_1x1 = 5 * ((16 * 16 + 2 * 16) + (32 * 32 + 2 * 32) + (64 * 64 + 2 * 64))


@pytest.mark.parametrize(
    ("text", "parameters", "multiply_adds"),
    [
        # The benchmark's smallest and largest: 0.073306 and 1.531546 M, 7.78305 and 220.11969 M.
        (ALL_NONE, AROUND, 7_783_050),
        (repeated("nor_conv_3x3"), AROUND + 6 * EDGE_3x3, 220_119_690),
        # 16 * 16 multiply-adds at each of 32 * 32 places, as many in every stage, 15 cells.
        (
            "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|"
            "+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
            AROUND + 2 * EDGE_1x1,
            7_783_050 + 2 * 15 * 16 * 16 * 32 * 32,
        ),
        (
            BEST,
            AROUND + 4 * EDGE_3x3 + EDGE_1x1,
            7_783_050 + (4 * 9 + 1) * 15 * 16 * 16 * 32 * 32,
        ),
    ],
)
def test_networks_of_known_cells_are_the_benchmarks(
    text: str, parameters: int, multiply_adds: int
) -> None:
    assert (AROUND, AROUND + 6 * EDGE_3x3) == (73_306, 1_531_546)
    with torch.device("meta"):
        network = Network(10, genotype=bench201_from_string(text))
        image = torch.empty(1, 3, 32, 32)
    assert count_parameters(network) == parameters
    assert count_multiply_adds(network, image) == multiply_adds
    assert [i for i, kind in enumerate(network.cell_types) if kind == "residual"] == [5, 11]
    assert len(network.cells) == 17


def test_the_supernet_has_no_biases_that_batch_norm_takes_away() -> None:
    """experiments/peers.md: xautodl's supernet has 6,720, and 1,692,826 parameters in all."""
    with torch.device("meta"):
        supernet = build_bench201_supernet(config(channels=16, normals_per_block=5), 10)
    assert count_parameters(supernet) == 1_692_826 - 6_720


def plain_operation(k: int, x: Tensor, weight: Tensor) -> Tensor:
    """An operation written out; batch norm in training mode without affine."""
    if k == SKIP:
        return x
    if k == POOL:
        around = F.pad(x, (1, 1, 1, 1))
        ones = F.pad(torch.ones_like(x), (1, 1, 1, 1))
        size = x.shape[-1]
        nine = [(i, j) for i in range(3) for j in range(3)]
        total, count = (
            sum(t[:, :, i : i + size, j : j + size] for i, j in nine) for t in (around, ones)
        )
        assert isinstance(total, Tensor)
        return total / count
    out = F.conv2d(x.clamp(min=0), weight, padding=0 if k == CONV1 else 1)
    mean = out.mean((0, 2, 3), keepdim=True)
    return (out - mean) / (((out - mean) ** 2).mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()


def plain_cell(
    x: Tensor, weights: dict[Pick, Tensor], picks: list[Pick], gate_EK: Tensor
) -> Tensor:
    """Nodes 0 to 3, each edge's picked operations summed into its node."""
    ends = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    nodes = [x] + [torch.zeros_like(x) for _ in range(3)]
    for e, (source, node) in enumerate(ends):
        for k in (k for of_edge, k in picks if of_edge == e and k != NONE):
            out = plain_operation(k, nodes[source], weights.get((e, k), x))
            nodes[node] = nodes[node] + gate_EK[e, k] * out
    return nodes[3]


@pytest.mark.parametrize(
    "picks",
    [picks_of(bench201_from_string(MIXED)), list(EVERYTHING), picks_of(bench201_cell(15_624))],
    ids=["a draw", "all operations", "pooling alone"],
)
def test_a_cell_and_its_gradients_are_those_of_the_plain_sum(picks: list[Pick]) -> None:
    torch.manual_seed(0)
    cell = Cell(3, EVERYTHING, affine=False).double()
    gate_EK = torch.rand(6, 5, dtype=torch.float64).requires_grad_()
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    g = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    weights: dict[Pick, Tensor] = {}
    for e in range(6):
        for k in (CONV1, CONV3):
            (weights[e, k],) = cell.operation(e, k).parameters()
    inputs = [x, gate_EK, *weights.values()]
    out = cell(x, picks, gate_EK)
    expected = plain_cell(x, weights, picks, gate_EK)
    torch.testing.assert_close(out, expected)
    found, wanted = (
        torch.autograd.grad((g * y).sum(), inputs, allow_unused=True) for y in (out, expected)
    )
    for a, b in zip(found, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b)
    moved = {(e, k) for e, k in EVERYTHING if found[1][e, k] != 0}
    # The gates of operations that were not picked, and of `none`, get no gradient.
    assert moved == {(e, k) for e, k in picks if k != NONE}


def watch(network: Network) -> list[str]:
    """Names of the operations that run from now on, as `cell.edge.operation`."""
    ran: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *_: ran.append(name)

    for i, cell in enumerate(network.cells):
        if isinstance(cell, Cell):
            for e, k in EVERYTHING:
                if k != NONE:
                    name = f"{i}.{e}.{CELL_OPERATIONS[k]}"
                    cell.operation(e, k).register_forward_hook(note(name))
    return ran


def test_only_picked_operations_run_and_get_gradients() -> None:
    torch.manual_seed(0)
    network = Network(10, channels=2, normals_per_block=1)
    ran = watch(network)
    draws = [bench201_from_string(MIXED), bench201_cell(0), bench201_cell(2222)]
    picks: list[list[Pick]] = [picks_of(draws[0]), [], picks_of(draws[1]), [], picks_of(draws[2])]
    network(torch.randn(2, 3, 8, 8), picks).sum().backward()
    expected = [
        f"{2 * i}.{e}.{name}"
        for i, cell in enumerate(draws)
        for e, name in enumerate(cell.operations)
        if name != "none"
    ]
    assert sorted(ran) == sorted(expected)
    for name, p in network.named_parameters():
        parts = name.split(".")
        if "edges" in parts:
            picked = ".".join((parts[1], parts[3], parts[4])) in expected
            assert p.grad is None or picked
    assert network.get_parameter("cells.4.edges.3.nor_conv_3x3.1.weight").grad is not None


def test_a_derived_network_is_the_supernets_pass_of_that_cell() -> None:
    torch.manual_seed(0)
    cell = bench201_from_string(MIXED)
    supernet = Network(10, channels=2, normals_per_block=2)
    derived = Network(10, channels=2, normals_per_block=2, genotype=cell)
    own = derived.state_dict()
    shared = {key: v for key, v in supernet.state_dict().items() if key in own}
    affine = {key: v for key, v in own.items() if key not in shared}
    assert all(key.endswith((".2.weight", ".2.bias")) for key in affine)
    derived.load_state_dict(shared | affine)  # fresh scales are 1, shifts 0
    images = torch.randn(4, 3, 8, 8)
    picks: list[list[Pick]] = [picks_of(cell) if k == "cell" else [] for k in supernet.cell_types]
    torch.testing.assert_close(derived(images), supernet(images, picks))


def test_a_residual_block_halves_odd_sizes_too() -> None:
    assert ResidualBlock(2, 4)(torch.randn(2, 2, 7, 5)).shape == (2, 4, 4, 3)
