"""How many operations a step of the paper's search launches on the device.

The weights and images are on the meta device, which computes nothing; a dispatch mode counts what
is called, views and empty tensors apart. The paper's search took 2,877 in a W step and 1,759 in an
alpha step before batch norm counted on the host, gates were taken at once and gradients were not
added to zeros. PyTorch's operations on lists of tensors, which a GPU has, count as one.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gdas.cnn import cell
from gdas.cnn.cell import take_gates
from gdas.cnn.norm import BatchNorm
from gdas.cnn.space import ImageSpace
from gdas.search import SearchSteps
from tests.bench.search_step import random_images
from tests.gpu.setup import search_config
from tests.gpu.sizes import PAPER

META = torch.device("meta")
aten = torch.ops.aten
DRAWS = 4
MOST = 1200


class Launches(TorchDispatchMode):
    """Operations on the meta device; what is read from there is zero."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is aten._to_copy.default and _goes_to_cpu(args[0], kwargs.get("device")):
            out = torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        elif func is aten.copy_.default and _goes_to_cpu(args[1], args[0].device):
            out = args[0].zero_()
        else:
            out = func(*args, **kwargs)
        # Operations on lists in place give nothing back.
        there = _on_meta(args[:1] if out is None else out)
        name = func.overloadpacket.__name__
        if there and not func.is_view and not name.startswith(("empty", "new_empty", "detach")):
            self.operations[name] += 1
        return out


def _on_meta(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.device == META
    return isinstance(value, list | tuple) and any(_on_meta(one) for one in value)


def _goes_to_cpu(source: Tensor, target: Any) -> bool:
    return source.device == META and target is not None and torch.device(target).type == "cpu"


@pytest.fixture
def lists_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clipping use operations on lists there, as it does on a GPU; no autocast there."""
    monkeypatch.setattr(
        "torch.utils._foreach_utils._get_foreach_kernels_supported_devices", lambda: ["meta"]
    )
    monkeypatch.setattr("gdas.cnn.halves.autocast", lambda device, precision: nullcontext())


@pytest.mark.usefixtures("lists_on_meta")
def test_a_step_launches_few_operations() -> None:
    config = search_config(PAPER, 8, "searched")
    run = SearchSteps(config, ImageSpace(config, random_images(2 * 8 * DRAWS), META))
    run.weight_optimizer.param_groups[0]["foreach"] = True  # PyTorch's default on a GPU
    run.space.weights.train()
    for p in run.parameters:  # as if every operation had been drawn before
        p.grad = torch.zeros_like(p)
    run.weight_optimizer.step()
    numbers = {}
    for kind, take in (("W", run.weight_step), ("alpha", run.alpha_step)):
        with Launches() as launches:
            for step in range(DRAWS):
                take(0, step, 5.0)
        assert launches.operations["convolution"] > 100 * DRAWS
        numbers[kind] = launches.operations.total() / DRAWS
    assert max(numbers.values()) <= MOST, numbers


def test_batch_norm_counts_on_the_host_and_its_state_is_right() -> None:
    ours, theirs = BatchNorm(4), nn.BatchNorm2d(4)
    for step in range(3):
        x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(step))
        assert torch.equal(ours(x), theirs(x))
    assert ours.num_batches_tracked == 0
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    assert ours.state_dict()["num_batches_tracked"] == 3
    again = BatchNorm(4)
    again(x)
    again.load_state_dict(theirs.state_dict())
    again(x)
    assert again.state_dict()["num_batches_tracked"] == 4
    again.counts_on_host = False
    again(x)
    assert again.num_batches_tracked == 5
    again.eval()
    again(x)
    assert again.state_dict()["num_batches_tracked"] == 5


def test_a_plain_average_of_batches_needs_the_number() -> None:
    ours, theirs = BatchNorm(4), nn.BatchNorm2d(4)
    for momentum in (0.1, None):
        ours.momentum = theirs.momentum = momentum
        for step in range(2):
            x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(step))
            ours(x), theirs(x)
    assert ours.running_mean is not None and theirs.running_mean is not None
    assert torch.equal(ours.running_mean, theirs.running_mean)
    ours.reset_running_stats()
    assert ours.state_dict()["num_batches_tracked"] == 0


def test_gates_that_are_taken_at_once_have_the_gradient_of_their_places() -> None:
    picks = [(0, 2), (2, 1), (1, 0)]
    gate_EK = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    taken = take_gates(gate_EK, picks)
    assert torch.equal(torch.stack(taken), torch.stack([gate_EK[e, k] for e, k in picks]))
    (taken[0] * 3 + taken[2] ** 2).backward()  # the second is used by nothing
    right = torch.zeros(3, 4, dtype=torch.float64)
    right[0, 2], right[1, 0] = 3.0, 2 * gate_EK.detach()[1, 0]
    assert gate_EK.grad is not None
    torch.testing.assert_close(gate_EK.grad, right, rtol=0, atol=0)


def test_inner_products_on_other_devices_are_those_of_cpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.randn(4, 2, 8, 5, 5, dtype=torch.float64)
    for layout in (torch.channels_last, torch.contiguous_format):
        gradient, *terms = (one.contiguous(memory_format=layout) for one in x)
        plain = cell._inner_products(gradient, terms, torch.float64)
        monkeypatch.setattr(cell, "ONE_BY_ONE_ON", ())
        stacked = cell._inner_products(gradient, terms, torch.float64)
        monkeypatch.undo()
        torch.testing.assert_close(torch.stack(list(stacked)), torch.stack(list(plain)))
