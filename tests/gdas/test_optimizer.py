"""The one-pass SGD does what PyTorch's does, also for weights whose first gradient comes late."""

from __future__ import annotations

import torch
from torch import nn

from gdas.optimizer import restore, saved, sgd


def weights() -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(3)
    shapes = [(16, 1, 3, 3), (48, 3), (7,), (33, 5)]
    return [nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]


def walk(optimizer: torch.optim.SGD, own: list[nn.Parameter]) -> None:
    """Six steps; each leaves out one weight, as a draw does, and the first one another."""
    draw = torch.Generator().manual_seed(4)
    for step in range(6):
        for i, weight in enumerate(own):
            gradient = torch.randn(weight.shape, generator=draw)
            left_out = i == step % 4 or (step == 0 and i == 3)
            weight.grad = None if left_out else gradient
        optimizer.step()


def test_the_weights_are_those_of_pytorchs_sgd() -> None:
    for momentum, nesterov in ((0.9, False), (0.9, True), (0.0, False)):
        ours, theirs = weights(), weights()
        walk(sgd(ours, lr=0.1, momentum=momentum, weight_decay=3e-4, nesterov=nesterov), ours)
        theirs_sgd = torch.optim.SGD(
            theirs,
            lr=0.1,
            momentum=momentum,
            weight_decay=3e-4,
            nesterov=nesterov,
            foreach=False,
            fused=False,
        )
        walk(theirs_sgd, theirs)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=3e-7)  # a few units of the last place


def test_a_saved_state_goes_on_with_the_same_bits() -> None:
    straight, stopped = weights(), weights()
    whole = sgd(straight, lr=0.1, momentum=0.9, weight_decay=3e-4)
    walk(whole, straight)
    walk(whole, straight)
    first = sgd(stopped, lr=0.1, momentum=0.9, weight_decay=3e-4)
    walk(first, stopped)
    second = sgd(stopped, lr=0.5, momentum=0.9, weight_decay=3e-4)
    restore(second, saved(first))
    walk(second, stopped)
    assert all(torch.equal(a, b) for a, b in zip(straight, stopped, strict=True))


def test_a_checkpoint_has_neither_weights_never_drawn_nor_how_it_is_computed() -> None:
    own = weights()
    optimizer = sgd(own, lr=0.1, momentum=0.9, weight_decay=0.0)
    own[1].grad = torch.ones_like(own[1])
    optimizer.step()
    state = saved(optimizer)
    assert list(state["state"]) == [1]
    assert state["param_groups"][0]["fused"] is None
    again = sgd(weights(), lr=0.1, momentum=0.9, weight_decay=0.0)
    restore(again, state)
    assert again.param_groups[0]["fused"] is True
    assert len(again.state) == len(own)
