"""Right: float32 and bfloat16 beside float64, from the same weights, inputs and draws.

An error is the norm of the difference over the norm of float64's value: of the loss, and of all
gradients together. The logits' gradient also has its cosine with float64's: the alpha step's rate
is Adam's, so that its direction is what counts. Beside it stands the cosine between two batches'
gradients in float64, the noise that any search lives with.

First come the smallest pieces, so that a wrong kernel has a name. Pieces and cells are compared
with the CPU's float64, whole networks with the device's.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gdas.cnn.genotype import DERIVED_OPERATIONS
from tests.gpu import primitives
from tests.gpu.arithmetic import tf32
from tests.gpu.findings import Figures, Findings
from tests.gpu.problems import (
    TEXT_WAYS,
    TRUTH,
    WAYS,
    Build,
    Way,
    fixed_cell,
    language,
    operation,
    search_cell,
    supernet,
    training,
)
from tests.gpu.sizes import Sizes

CPU = torch.device("cpu")
FEW = {name: WAYS[name] for name in ("float32, channels last", "bfloat16, channels last")}
"""The layout that is the default; enough where every way takes seconds."""
BY_SIZE = {name: WAYS[name] for name in ("float32", "float32, channels last")}
"""What pieces are tried in at every size; at the first one in all ways."""
CELLS = 3
"""Of the parts of a network, the first ones."""
SMALL = 1e-3
"""Gradients of a smaller norm, against the largest, do not enter the worst error: batch norm makes
some that are zero but for rounding."""


class Answer(NamedTuple):
    """In float64 on the CPU, and how long that took."""

    loss: float
    gradients: dict[str, Tensor]
    seconds: float = 0.0


def answer(build: Build, way: Way, device: torch.device) -> Answer:
    """A problem's loss and gradients in one arithmetic."""
    began = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(tf32(way.tf32))
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=way.bfloat16))
        problem = build(way, device)
        loss = problem.loss()
    with tf32(way.tf32):  # on the way back too, which autocast leaves alone
        found = torch.autograd.grad(loss, list(problem.leaves.values()), allow_unused=True)
    gradients = {
        name: gradient.detach().cpu().double()
        for name, gradient in zip(problem.leaves, found, strict=True)
        if gradient is not None
    }
    return Answer(float(loss.detach()), gradients, time.perf_counter() - began)


def _together(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients.values()])


def error(found: Answer, truth: Answer) -> Figures:
    """How far an answer is from the true one."""
    assert found.gradients.keys() == truth.gradients.keys()
    ours, theirs = _together(found.gradients), _together(truth.gradients)
    largest = max(float(g.norm()) for g in truth.gradients.values())
    worst = max(
        float((found.gradients[name] - g).norm() / g.norm())
        for name, g in truth.gradients.items()
        if float(g.norm()) >= SMALL * largest
    )
    return {
        "loss": abs(found.loss - truth.loss) / max(abs(truth.loss), 1e-12),
        "gradient": float((ours - theirs).norm() / theirs.norm()),
        "worst": worst,
        "cosine": float(F.cosine_similarity(ours, theirs, dim=0)),
        "seconds": found.seconds,
    }


def check(build: Build, device: torch.device, true_on: torch.device, ways: dict[str, Way]) -> Any:
    truth = answer(build, TRUTH, true_on)
    figures = {name: error(answer(build, way, device), truth) for name, way in ways.items()}
    return figures | {"true_seconds": truth.seconds}


def piece(builds: Mapping[str, Build], device: torch.device, ways: Mapping[str, Way]) -> Figures:
    """The worst error of a piece's gradients over its sizes, by input and by weights."""
    figures: Figures = {}
    for size, build in builds.items():
        truth = answer(build, TRUTH, CPU)
        for name, way in ways.items():
            errors = _by_leaves(answer(build, way, device), truth)
            worst = figures.get(name)
            if worst is None or not max(errors.values()) <= max(worst["input"], worst["weights"]):
                figures[name] = errors | {"size": size}
    return figures


def _by_leaves(found: Answer, truth: Answer) -> dict[str, float]:
    def of(names: list[str]) -> float:
        ours, theirs = (_together({n: one.gradients[n] for n in names}) for one in (found, truth))
        return float((ours - theirs).norm() / theirs.norm())

    weights = [name for name in truth.gradients if name != "input"]
    return {"input": of(["input"]), "weights": of(weights) if weights else 0.0}


