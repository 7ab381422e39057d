"""Searches as CUDA graphs: asked for by a setting, refused where they cannot be, sharing a card."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gdas.cnn.config import SearchConfig
from gdas.errors import InputError
from gdas.rnn.config import TextSearchConfig
from orchestrator.cost.estimate import Estimator, sharing
from orchestrator.experiment.build import build_study, settings_of
from orchestrator.experiment.load import load_experiment
from orchestrator.experiment.study import Job
from orchestrator.run.checks import checked_study


def test_an_eager_search_is_hashed_as_before_there_were_graphs() -> None:
    assert "execution" not in settings_of(SearchConfig())
    graph = dataclasses.replace(SearchConfig(), execution="graph")
    assert settings_of(graph)["execution"] == "graph"
    assert settings_of(TextSearchConfig())["steps"] == 8


def test_a_search_as_graphs_is_refused_on_a_cpu_before_anything_starts(tmp_path: Path) -> None:
    experiment = load_experiment("smoke", ["search.recipe.execution=graph"])
    with pytest.raises(InputError, match=r"execution=graph: .*needs? a CUDA device"):
        checked_study(experiment, tmp_path)


def searches(*overrides: str) -> list[Job]:
    experiment = load_experiment("headline", list(overrides))
    study = build_study(experiment, lambda data, split: f"{data.name}-{split}", {})
    return [job for job in study if job.kind == "search"]


def test_proxies_and_searches_differ_by_execution_only_where_it_matters() -> None:
    graph, eager = searches(), searches("search.recipe.execution=eager")
    assert [job.id for job in graph] != [job.id for job in eager]
    assert all("execution" not in job.recipe["config"] for job in eager)


def test_four_searches_on_one_card_are_not_counted_on_to_gain_by_it() -> None:
    whole, quarter = searches()[0], searches("search.resources.gpus=0.25")[0]
    assert (sharing(whole), sharing(quarter)) == (1.0, 4.0)
    assert whole.id == quarter.id
    seconds = [Estimator().estimate(job).seconds for job in (whole, quarter)]
    assert seconds[1] == pytest.approx(4 * seconds[0])
