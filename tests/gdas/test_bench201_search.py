"""NAS-Bench-201: the search, what it draws and derives, and scores with shared weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.architecture import Architecture
from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.derive import derive_bench201_cell, derive_bench201_genotype
from gdas.bench201.genotype import (
    CELLS,
    EDGES,
    all_bench201_cells,
    bench201_cell,
    bench201_from_json,
    bench201_from_string,
    random_bench201_genotype,
    reaches_output,
)
from gdas.bench201.network import EVERYTHING, Cell, Network, picks_of
from gdas.bench201.space import Bench201Space, build_bench201_supernet, score_with_shared_weights
from gdas.checkpoint import State, digest
from gdas.cnn.halves import search_split
from gdas.config import AlphaUpdate, SamplerConfig, WeightUpdate
from gdas.data.arrow import Images
from gdas.data.augment import normalise
from gdas.errors import InputError
from gdas.metrics import BatchLoss
from gdas.randomness import generator
from gdas.search import search
from tests.gdas.tiny import CPU, Seen, latest, seen, until
from tests.gdas.tiny_bench201 import ALL_NONE, CONV1, CONV3, MIXED, NONE, POOL, config, run_search

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
    # So low that the logits' gradient in the norm tells: the default is to count it.
    "hard": config(weights=dataclasses.replace(Bench201SearchConfig().weights, clip=0.01)),
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
