"""Whole networks with fused kernels: both steps against float64, and no gradient missing."""

from __future__ import annotations

import copy
import dataclasses
import statistics
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.architecture import Architecture, draw_architecture
from gdas.cnn.cell import SearchCell
from gdas.cnn.fused.build import library
from gdas.cnn.genotype import PUBLISHED, Genotype
from gdas.cnn.network import Network, draw_drop_path
from gdas.cnn.norm import BatchNorm
from gdas.cnn.supernet import Supernet
from gdas.config import SamplerConfig
from gdas.method import Gumbel

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels cannot be compiled here")

CPU = torch.device("cpu")
FIVE_DRAWS = "both cells searched"
"""The supernet that is tried with five draws, the others with two."""
SUPERNETS: dict[str, dict[str, Any]] = {
    "both cells searched": {},
    "fixed reduction": {"fixed_reduction": True},
    "fixed reduction of 2019": {"fixed_reduction": True, "wiring": "2019", "fixed_affine": False},
    "authors' code of 2020": {
        "macro": "3n",
        "pooling_norm": False,
        "normals_per_block": 2,
        "nodes": 2,
    },
    "photos": {"stem": "imagenet", "nodes": 2},
    "three nodes": {"nodes": 3, "channels": 12},
}


@dataclass
class Step:
    """What a step leaves behind, of a network that had taken none."""

    scores: Tensor
    weights: dict[str, Tensor | None]
    logits: dict[str, Tensor | None]
    statistics: dict[str, Tensor]


def build(**settings: Any) -> Supernet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Supernet(10, **({"channels": 8, "normals_per_block": 1} | settings))
    return network.to(memory_format=torch.channels_last)


def draw(
    network: Supernet, logits: dict[str, Tensor], seed: int, *, gates: bool, every: bool = False
) -> Architecture:
    noise = torch.Generator().manual_seed(seed)
    device = CPU if gates else None
    method = Gumbel(all_run=every)
    return draw_architecture(
        logits, network.kinds, SamplerConfig(), 5.0, noise, gate_device=device, method=method
    )


def begin(network: Supernet | Network, *, fused: bool) -> None:
    """Make a network what it was before any step: a step changes its statistics and gradients."""
    network.fused = fused
    network.zero_grad()
    for norm in network.modules():
        if isinstance(norm, BatchNorm):
            norm.reset_running_stats()
    network.train()


def statistics_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: b.clone() for name, b in network.named_buffers() if "running" in name}


def take_step(
    network: Supernet,
    seed: int,
    *,
    fused: bool,
    weights: bool,
    gates: bool,
    every: bool = False,
    size: int = 8,
    batch: int = 4,
) -> Step:
    own = torch.Generator().manual_seed(seed)
    dtype = next(network.parameters()).dtype
    images = torch.randn(batch, 3, size, size, generator=own).to(dtype)
    labels = torch.randint(10, (batch,), generator=own)
    logits = network.initial_logits(torch.Generator().manual_seed(1))
    architecture = draw(network, logits, seed, gates=gates, every=every)
    of_cells = architecture.gates
    if of_cells is not None:
        of_cells = [None if gate is None else gate.to(dtype) for gate in of_cells]
    begin(network, fused=fused)
    for p in network.parameters():
        p.requires_grad_(weights)
    scores = network(
        images.contiguous(memory_format=torch.channels_last), architecture.picks, of_cells
    )
    F.cross_entropy(scores, labels).backward()
    return Step(
        scores.detach(),
        {name: p.grad for name, p in network.named_parameters()},
        {kind: a.grad for kind, a in logits.items()},
        statistics_of(network),
    )


def distance(found: dict[str, Any], true: dict[str, Any]) -> float:
    """The norm of the difference of all tensors together, relative to the true norm."""
    names = [name for name, value in true.items() if value is not None]
    a = torch.cat([found[name].flatten().double() for name in names])
    b = torch.cat([true[name].flatten().double() for name in names])
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("name", SUPERNETS)
def test_both_steps_are_as_close_to_float64_as_plain_ones(name: str) -> None:
    settings = SUPERNETS[name]
    network = build(**settings)
    true = copy.deepcopy(network).double()
    size = 32 if settings.get("stem") == "imagenet" else 8
    errors: dict[str, list[tuple[float, float]]] = {"weights": [], "logits": []}
    for seed in range(5 if name == FIVE_DRAWS else 2):
        for what, gates in (("weights", False), ("logits", True)):
            a, b, c = (
                take_step(n, seed, fused=fused, weights=not gates, gates=gates, size=size)
                for n, fused in ((network, True), (network, False), (true, False))
            )
            assert missing(a) == missing(b)
            pair = tuple(distance(getattr(s, what), getattr(c, what)) for s in (a, b))
            errors[what].append((pair[0], pair[1]))
            assert distance({"": a.scores}, {"": c.scores}) < 1e-4
            assert distance(a.statistics, c.statistics) < 1e-3
    for what, pairs in errors.items():
        # A ReLU or a maximum that rounding turns the other way changes a gradient by a percent.
        assert max(pair[0] for pair in pairs) < 0.2, what
        own, plains = (statistics.median(x) for x in zip(*pairs, strict=True))
        assert own <= 3 * plains + 2e-5, what


