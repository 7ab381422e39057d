"""Steps of the search for image cells: what runs, what moves, and what stands still."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from gdas.architecture import Architecture
from gdas.cnn.cell import (
    SearchCell,
)
from gdas.cnn.space import ImageSpace
from gdas.config import WeightUpdate
from gdas.data.arrow import Images
from gdas.search import SearchSteps
from tests.gdas.tiny import CPU, search_config
from tests.narrow import narrow


def run_on(
    images: Images, reduction: Literal["searched", "fixed"] = "searched", **changes: Any
) -> tuple[SearchSteps, ImageSpace]:
    """A tiny search, ready to step, in training mode."""
    config = search_config(reduction, **changes)
    space = ImageSpace(config, images, CPU)
    space.weights.train()
    return SearchSteps(config, space), space


Step = Literal["weight", "alpha"]


def take(run: SearchSteps, step: Step, index: int = 0) -> None:
    (run.weight_step if step == "weight" else run.alpha_step)(0, index, 1.0)


def watch_architectures(space: ImageSpace) -> list[Architecture]:
    """Every architecture whose loss is asked for from now on."""
    seen: list[Architecture] = []

    def watching(loss: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(architecture: Architecture, epoch: int, step: int) -> Any:
            seen.append(architecture)
            return loss(architecture, epoch, step)

        return wrapped

    space.weight_loss = watching(space.weight_loss)  # type: ignore[method-assign]
    space.alpha_loss = watching(space.alpha_loss)  # type: ignore[method-assign]
    return seen


def search_cells(space: ImageSpace) -> Iterator[tuple[int, SearchCell]]:
    for i, cell in enumerate(space.supernet.cells):
        if isinstance(cell, SearchCell):
            yield i, cell


# What runs and what moves in a search step


@pytest.mark.parametrize("step", ["weight", "alpha"])
@pytest.mark.parametrize("reduction", ["searched", "fixed"])
def test_only_the_picked_operations_run_each_once_and_none_never(
    small_digits: Images, step: Step, reduction: Literal["searched", "fixed"]
) -> None:
    run, space = run_on(small_digits, reduction)
    architectures = watch_architectures(space)
    ran: list[tuple[int, int, int]] = []

    def note(place: tuple[int, int, int]) -> Callable[..., None]:
        return lambda *_: ran.append(place)

    for i, cell in search_cells(space):
        for e, operations in enumerate(cell.edges):
            for k, operation in enumerate(narrow(operations, nn.ModuleList)):
                operation.register_forward_hook(note((i, e, k)))
    take(run, step)
    (architecture,) = architectures
    picked = [(i, e, k) for i, picks in enumerate(architecture.picks) for e, k in picks]
    assert len(picked) == 14 * len(list(search_cells(space)))
    assert any(k == 0 for *_, k in picked), "`none` is among the picks"
    assert sorted(ran) == sorted(place for place in picked if place[2] != 0)


def snapshot(space: ImageSpace) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in space.weights.named_parameters()}


def gradients(space: ImageSpace) -> dict[str, Tensor]:
    """The value of every gradient; none at all counts as zero, which is what SGD is given."""
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in space.weights.named_parameters()
    }


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("undrawn", ["decay", "skip"])
@pytest.mark.parametrize("reduction", ["searched", "fixed"])
def test_an_alpha_step_moves_the_logits_and_no_weight(
    small_digits: Images, reduction: Literal["searched", "fixed"], undrawn: Any
) -> None:
    run, space = run_on(small_digits, reduction, weights=WeightUpdate(undrawn=undrawn))
    take(run, "weight")
    weights, grads = snapshot(space), gradients(space)
    logits = {kind: a.detach().clone() for kind, a in run.logits.items()}
    take(run, "alpha")
    assert equal(snapshot(space), weights)
    assert equal(gradients(space), grads)
    assert all(p.requires_grad for p in space.weights.parameters())
    for kind, a in run.logits.items():
        assert (a != logits[kind]).all(), "every logit moves"


@pytest.mark.parametrize("reduction", ["searched", "fixed"])
def test_a_weight_step_moves_weights_and_no_logit(
    small_digits: Images, reduction: Literal["searched", "fixed"]
) -> None:
    run, space = run_on(small_digits, reduction)
    take(run, "alpha")
    weights = snapshot(space)
    logits = {kind: a.detach().clone() for kind, a in run.logits.items()}
    grads = {kind: a.grad.clone() for kind, a in run.logits.items() if a.grad is not None}
    assert grads.keys() == logits.keys()
    take(run, "weight")
    for kind, a in run.logits.items():
        assert torch.equal(a, logits[kind])
        assert a.grad is not None
        assert torch.equal(a.grad, grads[kind])
    moved = snapshot(space)
    assert not torch.equal(moved["classifier.weight"], weights["classifier.weight"])
    assert not torch.equal(moved["stem.conv.weight"], weights["stem.conv.weight"])


def test_with_clip_scope_all_the_logits_gradient_enters_the_norm_but_moves_no_logit(
    small_digits: Images,
) -> None:
    norms = []
    scopes: tuple[Literal["weights", "all"], ...] = ("weights", "all")
    for scope in scopes:
        run, _ = run_on(small_digits, weights=WeightUpdate(clip=0.01, clip_scope=scope))
        for a in run.logits.values():
            a.grad = torch.ones_like(a)  # a norm of 15 beside the weights'
        before = {kind: a.detach().clone() for kind, a in run.logits.items()}
        take(run, "weight")
        assert all(torch.equal(a, before[kind]) for kind, a in run.logits.items())
        parts = [p.grad.norm() for p in run.parameters if p.grad is not None]
        norms.append(float(torch.stack(parts).norm()))
    assert norms[0] == pytest.approx(0.01, rel=1e-3)
    assert norms[1] < 0.005


def test_two_cells_with_the_same_seed_start_with_the_same_weights_and_another_seed_with_others(
    small_digits: Images,
) -> None:
    first, again, other = (snapshot(run_on(small_digits, seed=seed)[1]) for seed in (1, 1, 2))
    assert equal(first, again)
    assert not torch.equal(first["stem.conv.weight"], other["stem.conv.weight"])


# Undrawn operations


def edge_parameters(space: ImageSpace) -> dict[tuple[int, int, int], list[nn.Parameter]]:
    """The parameters of every operation of every edge that has any."""
    found = {}
    for i, cell in search_cells(space):
        for e, operations in enumerate(cell.edges):
            for k, operation in enumerate(narrow(operations, nn.ModuleList)):
                if parameters := list(operation.parameters()):
                    found[i, e, k] = parameters
    return found


@pytest.mark.parametrize("undrawn", ["decay", "skip"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_undrawn_operations_stand_still_or_move_on_as_sgd_with_zero_gradients(
    small_digits: Images, undrawn: Any, nesterov: bool
) -> None:
    settings = WeightUpdate(undrawn=undrawn, nesterov=nesterov, weight_decay=0.05, lr=0.1)
    run, space = run_on(small_digits, weights=settings, batch_size=16)
    architectures = watch_architectures(space)
    places = edge_parameters(space)
    once_drawn: set[tuple[int, int, int]] = set()
    buffers: dict[nn.Parameter, Tensor] = {}  # ours, of parameters that the optimiser has moved
    stood = coasted = decayed_before_any_weight_step = 0

    for index in range(3):
        take(run, "alpha", index)
        if undrawn == "decay":
            once_drawn |= drawn_places(architectures[-1])
        before = {place: [p.detach().clone() for p in ps] for place, ps in places.items()}
        take(run, "weight", index)
        drawn = drawn_places(architectures[-1])
        for place, parameters in places.items():
            for p, old in zip(parameters, before[place], strict=True):
                if place in drawn:
                    assert not torch.equal(p, old)
                    buffers[p] = run.weight_optimizer.state[p]["momentum_buffer"].clone()
                elif place in once_drawn and undrawn == "decay":
                    first = p not in buffers
                    gradient = 0.05 * old
                    buffer = gradient if first else 0.9 * buffers[p] + gradient
                    step = gradient + 0.9 * buffer if nesterov else buffer
                    torch.testing.assert_close(p.detach(), old - 0.1 * step, rtol=1e-5, atol=1e-8)
                    assert not torch.equal(p, old)
                    buffers[p] = buffer
                    coasted += 1
                    decayed_before_any_weight_step += first
                else:
                    assert torch.equal(p, old)
                    stood += 1
        once_drawn |= drawn
    assert stood > 0
    if undrawn == "decay":
        assert coasted > 100
        assert decayed_before_any_weight_step > 10, "drawn by an alpha step only"


def drawn_places(architecture: Architecture) -> set[tuple[int, int, int]]:
    return {(i, e, k) for i, picks in enumerate(architecture.picks) for e, k in picks}
