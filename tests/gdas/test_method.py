"""Ways to search: what they draw, what runs, who learns; their state; a user's own."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from gdas.checkpoint import digest
from gdas.config import SamplerConfig
from gdas.data.arrow import Images
from gdas.errors import InputError
from gdas.method import (
    Evolution,
    Gumbel,
    Learner,
    Mixture,
    Uniform,
    check_method,
    method_of,
)
from tests.gdas.tiny import run_search, search_config
from tests.narrow import present
from tests.own_module import importable

BY_TYPE = SamplerConfig(scope="cell_type")
CODE = """
import torch
from gdas.sampler import Draw

class Good:
    weighs = False
    def draw(self, cell_type, logits_EK, tau, generator):
        gate_EK = torch.softmax(logits_EK, 1)
        return Draw(torch.multinomial(gate_EK, 1, generator=generator)[:, 0].tolist(), gate_EK)
    def runs(self, draw):
        return list(enumerate(draw.operations))

class Global(Good):
    def draw(self, cell_type, logits_EK, tau, generator):
        return super().draw(cell_type, logits_EK + torch.randn(()), tau, generator)

class Deaf(Good):
    def draw(self, cell_type, logits_EK, tau, generator):
        return super().draw(cell_type, logits_EK.detach(), tau, generator)

class Far(Good):
    def runs(self, draw):
        return [(99, 0)]

class Fails(Good):
    def runs(self, draw):
        raise KeyError("why")

class Lacking:
    weighs = False

class Asks(Good):
    def __init__(self, more):
        pass
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[None]:
    with importable(tmp_path, "own_method", CODE):
        yield


def test_the_settings_of_the_sampler_name_a_method() -> None:
    assert method_of(SamplerConfig()) == Gumbel()
    assert method_of(SamplerConfig(acceleration=False)) == Gumbel(all_run=True)
    assert method_of(SamplerConfig(relaxation="soft")) == Gumbel(soft=True)
    assert method_of(SamplerConfig(relaxation="softmax")) == Mixture()
    assert method_of(SamplerConfig(method="random")) == Uniform()
    assert isinstance(method_of(SamplerConfig(method="evolution", scope="cell_type")), Evolution)
    learners = [isinstance(m, Learner) for m in (Gumbel(), Mixture(), Uniform(), Evolution())]
    assert learners == [False, False, True, True]


def test_uniform_draws_take_every_operation_equally_often_and_leave_the_logits_alone(
    small_digits: Images,
) -> None:
    drawn = torch.zeros(8)
    noise = torch.Generator().manual_seed(0)
    a_EK = torch.randn(1000, 8)
    for k in Uniform().draw("normal", a_EK, 1.0, noise).operations:
        drawn[k] += 1
    assert float(((drawn - 125) ** 2 / 125).sum()) < 24.3, "chi-squared, false alarm 0.001"
    config = search_config(sampler=SamplerConfig(method="random"), epochs=2)
    first, last = (deepcopy(segment) for segment in run_search(config, small_digits))
    before, after = present(first.state), present(last.state)
    assert digest(before["logits"]) == digest(after["logits"])
    assert digest(before["weights"]) != digest(after["weights"])


def test_evolution_finds_the_best_operation_where_one_is_better() -> None:
    """A loss that counts the edges without operation 2."""
    method, noise = Evolution(), torch.Generator().manual_seed(1)
    logits = {"normal": torch.zeros(5, 4, requires_grad=True)}
    for step in range(400):
        draw = method.draw("normal", logits["normal"], 1.0, noise)
        runs = method.runs(draw)
        if step >= 32:  # a child differs from a member in one edge
            differs = [
                sum(a != b for a, b in zip(draw.operations, member, strict=True))
                for member in method.members["normal"]
            ]
            assert min(differs) <= 1
        method.learn(logits, {"normal": runs}, float(sum(k != 2 for _, k in runs)))
    assert len(method.losses) == len(method.members["normal"]) == method.population
    assert logits["normal"].argmax(1).tolist() == [2] * 5
    counts_EK = logits["normal"].detach().exp() - 1
    assert counts_EK.sum(1).tolist() == pytest.approx([32.0] * 5, abs=1e-3)


def test_evolution_goes_on_exactly(small_digits: Images) -> None:
    sampler = SamplerConfig(method="evolution", scope="cell_type")
    config = search_config(sampler=sampler, epochs=2)
    whole = run_search(config, small_digits)
    half = deepcopy(present(next(whole).state))
    assert len(half["method"]["losses"]) == 2, "an alpha step each"
    (last,), (again,) = whole, run_search(config, small_digits, checkpoint=half)
    assert digest(again.state) == digest(last.state)
    assert len(present(last.state)["method"]["members"]["reduce"]) == 4


def test_methods_that_learn_by_gradient_leave_no_state_of_their_own(small_digits: Images) -> None:
    """So checkpoints and digests are those from before there were methods."""
    (segment,) = run_search(search_config(epochs=1), small_digits)
    assert "method" not in present(segment.state)


def test_an_own_method_that_learns_by_gradient_moves_the_logits(
    own: None, small_digits: Images
) -> None:
    sampler = SamplerConfig(method="own_method:Good")
    check_method(sampler)
    (segment,) = run_search(search_config(sampler=sampler, epochs=1), small_digits)
    state = present(segment.state)
    assert "method" not in state and state["alpha_optimizer"]["state"], "Adam's"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Goood", "no such function in it; did you mean Good?"),
        ("Global", "draws otherwise from the same generator"),
        ("Deaf", "its gates have no gradient for the logits"),
        ("Far", "runs [(99, 0)]"),
        ("Fails", "fails, KeyError: 'why'"),
        ("Lacking", "has no draw"),
        ("Asks", "when it is called without arguments"),
    ],
)
def test_an_own_method_that_would_mislead_is_refused_in_one_line(
    own: None, name: str, said: str
) -> None:
    with pytest.raises(InputError) as refused:
        check_method(SamplerConfig(method=f"own_method:{name}"))
    assert str(refused.value).startswith(f"sampler.method=own_method:{name}: ")
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "evolutoin"}, "unknown; did you mean evolution?"),
        ({"method": "evolution"}, "scope=cell_instance: evolution scores whole cells"),
        ({"method": "random", "relaxation": "softmax"}, "leave relaxation=hard"),
        ({"method": "random", "scope": "data_sample"}, "use scope=cell_type"),
    ],
)
def test_settings_that_contradict_a_method_are_refused(changes: dict[str, str], said: str) -> None:
    with pytest.raises(InputError) as refused:
        SamplerConfig(**changes)  # type: ignore[arg-type]
    assert said in str(refused.value)
