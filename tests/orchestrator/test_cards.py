"""A plan takes the hours of a search on a GPU from what was measured on one."""

from __future__ import annotations

import json

import pytest
import torch

from orchestrator.cost.cards import FILE, measured_card
from orchestrator.cost.clusters import print_clusters
from orchestrator.cost.estimate import GUESSED, MEASURED, Estimate, Estimator
from orchestrator.experiment.build import build_study
from orchestrator.experiment.load import load_experiment
from orchestrator.experiment.study import Study
from tests.gpu.cards import RESULTS, table


def headline(*overrides: str) -> Study:
    experiment = load_experiment("headline", list(overrides))
    return build_study(experiment, lambda data, split: f"{data.name}-{split}", {})


def of_search(*overrides: str) -> Estimate:
    found = headline(*overrides)
    return Estimator().estimate(next(job for job in found if job.label.startswith("search")))


def test_the_table_holds_what_the_pack_measured() -> None:
    assert FILE.read_text() == table(json.loads(RESULTS.read_text()))


def test_a_search_takes_its_measured_steps_and_the_passes_that_score_cells() -> None:
    found = of_search()
    ms = next(step.ms for step in measured_card().steps if step.settings["execution"] == "graph")
    steps = -(-25_000 // 128) * 240
    assert found.source == MEASURED
    assert 1.0 < found.seconds / (steps * ms / 1e3) < 1.01
    eager = of_search("search.recipe.execution=eager")
    assert eager.source == MEASURED
    assert eager.seconds > 3 * found.seconds
    quarter = of_search("search.resources.gpus=0.25")
    assert quarter.seconds == pytest.approx(4 * found.seconds)
    half = of_search("search.recipe.epochs=120")
    assert half.seconds == pytest.approx(found.seconds / 2, rel=0.01)


@pytest.mark.parametrize(
    "other",
    [
        "search.recipe.batch_size=64",
        "search.recipe.network.channels=32",
        "search.recipe.precision=bfloat16",
        "search.recipe.sampler.acceleration=false",
        "search.resources.device=cpu",
    ],
)
def test_what_was_not_measured_is_guessed(other: str) -> None:
    overrides = [other, "search.recipe.execution=eager"]
    if other.endswith("cpu"):
        overrides.append("search.resources.gpus=0")
    assert of_search(*overrides).source == GUESSED


def test_a_machine_with_another_card_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Another card")
    assert of_search().source == GUESSED
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: measured_card().name)
    assert of_search().source == MEASURED


def test_a_plan_for_clusters_names_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    print_clusters(headline(), Estimator(), "1,4", faster=2.0, price=None)
    out = capsys.readouterr().out
    assert measured_card().name in out
    searches = next(line for line in out.splitlines() if line.startswith("| search |"))
    assert "| 0.4 to 0.4 |" in searches  # --faster scales guesses alone