def all_pieces(of: Findings, sizes: Sizes, device: torch.device, *, first: bool) -> Figures:
    """All pieces in one check; those that are left when the time is over are not in it.

    Args:
        first: at the first size, in all ways; else at the others, in float32.
    """
    figures: Figures = {}
    stages, ways = (sizes.stages[:1], WAYS) if first else (sizes.stages[1:], BY_SIZE)
    for name, builds in primitives.problems(stages, sizes.batch):
        if of.left() <= 0:
            break
        try:
            figures[name] = piece(builds, device, ways)
        except Exception as error:
            figures[name] = {"error": f"{type(error).__name__}: {error}"[:300]}
    return {"batch": sizes.batch, "pieces": figures}


def alpha_gradient(sizes: Sizes, device: torch.device, *, fixed: bool) -> Figures:
    """The logits' gradient over some draws; and between two batches, in float64."""
    errors: dict[str, list[Figures]] = {name: [] for name in WAYS}
    batch = sizes.batches[0]
    true_seconds = []
    for draw in range(sizes.draws):
        build = supernet(sizes, fixed=fixed, alpha=True, draw=draw, batch=batch)
        truth = answer(build, TRUTH, device)
        true_seconds.append(truth.seconds)
        if draw == 0:
            other = supernet(sizes, fixed=fixed, alpha=True, draw=0, batch=batch, images=1)
            between = error(answer(other, TRUTH, device), truth)["cosine"]
        for name, way in WAYS.items():
            errors[name].append(error(answer(build, way, device), truth))
    figures: Figures = {
        name: {
            "gradient": statistics.median(one["gradient"] for one in of),
            "cosine": statistics.median(one["cosine"] for one in of),
            "lowest cosine": min(one["cosine"] for one in of),
            "loss": statistics.median(one["loss"] for one in of),
            "n": len(of),
            "seconds": [one["seconds"] for one in of],
        }
        for name, of in errors.items()
    }
    return {"batch": batch, "between batches": between, "true_seconds": true_seconds} | figures


def networks(sizes: Sizes) -> Iterator[tuple[str, Build, dict[str, Way]]]:
    """Steps of whole networks."""
    batch = sizes.batches[0]
    for fixed, name in ((False, "both cells"), (True, "FRC")):
        yield (
            f"W step, {name}",
            supernet(sizes, fixed=fixed, alpha=False, draw=0, batch=batch),
            FEW,
        )
    channels, normals, _ = sizes.final
    yield "CIFAR training step", training(channels, min(normals, 2), batch, 32), FEW
    yield "language-model step", language(sizes.language, search=False), TEXT_WAYS
    yield "recurrent W step", language(sizes.recurrent, search=True), TEXT_WAYS
    yield "recurrent alpha step", language(sizes.recurrent, search=True, alpha=True), TEXT_WAYS
    channels, normals, _, side = sizes.imagenet
    small = max(2, batch // 2)
    yield "ImageNet training step", training(channels, min(normals, 2), small, side), FEW


def parts(sizes: Sizes) -> Iterator[tuple[str, Build]]:
    """The three cells, then the operations."""
    channels, batch = sizes.channels, max(2, sizes.batch // 4)
    for reduction, name in ((False, "normal cell"), (True, "reduction cell")):
        yield name, search_cell(reduction, channels, batch)
    yield "fixed reduction cell", fixed_cell(max(8, channels), batch)
    for name in DERIVED_OPERATIONS:
        for stride in (1, 2):
            if name != "none" and (name, stride) != ("skip_connect", 1):
                yield f"{name}, stride {stride}", operation(name, stride, channels, batch)


def run(of: Findings, device: torch.device, sizes: Sizes) -> None:
    """Pieces, the logits' gradient, whole steps, then cells and operations."""
    if device.type == "cuda":  # what is true is computed on all of the CPU
        torch.set_num_threads(os.cpu_count() or 1)
    of.take("pieces", partial(all_pieces, of, sizes, device, first=True))
    for fixed, name in ((False, "both cells"), (True, "FRC")):
        of.take(f"alpha step, {name}", partial(alpha_gradient, sizes, device, fixed=fixed))
    for name, build, ways in networks(sizes):
        of.take(name, partial(check, build, device, device, ways))
    if len(sizes.stages) > 1:
        of.take("pieces at other sizes", partial(all_pieces, of, sizes, device, first=False))
    for at, (name, build) in enumerate(parts(sizes)):
        of.take(name, partial(check, build, device, CPU, FEW if at < CELLS else WAYS))
