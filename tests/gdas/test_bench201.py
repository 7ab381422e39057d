"""NAS-Bench-201: cells as data, networks, search space, and the table of results."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.architecture import Architecture
from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.derive import derive_bench201_cell, derive_bench201_genotype
from gdas.bench201.genotype import (
    ACCURACIES,
    CELL_OPERATIONS,
    CELLS,
    EDGES,
    Bench201Genotype,
    all_bench201_cells,
    bench201_cell,
    bench201_from_json,
    bench201_from_string,
    random_bench201_genotype,
    reaches_output,
)
from gdas.bench201.network import EVERYTHING, Cell, Network, ResidualBlock, picks_of
from gdas.bench201.space import Bench201Space, build_bench201_supernet, score_with_shared_weights
from gdas.bench201.table import Table, read_table, spearman, table_path
from gdas.checkpoint import Segment, State, digest
from gdas.cnn.halves import search_split
from gdas.config import AlphaUpdate, SamplerConfig, WeightUpdate
from gdas.data.arrow import Images
from gdas.data.augment import normalise
from gdas.data.settings import IMAGE_DATA, TableData
from gdas.drawing.draw import draw_bench201
from gdas.errors import InputError
from gdas.files import write_json
from gdas.genotype import load
from gdas.metrics import BatchLoss, count_multiply_adds, count_parameters
from gdas.randomness import generator
from gdas.sampler import Pick
from gdas.search import search
from tests.gdas.tiny import CPU, Seen, latest, seen, until

NONE, SKIP, CONV1, CONV3, POOL = range(5)
ALL_NONE = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
MIXED = "|nor_conv_3x3~0|+|skip_connect~0|avg_pool_3x3~1|+|none~0|nor_conv_1x1~1|nor_conv_3x3~2|"


def repeated(operation: str) -> str:
    return ALL_NONE.replace("none", operation)


def config(**changes: Any) -> Bench201SearchConfig:
    """Five members of four to sixteen channels on 64 + 64 digits, three epochs of two steps."""
    settings: dict[str, Any] = {
        "data": IMAGE_DATA["digits"],
        "epochs": 3,
        "batch_size": 32,
        "train_images": 64,
        "valid_images": 64,
        "channels": 4,
        "normals_per_block": 1,
        "alpha": AlphaUpdate(lr=0.05),
    }
    return Bench201SearchConfig(**(settings | changes))


def run_search(
    settings: Bench201SearchConfig, images: Images, checkpoint: State | None = None
) -> Iterator[Segment]:
    return search(settings, Bench201Space(settings, images, CPU), checkpoint=checkpoint)


# Cells as data


def test_every_cell_is_read_back_from_what_is_written() -> None:
    written = [str(cell) for cell in all_bench201_cells()]
    assert len(set(written)) == len(written) == CELLS == 15_625
    for number, text in enumerate(written):
        cell = bench201_from_string(text)
        assert cell.number == number
        assert str(cell) == text
        assert cell.operations == bench201_cell(number).operations


def test_the_written_form_names_operation_and_source_node_by_node() -> None:
    cell = bench201_from_string(MIXED, "mine")
    assert cell.name == "mine"
    assert dict(zip(EDGES, cell.operations, strict=True)) == {
        (1, 0): "nor_conv_3x3",
        (2, 0): "skip_connect",
        (2, 1): "avg_pool_3x3",
        (3, 0): "none",
        (3, 1): "nor_conv_1x1",
        (3, 2): "nor_conv_3x3",
    }


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "unknown operation ''"),
        (MIXED.replace("none", "zero"), "'zero'"),
        (MIXED.replace("nor_conv_1x1~1", "nor_conv_1x1~2"), "not of the form"),
        (MIXED.replace("none~0", "none"), "not of the form"),
        (MIXED + "+|none~0|none~1|none~2|none~3|", "not of the form"),
        (MIXED.removesuffix("|"), "not of the form"),
        ("|none~0|none~0|none~1|+|none~0|none~1|none~2|", "not of the form"),
        (f" {MIXED}", "unknown operation"),
        ("|none~0|", "not of the form"),
    ],
)
def test_a_malformed_cell_is_refused_with_its_fault(text: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault) as caught:
        bench201_from_string(text, where="here")
    assert str(caught.value).startswith("here: ")
    assert "\n" not in str(caught.value)


def test_a_cell_survives_its_json_file(tmp_path: Path) -> None:
    cell = bench201_from_string(MIXED, "mine")
    write_json(tmp_path / "cell.json", cell.to_json())
    assert load(tmp_path / "cell.json") == cell


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ([MIXED], "JSON object"),
        ({"cell": MIXED}, "format"),
        ({"cell": 3}, "of the form"),
        ({"cells": MIXED}, "cells"),
        ({"cell": MIXED, "name": 3}, "name"),
        ({"name": "mine"}, "of the form"),
        ({"cell": MIXED.replace("none", "x")}, "'x'"),
    ],
)
def test_malformed_json_is_refused_naming_the_fault(value: Any, fault: str) -> None:
    if isinstance(value, dict) and fault != "format":
        value = {"format": "gdas-bench201-genotype/1"} | value
    with pytest.raises(InputError, match=fault) as caught:
        bench201_from_json(value, "cell.json")
    assert str(caught.value).startswith("cell.json")


def test_a_cell_cannot_be_made_malformed_in_code_either() -> None:
    with pytest.raises(InputError, match="5 operations"):
        Bench201Genotype("mine", ("none",) * 5)
    with pytest.raises(InputError, match="edge 1 to 3: unknown operation 'zero'"):
        Bench201Genotype("mine", ("none",) * 4 + ("zero", "none"))
    for number in (-1, CELLS):
        with pytest.raises(ValueError, match="0 to 15624"):
            bench201_cell(number)


def test_random_cells_are_uniform() -> None:
    cells = [random_bench201_genotype(seed) for seed in range(3000)]
    assert cells[7] == random_bench201_genotype(7)
    total = 0.0
    for e in range(6):
        counts = Counter(cell.operations[e] for cell in cells)
        total += sum((counts[name] - 600) ** 2 / 600 for name in CELL_OPERATIONS)
    # 24 degrees of freedom: chi-square exceeds 73 with probability 1e-6.
    assert total < 73
    assert len({cell.number for cell in cells}) > 2600  # 2730 expected, sd below 15


def test_none_is_drawn_apart(tmp_path: Path) -> None:
    sizes = []
    for text in (MIXED, MIXED.replace("none", "skip_connect")):
        draw_bench201(bench201_from_string(text), tmp_path / "cell.svg")
        drawn = (tmp_path / "cell.svg").read_text()
        sizes.append(drawn.count("#c8d1da"))
    assert sizes[0] > 0 == sizes[1]


# Networks


BEST = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    "+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
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


# Search


def test_defaults_are_those_of_the_benchmarks_code() -> None:
    c = Bench201SearchConfig()
    assert (c.epochs, c.batch_size, c.channels, c.normals_per_block) == (250, 64, 16, 5)
    w = c.weights
    assert (w.lr, w.lr_min, w.momentum, w.weight_decay) == (0.025, 0.001, 0.9, 5e-4)
    assert (w.nesterov, w.clip, w.clip_scope) == (True, 5.0, "all")
    assert (c.alpha.lr, c.alpha.betas, c.alpha.weight_decay) == (3e-4, (0.5, 0.999), 1e-3)
    assert (c.sampler.tau_start, c.sampler.tau_end, c.sampler.scope) == (10.0, 0.1, "cell_type")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1),
        ("channels", 0),
        ("normals_per_block", 0),
        ("train_images", 1),
        ("valid_images", 0),
        ("recalibration_batches", 0),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(key: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{key}={value}"):
        Bench201SearchConfig(**{key: value})  # type: ignore[arg-type]


SEARCHES = {
    "hard": config(),
    "hard, a draw a cell": config(sampler=SamplerConfig(scope="cell_instance")),
    "DARTS": config(sampler=SamplerConfig(relaxation="softmax")),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_stopped_after_any_epoch_goes_on_as_if_it_had_not_been(
    small_digits: Images, tmp_path: Path, name: str
) -> None:
    settings = SEARCHES[name]
    whole: list[Seen] = [seen(segment) for segment in run_search(settings, small_digits)]
    passed = until(run_search(settings, small_digits), 1, tmp_path)
    for position in (1, 2):
        state = latest(tmp_path).state
        passed += until(run_search(settings, small_digits, state), position + 1, tmp_path)
    assert passed == whole
    assert len({digests for *_, digests in whole}) == 3


def test_records_hold_the_cell_that_the_logits_derive(small_digits: Images) -> None:
    settings = config(split_seed=3)
    *_, last = run_search(settings, small_digits)
    assert last.state is not None
    details = json.loads(json.dumps(last.details))
    genotype, cell = derive_bench201_genotype(settings, last.state["logits"])
    assert bench201_from_json(details["genotype"]) == genotype
    assert genotype.name == "searched-seed0"
    assert last.metrics["cell/entropy"] == cell.entropy
    assert details["probabilities"]["cell"] == list(cell.probabilities)
    assert last.metrics["train/loss"] < 3
    start = build_bench201_supernet(settings, 10).initial_logits(generator(0, "logits"))["cell"]
    assert (last.state["logits"]["cell"] != start).all()


@pytest.mark.parametrize("gates", ["drawn", "all"])
def test_a_draw_of_none_alone_is_survived_and_leaves_the_logits_without_gradient(
    small_digits: Images, monkeypatch: pytest.MonkeyPatch, gates: Any
) -> None:
    def certain(generator: torch.Generator) -> dict[str, Tensor]:
        logits_EK = torch.zeros(6, 5)
        logits_EK[:, NONE] = 200.0
        return {"cell": logits_EK.requires_grad_()}

    settings = config(epochs=1, alpha=AlphaUpdate(weight_decay=0.0, gates=gates))
    space = Bench201Space(settings, small_digits, CPU)
    monkeypatch.setattr(space, "initial_logits", certain)
    (segment,) = search(settings, space)
    assert segment.state is not None
    assert not segment.state["logits_gradient"]["cell"].any()
    assert segment.details["genotype"]["cell"] == ALL_NONE
    assert segment.metrics["cell/parameter_free"] == 6
    assert segment.metrics["train/no_path"] == segment.metrics["train/draws"] == 2
    assert segment.metrics["valid/no_path"] == segment.metrics["valid/draws"] == 2


def test_a_path_reaches_the_output_where_the_image_changes_it() -> None:
    torch.manual_seed(0)
    network = Network(10, channels=2, normals_per_block=1).eval()
    cell = network.cells[0]
    a_BCHW, b_BCHW = torch.randn(2, 1, 2, 4, 4)
    for number in range(0, CELLS, 61):
        picks = picks_of(bench201_cell(number))
        same = torch.equal(cell(a_BCHW, picks), cell(b_BCHW, picks))
        assert reaches_output([k for _, k in picks]) != same
    found = [reaches_output([k for _, k in picks_of(c)]) for c in all_bench201_cells()]
    # By hand: 0 to 3 without the edge 0-3, and neither 0-1-3, 0-2-3 nor 0-1-2-3.
    assert found.count(False) == sum(
        4 ** (a + b + c + d + e)
        for a, b, c, d, e in product((0, 1), repeat=5)  # 0-1, 0-2, 1-2, 1-3, 2-3 carry something
        if not (a and d) and not (b and e) and not (a and c and e)
    )


@pytest.mark.parametrize(
    ("scope", "gates"),
    [
        ("cell_instance", "drawn"),
        ("cell_type", "drawn"),
        ("data_sample", "drawn"),
        ("cell_instance", "all"),
    ],
)
def test_draws_without_a_path_are_counted(small_digits: Images, scope: Any, gates: Any) -> None:
    settings = config(
        epochs=2,
        batch_size=16,
        alpha=AlphaUpdate(lr=0.05, gates=gates),
        sampler=SamplerConfig(scope=scope),
    )
    space = Bench201Space(settings, small_digits, CPU)
    drawn: dict[str, list[Architecture]] = {"train": [], "valid": []}

    class Watched(Bench201Space):
        def initial_logits(self, generator: torch.Generator) -> dict[str, Tensor]:
            logits_EK = torch.zeros(6, 5)
            logits_EK[:, NONE] = 2.0  # two of three edges carry nothing
            return {"cell": logits_EK.requires_grad_()}

        def weight_loss(self, architecture: Architecture, epoch: int, step: int) -> BatchLoss:
            drawn["train"].append(architecture)
            return super().weight_loss(architecture, epoch, step)

        def alpha_loss(self, architecture: Architecture, epoch: int, step: int) -> BatchLoss:
            drawn["valid"].append(architecture)
            return super().alpha_loss(architecture, epoch, step)

    space.__class__ = Watched
    metrics = [segment.metrics for segment in search(settings, space)]
    lost = 0
    for half, architectures in drawn.items():
        for epoch in range(2):
            cut, draws = 0, 0
            for architecture in architectures[4 * epoch : 4 * epoch + 4]:
                for b in range(16 if scope == "data_sample" else 1):
                    cells = [
                        [int(k) for k in architecture.samples[i][b]]  # type: ignore[index]
                        if architecture.samples is not None
                        else architecture.drawn[i]
                        if architecture.drawn is not None
                        else [k for _, k in architecture.picks[i]]
                        for i in (0, 2, 4)
                    ]
                    cut += not all(map(reaches_output, cells))
                    draws += 1
            assert metrics[epoch][f"{half}/no_path"] == cut
            assert metrics[epoch][f"{half}/draws"] == draws == (64 if scope == "data_sample" else 4)
            lost += cut
    assert 0 < lost < 4 * draws


def test_nothing_is_drawn_where_all_operations_run(small_digits: Images) -> None:
    settings = config(epochs=1, sampler=SamplerConfig(relaxation="softmax"))
    (segment,) = search(settings, Bench201Space(settings, small_digits, CPU))
    assert not [key for key in segment.metrics if "draws" in key or "no_path" in key]


def test_every_image_runs_its_own_draw() -> None:
    torch.manual_seed(0)
    cell = Cell(3, EVERYTHING, affine=False).double().eval()
    x_BCHW = torch.randn(6, 3, 5, 5, dtype=torch.float64)
    operation_BE = torch.randint(5, (8, 6))
    gate_BEK = torch.rand(8, 6, 5, dtype=torch.float64).requires_grad_()
    picks = [(e, k) for e in range(6) for k in operation_BE[:, e].unique().tolist()]
    together = cell(x_BCHW, picks, gate_BEK, operation_BE)
    for b in range(6):
        own = list(enumerate(operation_BE[b].tolist()))
        alone = cell(x_BCHW[b : b + 1], own, gate_BEK[b])
        torch.testing.assert_close(together[b : b + 1], alone)
    (gradient,) = torch.autograd.grad(together.square().sum(), gate_BEK)
    run = torch.nn.functional.one_hot(operation_BE, 5).bool()
    assert not gradient[~run].any() and not gradient[6:].any()
    assert gradient[:6][run[:6]].any()


@pytest.mark.parametrize("clip_scope", ["weights", "all"])
def test_both_steps_of_darts_run_the_mixture_and_only_alphas_moves_the_logits(
    small_digits: Images, monkeypatch: pytest.MonkeyPatch, clip_scope: Any
) -> None:
    settings = config(
        epochs=1,
        train_images=32,
        weights=WeightUpdate(clip_scope=clip_scope),
        sampler=SamplerConfig(relaxation="softmax"),
    )
    space = Bench201Space(settings, small_digits, CPU)
    given: list[Architecture] = []
    for name in ("weight_loss", "alpha_loss"):
        loss = getattr(space, name)

        def noting(
            architecture: Architecture, *step: int, loss: Callable[..., Any] = loss
        ) -> BatchLoss:
            given.append(architecture)
            batch: BatchLoss = loss(architecture, *step)
            return batch

        monkeypatch.setattr(space, name, noting)
    list(search(settings, space))
    start = space.initial_logits(generator(0, "logits"))["cell"]
    for architecture, differentiable in zip(given, (clip_scope == "all", True), strict=True):
        assert architecture.gates is not None
        for kind, picks, gate_EK in zip(
            space.cell_types, architecture.picks, architecture.gates, strict=True
        ):
            if gate_EK is None:
                assert (kind, picks) == ("residual", [])
                continue
            assert picks == list(EVERYTHING)
            torch.testing.assert_close(gate_EK.detach(), torch.softmax(start.detach(), 1))
            assert gate_EK.requires_grad == differentiable


def test_a_search_finds_that_the_image_must_come_through(small_digits: Images) -> None:
    """Quick rates on 256 + 256 digits: `none` loses the edge from the input to the output."""
    settings = config(
        epochs=10,
        train_images=256,
        valid_images=256,
        weights=WeightUpdate(lr=0.1),
        alpha=AlphaUpdate(lr=0.1),
        sampler=SamplerConfig(tau_start=1.0, scope="cell_type"),
    )
    *_, last = run_search(settings, small_digits)
    assert last.state is not None
    p_K = torch.softmax(last.state["logits"]["cell"][EDGES.index((3, 0))], 0)
    assert float(p_K[NONE]) < 0.1
    assert last.metrics["valid/top1"] > 20


def test_none_is_eligible_and_ties_keep_the_earlier_operation() -> None:
    logits_EK = torch.zeros(6, 5)
    logits_EK[0, NONE] = 1.0
    logits_EK[1, POOL] = 2.0
    logits_EK[3, CONV1] = logits_EK[3, CONV3] = 1.0
    logits_EK[5, CONV3] = 40.0
    cell = derive_bench201_cell(logits_EK)
    assert cell.edges == (
        ("none", 0),
        ("avg_pool_3x3", 0),
        ("none", 1),
        ("nor_conv_1x1", 0),
        ("none", 1),
        ("nor_conv_3x3", 2),
    )
    e = float(np.e)
    assert cell.probabilities[0] == pytest.approx(e / (e + 4))
    assert cell.margins[0] == pytest.approx((e - 1) / (e + 4))
    assert cell.margins[3] == 0
    assert cell.margins[5] == pytest.approx(1.0)
    assert derive_bench201_cell(torch.zeros(6, 5)).entropy == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"\(5, 6\)"):
        derive_bench201_cell(logits_EK.t())


# Scoring with the shared weights


@pytest.fixture(scope="module")
def state(small_digits: Images) -> State:
    segment = next(run_search(config(), small_digits))
    assert segment.state is not None
    return segment.state


def test_cells_are_scored_apart_and_the_state_is_left_alone(
    small_digits: Images, state: State
) -> None:
    cells = [bench201_from_string(MIXED), random_bench201_genotype(1), bench201_cell(0)]
    before = digest(state)
    together = score_with_shared_weights(config(), small_digits, state, cells, CPU)
    apart = [
        score_with_shared_weights(config(), small_digits, state, [cell], CPU)[0] for cell in cells
    ]
    assert together == apart
    assert len({score.loss for score in together}) == 3
    assert digest(state) == before


def test_a_score_is_of_that_cell_with_statistics_of_its_own(
    small_digits: Images, state: State
) -> None:
    settings, cell = config(), bench201_from_string(MIXED)
    (score,) = score_with_shared_weights(settings, small_digits, state, [cell], CPU)
    network = Network(10, channels=4, normals_per_block=1, genotype=cell)
    own = network.state_dict()
    network.load_state_dict(own | {k: v for k, v in state["weights"].items() if k in own})
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    train_T, valid_V = search_split(settings, len(small_digits))
    images = normalise(small_digits.images_NCHW, settings.data)
    with torch.no_grad():
        order = torch.randperm(64, generator=generator(0, "recalibration"))
        for rows in train_T[order].split(32):
            network(images[rows])
        scores = network.eval()(images[valid_V])
    labels = small_digits.labels_N[valid_V]
    assert score.top1 == pytest.approx(100 * float((scores.argmax(1) == labels).float().mean()))
    assert score.loss == pytest.approx(float(F.cross_entropy(scores, labels)), rel=1e-4)


# The table

HEADER = ["index", "architecture", *ACCURACIES]


def table_rows() -> list[list[str]]:
    """Cells in a shuffled order. Columns by number: rising; falling; three classes; ..."""
    order = np.random.default_rng(0).permutation(CELLS)
    rows = []
    for index, number in enumerate(int(n) for n in order):
        classes = 10.0 if number < 5000 else 50.0 if number < 15_000 else 90.0
        values = [number / 200, 80 - number / 200, classes, 5.0, number % 2 * 10.0]
        rows.append([str(index), str(bench201_cell(number)), *map(repr, values)])
    return rows


ROWS = table_rows()


def write_table(path: Path, rows: list[list[str]]) -> Path:
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return read_table(write_table(tmp_path_factory.mktemp("table") / "t.csv", [HEADER, *ROWS]))


def test_a_cells_standing_is_its_place_among_all(table: Table) -> None:
    accuracy, rank, percentile, regret, _ = table.standing(
        bench201_cell(15_000), "cifar10_test_200"
    )
    assert (accuracy, rank) == (75.0, 625)
    assert percentile == pytest.approx(100 * 15_000.5 / 15_625)
    assert regret == pytest.approx(624 / 200)
    assert table.standing(bench201_cell(0), "cifar100_test_200")[1] == 1
    assert table.standing(bench201_cell(15_624), "cifar100_test_200")[1] == 15_625
    # Ties: 5,000 of 10 %, 10,000 of 50 %, 625 of 90 %.
    tied = table.standing(bench201_cell(6000), "imagenet16_120_test_200")
    assert tied[:2] == (50.0, 626) and tied.regret == 40.0
    assert tied.percentile == pytest.approx(100 * (5000 + 5000) / 15_625)
    assert table.standing(bench201_cell(3), "cifar10_valid_12") == (5.0, 1, 50.0, 0.0, 50.0)


def test_reference_values_are_exact(table: Table) -> None:
    column: Literal["imagenet16_120_test_200"] = "imagenet16_120_test_200"
    low, high = 5000 / 15_625, 625 / 15_625
    found = table.reference(1, column)
    assert found.uniform == found.best_of == pytest.approx(10 * low + 90 * high + 50 * 0.64)
    none_high, all_low = (1 - high) ** 7, low**7
    best_of_7 = 10 * all_low + 50 * (none_high - all_low) + 90 * (1 - none_high)
    found = table.reference(7, column)
    assert found.best_of == pytest.approx(best_of_7)
    assert found.best == 90.0
    assert found.best_cell.number == 15_000
    # All pairs, written out.
    values = table.accuracies_N("cifar10_test_200")
    pairs = np.arange(CELLS) * 2 + 1
    assert table.expected_of_best(2, "cifar10_test_200") == pytest.approx(
        float((values * pairs).sum()) / CELLS**2
    )
    with pytest.raises(ValueError, match="k=0"):
        table.expected_of_best(0, column)


def test_the_best_may_be_judged_by_another_column(table: Table) -> None:
    # Best by what falls: the opposite order.
    of_two = table.expected_of_best(2, "cifar10_test_200", judged_by="cifar100_test_200")
    best_of_two = table.expected_of_best(2, "cifar10_test_200")
    assert of_two + best_of_two == pytest.approx(2 * 7812 / 200)
    # A judge to whom all are equal picks uniformly.
    assert table.expected_of_best(9, "cifar10_test_200", judged_by="cifar10_valid_12") == (
        pytest.approx(7812 / 200)
    )


def test_the_order_of_columns_and_others_beside_them_do_not_matter(tmp_path: Path) -> None:
    rows = [[*row[:0:-1], "", "x"] for row in [HEADER, *ROWS]]
    path = tmp_path / "t.csv"
    path.write_text("\ufeff" + "\n".join(",".join(row) for row in rows) + "\n\n")
    table = read_table(path)
    assert table.standing(bench201_cell(15_000), "cifar10_test_200").rank == 625


def changed(line: int, column: str, value: str) -> list[list[str]]:
    rows = [list(row) for row in [HEADER, *ROWS[:10]]]
    rows[line - 1][HEADER.index(column)] = value
    return rows


BAD: dict[str, tuple[list[list[str]], str]] = {
    "no column": (changed(1, "cifar10_valid_12", "x"), "line 1: no column 'cifar10_valid_12'"),
    "a column twice": (changed(1, "index", "architecture"), "line 1: more than one column"),
    "no number": (changed(3, "cifar10_test_12", "good"), "line 3, cifar10_test_12: 'good'"),
    "empty": (changed(4, "cifar100_test_200", ""), "line 4, cifar100_test_200: ''"),
    "nan": (changed(4, "cifar100_test_200", "nan"), "line 4, cifar100_test_200: 'nan'"),
    "over 100": (changed(2, "cifar10_test_200", "100.1"), "line 2, cifar10_test_200: '100.1'"),
    "below 0": (changed(2, "cifar10_test_200", "-1"), "line 2, cifar10_test_200: '-1'"),
    "unknown operation": (
        changed(5, "architecture", MIXED.replace("none", "x")),
        "line 5, architecture: unknown operation 'x'",
    ),
    "not a cell": (changed(5, "architecture", "|none~0|"), "line 5, architecture: .*form"),
    "a cell twice": (changed(7, "architecture", ROWS[1][1]), "line 7, architecture: .*line 3 too"),
    "a value too many": ([HEADER, [*ROWS[0], "1"]], "line 2: 8 values for 7 columns"),
    "a value too few": ([HEADER, ROWS[0], ROWS[1][:6]], "line 3: 6 values for 7 columns"),
    "cells missing": ([HEADER, *ROWS[:100]], "100 of the 15625 cells"),
    "empty file": ([], "line 1: no column 'architecture'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_refused_naming_file_line_and_column(case: str, tmp_path: Path) -> None:
    rows, fault = BAD[case]
    path = write_table(tmp_path / "t.csv", rows)
    with pytest.raises(InputError, match=fault) as caught:
        read_table(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_table_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with pytest.raises(InputError, match=r"t\.csv: cannot read"):
        read_table(path)
    with pytest.raises(InputError, match="cannot read"):
        read_table(tmp_path)
    path.write_bytes(b"index,architecture\xff\xfe\n")
    with pytest.raises(InputError, match=r"t\.csv: not a CSV file"):
        read_table(path)
    path.write_text("x" * 200_000)
    with pytest.raises(InputError, match=r"t\.csv: not a CSV file"):
        read_table(path)
    with path.open("wb") as file:
        file.truncate((1 << 26) + 1)
    with pytest.raises(InputError, match="larger than"):
        read_table(path)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 1000], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        # Ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4: 4.5 / sqrt(4.5 * 5).
        ([1, 2, 2, 3], [1, 3, 2, 4], 4.5 / 22.5**0.5),
        # Ranks 2, 2, 2, 4, 5 and 5, 3.5, 3.5, 1.5, 1.5: -7.5 / sqrt(8 * 9).
        ([7, 7, 7, 8, 9], [3, 2, 2, 1, 1], -7.5 / 72**0.5),
        ([1, 1, 1], [1, 2, 3], None),
        ([5], [6], None),
    ],
)
def test_rank_correlation_is_that_of_the_definition(
    a: list[float], b: list[float], expected: float | None
) -> None:
    found = spearman(a, b)
    assert found == (expected if expected is None else pytest.approx(expected))
    assert spearman(b, a) == found


def test_scores_are_correlated_with_the_tables_accuracies(table: Table) -> None:
    cells = [bench201_cell(n) for n in (9, 400, 20, 15_000)]
    assert table.correlation(cells, [1, 3, 2, 9], "cifar10_test_200") == pytest.approx(1.0)
    assert table.correlation(cells, [1, 3, 2, 9], "cifar100_test_200") == pytest.approx(-1.0)
    with pytest.raises(ValueError, match="4 and"):
        spearman([1.0, 2.0, 3.0, 4.0], [1.0])
    with pytest.raises(ValueError, match="at least one"):
        spearman([], [])


@pytest.mark.skipif("GDAS_DATA" not in os.environ, reason="GDAS_DATA names no folder of data")
def test_the_benchmarks_best_cell_is_found_by_its_string() -> None:
    """In the real table. 94.373 to three digits is the accuracy of two cells."""
    table = read_table(table_path(TableData(), Path(os.environ["GDAS_DATA"])))
    found = table.standing(bench201_from_string(BEST), "cifar10_test_200")
    assert (round(found.accuracy, 2), found.rank, found.regret) == (94.37, 1, 0.0)
    assert found.percentile == pytest.approx(100 * (CELLS - 1) / CELLS)
    tied = BEST.replace("3x3~1|nor_conv_1x1~2", "1x1~1|nor_conv_3x3~2")
    best = table.reference(1, "cifar10_test_200").best_cell
    assert str(best) in (BEST, tied)
    began = time.perf_counter()
    for cell in all_bench201_cells():
        table.standing(cell, "cifar10_test_200")
    assert (time.perf_counter() - began) / CELLS < 1e-3, "a lookup is instant"