@pytest.mark.parametrize("reduction", [False, True], ids=["searched", "fixed"])
def test_gates_of_all_operations_are_as_close_to_float64_as_plain_ones(
    monkeypatch: pytest.MonkeyPatch, reduction: bool
) -> None:
    single = build(fixed_reduction=reduction)
    double = copy.deepcopy(single).double()
    pairs = []
    for seed in range(3):
        steps = {}
        for name, network in {"plain": single, "true": double, "fused": single}.items():
            with monkeypatch.context() as patch:
                if name == "fused":  # no cell runs in plain PyTorch
                    patch.setattr(SearchCell, "forward", lambda *a, **k: pytest.fail("plain"))
                steps[name] = take_step(
                    network, seed, fused=name == "fused", weights=False, gates=True, every=True
                )
        own, other, exact = (steps[name].logits for name in ("fused", "plain", "true"))
        for a_EK in own.values():
            assert a_EK is not None and (a_EK != 0).sum() > 4 * len(a_EK), "gates of all operations"
        pairs.append((distance(own, exact), distance(other, exact)))
        assert distance(steps["fused"].statistics, steps["true"].statistics) < 1e-3
    mine, theirs = (statistics.median(x) for x in zip(*pairs, strict=True))
    assert mine <= 3 * theirs + 2e-5


def missing(step: Step) -> list[str]:
    return [name for name, gradient in (step.weights | step.logits).items() if gradient is None]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_of_weights_and_gates_repeats_its_bits_and_is_close_to_float64(threads: int) -> None:
    """Weights and gates have their gradients in one step, as with `clip_scope=all`."""
    network = build()
    true = take_step(copy.deepcopy(network).double(), 3, fused=False, weights=True, gates=True)
    torch.set_num_threads(threads)
    try:
        one, other = (take_step(network, 3, fused=True, weights=True, gates=True) for _ in range(2))
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one.scores, other.scores)
    assert missing(one) == missing(other) == missing(true)
    for what in ("weights", "logits", "statistics"):
        found, again = getattr(one, what), getattr(other, what)
        for name, value in found.items():
            assert value is None or torch.equal(value, again[name]), name
        # Some 1e-5; a ReLU that rounding turns the other way adds a percent.
        assert distance(found, getattr(true, what)) < 0.02, what


@pytest.mark.parametrize("momentum", [0.1, None], ids=["moving", "plain average"])
def test_batches_are_counted_and_averaged_as_plain_norms_do(momentum: float | None) -> None:
    """Over steps of both kinds, of different draws; a plain average is for shared weights."""
    plain = build()
    fused = copy.deepcopy(plain)
    fused.fused = True
    for network in (plain, fused):
        for norm in network.modules():
            if isinstance(norm, BatchNorm):
                norm.momentum = momentum
        for seed in range(4):
            logits = network.initial_logits(torch.Generator().manual_seed(1))
            own = torch.Generator().manual_seed(seed)
            images = torch.randn(4, 3, 8, 8, generator=own)
            architecture = draw(network, logits, seed, gates=seed % 2 == 1)
            with torch.set_grad_enabled(seed > 0):
                network(images, architecture.picks, architecture.gates)
    found, true = fused.state_dict(), plain.state_dict()
    for name, value in true.items():
        if "num_batches" in name:
            assert torch.equal(found[name], value), name
    running = {name: x for name, x in true.items() if "running" in name}
    assert distance(found, running) < 1e-4


STRIDED_SKIP = (("skip_connect", 0), *(PUBLISHED["GDAS_V1"].reduce or ())[1:])
FINALS: dict[str, tuple[Genotype, dict[str, Any]]] = {
    "both cells": (PUBLISHED["GDAS_V1"], {"auxiliary": True}),
    "fixed reduction": (PUBLISHED["GDAS_F1"], {"channels": 12}),
    "photos": (PUBLISHED["DARTS_V2"], {"stem": "imagenet", "channels": 10}),
    "an operation without a kernel": (PUBLISHED["DARTS_V1"], {"macro": "3n"}),
    "a node left out, a strided skip": (
        dataclasses.replace(
            PUBLISHED["GDAS_V1"], normal_concat=(2, 3, 5), reduce=STRIDED_SKIP, reduce_concat=()
        ),
        {"pooling_norm": False},
    ),
}


def train_step(network: Network, size: int, *, fused: bool = False) -> Step:
    own = torch.Generator().manual_seed(0)
    dtype = next(network.parameters()).dtype
    images = torch.randn(6, 3, size, size, generator=own).to(dtype)
    labels = torch.randint(10, (6,), generator=own)
    keep = draw_drop_path(network, 6, 0.3, own)
    assert keep is not None
    begin(network, fused=fused)
    scores, auxiliary = network(
        images.contiguous(memory_format=torch.channels_last), keep.to(dtype)
    )
    loss = F.cross_entropy(scores, labels)
    if auxiliary is not None:
        loss = loss + 0.4 * F.cross_entropy(auxiliary, labels)
    loss.backward()
    return Step(
        scores.detach(),
        {name: p.grad for name, p in network.named_parameters()},
        {},
        statistics_of(network),
    )


@pytest.mark.parametrize("name", FINALS)
def test_a_training_step_is_as_close_to_float64_as_a_plain_one(name: str) -> None:
    genotype, settings = FINALS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network(genotype, 10, **({"channels": 9, "normals_per_block": 1} | settings))
    network = network.to(memory_format=torch.channels_last)
    true = copy.deepcopy(network).double()
    size = 40 if settings.get("stem") else 32 if settings.get("auxiliary") else 9
    a, b, c = (
        train_step(network, size, fused=True),
        train_step(network, size),
        train_step(true, size),
    )
    assert missing(a) == missing(b)
    own, plains = (distance(step.weights, c.weights) for step in (a, b))
    assert own <= 3 * plains + 0.02, (own, plains)
    assert distance({"": a.scores}, {"": c.scores}) < 1e-4
    assert distance(a.statistics, c.statistics) < 1e-3
