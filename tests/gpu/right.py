"""Right: float32 and bfloat16 beside float64, from the same weights, inputs and draws.

An error is the norm of the difference over the norm of float64's value: of the loss, and of all
gradients together. The logits' gradient also has its cosine with float64's: the alpha step's rate
is Adam's, so that its direction is what counts. Beside it stands the cosine between two batches'
gradients in float64, the noise that any search lives with.

Operations and cells are compared with the CPU's float64, whole networks with the device's.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gdas.genotype import DERIVED_OPERATIONS
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
SMALL = 1e-3
"""Gradients of a smaller norm, against the largest, do not enter the worst error: batch norm makes
some that are zero but for rounding."""


class Answer(NamedTuple):
    """In float64 on the CPU."""

    loss: float
    gradients: dict[str, Tensor]


def answer(build: Build, way: Way, device: torch.device) -> Answer:
    """A problem's loss and gradients in one arithmetic."""
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
    return Answer(float(loss.detach()), gradients)


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
        "loss": abs(found.loss - truth.loss) / abs(truth.loss),
        "gradient": float((ours - theirs).norm() / theirs.norm()),
        "worst": worst,
        "cosine": float(F.cosine_similarity(ours, theirs, dim=0)),
    }


def check(build: Build, device: torch.device, true_on: torch.device, ways: dict[str, Way]) -> Any:
    truth = answer(build, TRUTH, true_on)
    return {name: error(answer(build, way, device), truth) for name, way in ways.items()}


def alpha_gradient(sizes: Sizes, device: torch.device, *, fixed: bool) -> Figures:
    """The logits' gradient over several draws; and between batches, in float64."""
    errors: dict[str, list[Figures]] = {name: [] for name in WAYS}
    between = []
    for draw in range(sizes.draws):
        build, other = (
            supernet(
                sizes, fixed=fixed, alpha=True, draw=draw, batch=sizes.batches[0], images=images
            )
            for images in (0, 1)
        )
        truth = answer(build, TRUTH, device)
        between.append(error(answer(other, TRUTH, device), truth)["cosine"])
        for name, way in WAYS.items():
            errors[name].append(error(answer(build, way, device), truth))
    figures: Figures = {
        name: {
            "gradient": statistics.median(one["gradient"] for one in of),
            "cosine": statistics.median(one["cosine"] for one in of),
            "lowest cosine": min(one["cosine"] for one in of),
            "loss": statistics.median(one["loss"] for one in of),
            "n": len(of),
        }
        for name, of in errors.items()
    }
    return {"batch": sizes.batches[0], "between batches": statistics.median(between)} | figures


def networks(sizes: Sizes) -> Iterator[tuple[str, Build, dict[str, Way]]]:
    """Steps of whole networks."""
    batch = sizes.batch
    for fixed, name in ((False, "both cells"), (True, "FRC")):
        yield (
            f"W step, {name}",
            supernet(sizes, fixed=fixed, alpha=False, draw=0, batch=batch),
            WAYS,
        )
    channels, normals, _ = sizes.final
    yield "CIFAR training step", training(channels, normals, batch, 32), WAYS
    yield "language-model step", language(sizes.language, search=False), TEXT_WAYS
    yield "recurrent W step", language(sizes.recurrent, search=True), TEXT_WAYS
    yield "recurrent alpha step", language(sizes.recurrent, search=True, alpha=True), TEXT_WAYS
    channels, normals, _, side = sizes.imagenet
    yield "ImageNet training step", training(channels, normals, max(2, batch // 2), side), WAYS


def parts(sizes: Sizes) -> Iterator[tuple[str, Build]]:
    """Cells and operations."""
    channels, batch = sizes.channels, max(2, sizes.batch // 4)
    for reduction, name in ((False, "normal cell"), (True, "reduction cell")):
        yield name, search_cell(reduction, channels, batch)
    yield "fixed reduction cell", fixed_cell(max(8, channels), batch)
    for name in DERIVED_OPERATIONS:
        for stride in (1, 2):
            if name != "none" and (name, stride) != ("skip_connect", 1):
                yield f"{name}, stride {stride}", operation(name, stride, channels, batch)


def run(of: Findings, device: torch.device, sizes: Sizes) -> None:
    """The logits' gradient first, then whole steps, then their parts."""
    for fixed, name in ((False, "both cells"), (True, "FRC")):
        of.take(
            f"alpha step, {name}", lambda fixed=fixed: alpha_gradient(sizes, device, fixed=fixed)
        )
    for name, build, ways in networks(sizes):
        of.take(name, lambda build=build, ways=ways: check(build, device, device, ways))
    for name, build in parts(sizes):
        of.take(name, lambda build=build: check(build, device, CPU, WAYS))
