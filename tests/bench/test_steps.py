"""The recurrent baselines compute what ours computes; memory and profiles are of what is named."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from gdas.rnn.cell import DerivedCell, SearchCell
from gdas.rnn.genotype import PUBLISHED_RECURRENT
from tests.bench.operation_times import group_seconds, top_operations
from tests.bench.plain_text import PlainDerivedCell, PlainSearchCell
from tests.bench.steps import KINDS, measure
from tests.bench.timing import memory_of, resident_mib, step_memory

TEXT = ["language-model step", "recurrent search step"]


def test_the_plain_derived_cell_has_the_same_outputs_and_gradients() -> None:
    torch.manual_seed(0)
    ours = DerivedCell(PUBLISHED_RECURRENT["RNN_GDAS"], 6).double()
    plain = PlainDerivedCell(ours)
    inputs = torch.randn(5, 3, 6).double(), torch.randn(3, 6).double()
    masks = [(torch.rand(3, 6) < 0.7).double() / 0.7 for _ in range(2)]
    found = []
    for cell in (ours, plain):
        outputs = cell(*inputs, *masks)
        gradients = torch.autograd.grad(outputs.pow(2).sum(), list(ours.parameters()))
        found.append([outputs, *gradients])
    assert all(gradient.abs().max() > 0 for gradient in found[1])
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-14)


def test_the_plain_search_cell_has_the_same_outputs_and_gradients_of_gates_and_weights() -> None:
    torch.manual_seed(0)
    ours = SearchCell(4, 6).double()
    plain = PlainSearchCell(ours).double()
    picks = [(e, (3 * e + 1) % 5) for e in range(ours.edges)]
    assert {k for _, k in picks} == set(range(5))
    gate_EK = torch.zeros(ours.edges, 5).double()
    for pick in picks:
        gate_EK[pick] = 1.0
    gate_EK.requires_grad_()
    inputs = torch.randn(5, 7, 6).double(), torch.randn(7, 6).double()
    found = []
    for cell in (ours, plain):
        outputs = cell(*inputs, picks, gate_EK)
        of = [gate_EK, *ours.parameters()]
        found.append([outputs, *torch.autograd.grad(outputs.pow(3).sum(), of)])
    assert found[1][1].abs().max() > 0
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", TEXT)
def test_text_contenders_take_the_same_steps(name: str) -> None:
    """After three steps of each the losses of all parts are equal."""
    size = KINDS[name].sizes["tiny"]
    contenders = KINDS[name].build(size, 3, ("plain", "ours"))
    losses: dict[str, list[float]] = {}
    for contender in ("plain", "ours"):
        losses[contender] = []
        for index in range(3):
            for step in contenders[contender]:
                seen = step(index)
                value = (
                    seen["train/loss"] if isinstance(seen, dict) else getattr(seen, "loss", seen)
                )
                losses[contender].append(torch.as_tensor(value).item())
    assert len(set(losses["ours"])) > 2
    assert losses["plain"] == pytest.approx(losses["ours"], rel=1e-4)


@pytest.mark.parametrize("name", list(KINDS))
def test_every_kind_of_step_is_measured(name: str) -> None:
    threads = torch.get_num_threads()
    try:
        size = KINDS[name].sizes["tiny"]
        result = measure(name, size, threads=1, repeats=2, memory=False)
    finally:
        torch.set_num_threads(threads)
    assert result["ratio"] > 0 and len(result["ours"]["cpu_seconds_of_repeats"]) == 2
    assert len(result["ours"]["cpu_seconds_of_parts"]) == len(KINDS[name].parts)
    shares = [share for _, share in result["top"]]
    assert len(shares) == 5 and 0 < sum(shares) <= 1 and shares == sorted(shares, reverse=True)


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own() -> None:
    """What this process holds does not count, what a step takes does."""
    held = torch.ones(1500 * 2**18)
    size = KINDS["search step"].sizes["tiny"]
    whole = memory_of("search step", "every operation", size)
    assert 0 < whole["step_mib"] < whole["peak_mib"] < resident_mib(peak=False)
    del held
    more = resident_mib(peak=True) - resident_mib(peak=False) + 200  # above any earlier peak

    def step(index: int) -> object:
        return torch.ones(int(more * 2**18)).sum()

    assert step_memory([step], 1)["step_mib"] == pytest.approx(more, abs=50)


def test_a_profile_names_what_takes_the_time() -> None:
    images, weight = torch.randn(8, 32, 32, 32), torch.randn(32, 32, 3, 3)
    other = torch.randn(4, 4, generator=Generator().manual_seed(0))

    def step(index: int) -> object:
        return torch.conv2d(images, weight, padding=1), other + other

    assert "conv" in top_operations([step], 0)[0][0]
    groups = group_seconds([step], 0)
    assert groups["convolutions"] > groups["additions"] > 0
