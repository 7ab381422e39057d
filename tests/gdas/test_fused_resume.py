"""Searches and trainings with fused kernels: exact resume, steady memory, and what goes plain."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Sequence
from typing import Any, Literal

import psutil
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gdas.cnn.fused import calls, cell
from gdas.cnn.fused.build import library
from gdas.cnn.fused.interface import Map
from gdas.cnn.fused.plan import FlatCell
from gdas.cnn.fused.stem import meant, run_stem
from gdas.cnn.fused.walk import search_plan
from gdas.cnn.genotype import OPERATIONS
from gdas.cnn.supernet import Supernet
from gdas.data.arrow import Images
from tests.gdas.test_fused_networks import build, take_step
from tests.gdas.tiny import run_search, search_config, seen

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels cannot be compiled here")


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of the readers and the cells are fused from now on."""
    used: list[str] = []
    for module, name in ((calls, "read"), (cell, "FlatCell")):
        real = getattr(module, name)

        def wrapped(*args: Any, _name: str = name, _real: Any = real, **kwargs: Any) -> Any:
            used.append(_name)
            return _real(*args, **kwargs)

        monkeypatch.setattr(module, name, wrapped)
    return used


@pytest.mark.parametrize("reduction", ["searched", "fixed"])
def test_an_interrupted_search_ends_with_the_bits_of_one_left_alone(
    small_digits: Images, reduction: Literal["searched", "fixed"], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = count_calls(monkeypatch)
    config = search_config(epochs=2, reduction=reduction)
    segments = run_search(config, small_digits)
    state = copy.deepcopy(next(segments).state)
    expected = seen(next(segments))
    assert seen(next(run_search(config, small_digits, state))) == expected
    assert {"read", "FlatCell"} == set(used)


def test_a_step_leaves_no_map_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that a step saves goes with its scores, without the garbage collector."""
    network = build()
    kept: list[weakref.ref[torch.Tensor]] = []
    real = FlatCell.place

    def watched(own: FlatCell, states: Sequence[Map], memory: Sequence[torch.Tensor]) -> None:
        kept.extend(weakref.ref(x) for x in (*memory, *(state.values_BCHW for state in states)))
        real(own, states, memory)

    monkeypatch.setattr(FlatCell, "place", watched)
    gc.disable()
    try:
        take_step(network, 0, fused=True, weights=True, gates=True, size=8)
    finally:
        gc.enable()
    assert kept
    assert not [ref for ref in kept if ref() is not None]


@pytest.mark.slow
def test_memory_does_not_grow_over_a_thousand_steps() -> None:
    """A single map that stayed behind in each step would be 13 MiB."""
    network, process = build(), psutil.Process()

    def steps(first: int, last: int) -> int:
        for step in range(first, last):
            take_step(network, step, fused=True, weights=step % 2 == 0, gates=step % 2 == 1)
            network.zero_grad(set_to_none=True)
        return int(process.memory_info().rss)

    before = steps(0, 200)
    assert steps(200, 1000) - before < 4 * 2**20


def test_what_no_kernel_covers_goes_plain() -> None:
    network = build()
    first: Any = network.cells[0]
    picks = [(e, 4) for e in range(len(first.edges))]
    assert search_plan(first, picks, None) is not None
    assert search_plan(first, [*picks, (0, 5)], None) is None, "not a hard draw"
    watched = first.edges[3][4].register_forward_hook(lambda *_: None)
    assert search_plan(first, picks, None) is None, "somebody waits for the layer to be called"
    watched.remove()
    first.edges[3][4][3].eval()
    assert search_plan(first, picks, None) is None, "one norm does not train"
    first.edges[3][4][3].train()
    first.edges[3][4][2] = nn.Conv2d(8, 8, 1)
    assert search_plan(first, picks, None) is None, "a bias"
    assert search_plan(first, [(e, OPERATIONS.index("none")) for e, _ in picks], None) is not None


def test_biases_evaluation_and_double_run_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    used = count_calls(monkeypatch)
    with_bias = build(bias_without_affine=True)
    assert isinstance(with_bias, Supernet)
    take_step(with_bias, 0, fused=True, weights=True, gates=False, size=8)
    double = build().double()
    take_step(double, 0, fused=True, weights=True, gates=False, size=8)
    network = build()
    network.fused = True
    network.eval()
    picks = [[(e, 4) for e in range(14)] for _ in network.cells]
    with torch.no_grad():
        network(torch.randn(2, 3, 8, 8), picks)
    assert not used


def test_one_value_in_a_channel_is_refused_as_plain_norms_do() -> None:
    network = build()
    before = [b.clone() for b in network.cells[-1].buffers()]
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        take_step(network, 0, fused=True, weights=True, gates=False, size=4, batch=1)
    for old, new in zip(before, network.cells[-1].buffers(), strict=True):
        assert torch.equal(old, new)


def test_a_second_derivative_is_refused() -> None:
    network = build().train()
    network.fused = True
    picks = [[(e, 4) for e in range(14)] for _ in network.cells]
    images = torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    weight = network.cells[0].preprocess.s0[1].weight  # type: ignore[union-attr,index]
    scores = network(images, picks)
    (first,) = torch.autograd.grad(scores.square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_stems_are_fused_unless_somebody_watches_them_or_the_images_want_a_gradient() -> None:
    images = torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    network = build().train()
    assert isinstance(network, Supernet)
    (made,) = run_stem(network.stem, images) or [Map(images)]
    expected, _ = network.stem(images)
    torch.testing.assert_close(F.relu(meant(made)), expected)
    assert run_stem(network.stem, images.clone().requires_grad_()) is None
    called: list[torch.Tensor] = []
    norm: Any = network.stem.norm
    handle = norm.register_forward_hook(lambda *_: called.append(images))
    assert run_stem(network.stem, images) is None
    network.fused = True
    network(images, [[(e, 4) for e in range(14)] for _ in network.cells])
    assert len(called) == 1
    handle.remove()
