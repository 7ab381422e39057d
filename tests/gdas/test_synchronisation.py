"""A W step never waits for a value of the device, an alpha step once: for the logits' gradient.

The weights and images are on the meta device, which computes nothing: whoever wants to know a
value there has to wait. A dispatch mode sees every operation, those of the backward pass too, and
counts what brings a value to the CPU; also copies to the device that are not marked non-blocking.

It does not see what torch.tensor(..., device=...) and indices that are lists copy to the device,
for which CUDA may wait as well; that takes a GPU and torch.cuda.set_sync_debug_mode.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gdas.cnn.space import ImageSpace
from gdas.data.images import open_images
from gdas.data.text import Tokens
from gdas.metrics import EpochSums
from gdas.rnn.config import Dropouts, TextSearchConfig
from gdas.rnn.space import TextSpace
from gdas.search import SearchSteps
from tests.gdas.tiny import search_config

META = torch.device("meta")
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
VALUES = (aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default)
SIZES_BY_VALUE = (aten.masked_select.default, aten._unique2.default)


class Waits(TorchDispatchMode):
    """Where the CPU waited for the device; what it would have read there is zero."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.reads: list[str] = []
        self.blocking_writes: list[str] = []
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        self.operations += 1
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = any(t.device == META for t in tensors)
        if func in (*VALUES, *SIZES_BY_VALUE) and there:
            self.reads.append(str(func))
            if func is aten._local_scalar_dense.default:
                return 0
        if func is aten._to_copy.default:
            source, target = tensors[0].device, torch.device(kwargs.get("device") or META)
            if source == META and kwargs.get("device") is not None and target.type == "cpu":
                self.reads.append(str(func))
                return torch.zeros(tensors[0].shape, dtype=kwargs.get("dtype") or tensors[0].dtype)
            if source.type == "cpu" and kwargs.get("device") is not None and target == META:
                self._write(str(func), kwargs.get("non_blocking", False))
        if func is aten.copy_.default:
            target, source = tensors[0].device, tensors[1].device
            if source == META and target.type == "cpu":
                self.reads.append(str(func))
                return tensors[0].zero_()
            if source.type == "cpu" and target == META:
                self._write(str(func), kwargs.get("non_blocking", args[2:3] == (True,)))
        return func(*args, **kwargs)

    def _write(self, func: str, non_blocking: bool) -> None:
        if not non_blocking:
            self.blocking_writes.append(func)


def count(take: Callable[[], object]) -> Waits:
    waits = Waits()
    with waits:
        take()
    return waits


READS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool((x > 0).all()),
    "cpu": lambda x: x.cpu(),
    "tolist": lambda x: x.tolist(),
    "copy_": lambda x: torch.zeros(3).copy_(x),
}


@pytest.mark.parametrize("kind", list(READS))
def test_the_count_sees_every_way_to_read_a_value(kind: str) -> None:
    assert len(count(lambda: READS[kind](torch.ones(3, device=META) * 2)).reads) == 1


def test_the_count_sees_a_blocking_copy_to_the_device_and_no_other() -> None:
    here = torch.ones(3)
    assert len(count(lambda: here.to(META)).blocking_writes) == 1
    assert count(lambda: here.to(META, non_blocking=True)).blocking_writes == []


def image_steps(**changes: Any) -> SearchSteps:
    config = search_config(**changes)
    with tempfile.TemporaryDirectory() as folder:
        images = open_images("digits", "train", Path(folder))
        run = SearchSteps(config, ImageSpace(config, images, META))
    run.space.weights.train()
    return run


def text_steps() -> SearchSteps:
    ids_N = torch.randint(20, (400,), dtype=torch.int32)
    text = Tokens(ids_N, 20)
    config = TextSearchConfig(hidden=6, steps=4, batch_size=4, bptt=5, dropouts=Dropouts())
    return SearchSteps(config, TextSpace(config, text, text, META))


RUNS = {
    "image": image_steps,
    "image, fixed reduction": lambda: image_steps(reduction="fixed"),
    "recurrent": text_steps,
}


@pytest.mark.parametrize("kind", list(RUNS))
def test_a_w_step_waits_nowhere_and_an_alpha_step_once(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("gdas.cnn.halves", "gdas.rnn.space"):  # autocast knows no meta device
        monkeypatch.setattr(f"{module}.autocast", lambda device, precision: nullcontext())
    run = RUNS[kind]()
    sums = EpochSums()

    def take(half: Callable[..., Any], step: int) -> None:
        sums.add(half(0, step, 5.0))

    for step in range(2):  # the second with the optimisers' state and carried hidden states
        weights = count(partial(take, run.weight_step, step))
        assert weights.operations > 100
        assert (weights.reads, weights.blocking_writes) == ([], [])
        alpha = count(partial(take, run.alpha_step, step))
        assert len(alpha.reads) == 1, alpha.reads
        assert alpha.blocking_writes == []
    # The epoch's end reads the sums.
    assert len(count(sums.totals).reads) >= 1
