"""Random cells are of the space of the search that they stand beside, or that a final asks for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gdas.cnn.config import Derivation, SearchConfig, SupernetConfig
from gdas.cnn.genotype import Genotype
from gdas.errors import InputError
from gdas.presets import SEARCH_PRESETS
from gdas.rnn.config import TextSearchConfig
from gdas.rnn.genotype import RecurrentGenotype
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.load import load_experiment
from orchestrator.experiment.spaces import SPACES
from orchestrator.run.checks import checked_study, fixed_cells


def image_cells(config: SearchConfig, count: int) -> list[Genotype]:
    cells = [SPACES["image"].random(config, seed) for seed in range(count)]
    return [cell for cell in cells if isinstance(cell, Genotype)]


def recurrent_cells(config: TextSearchConfig, count: int) -> list[RecurrentGenotype]:
    cells = [SPACES["text"].random(config, seed) for seed in range(count)]
    return [cell for cell in cells if isinstance(cell, RecurrentGenotype)]


def test_the_papers_space_draws_the_cells_that_it_always_did() -> None:
    drawn: list[Any] = [cell.to_json() for cell in image_cells(SearchConfig(), 5)]
    fixed = SearchConfig(network=SupernetConfig(reduction="fixed"))
    drawn += [cell.to_json() for cell in image_cells(fixed, 5)]
    drawn += [cell.to_json() for cell in recurrent_cells(TextSearchConfig(), 5)]
    digest = hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()
    assert digest[:16] == "b84376b6fabf8f3f"


@pytest.mark.parametrize("nodes", [1, 2, 5, 7])
def test_a_random_cell_has_the_nodes_of_the_search(nodes: int) -> None:
    (cell,) = image_cells(SearchConfig(network=SupernetConfig(nodes=nodes)), 1)
    assert len(cell.normal) == len(cell.reduce or ()) == 2 * nodes


@pytest.mark.parametrize("steps", [1, 4, 11])
def test_a_random_recurrent_cell_has_the_steps_of_the_search(steps: int) -> None:
    (cell,) = recurrent_cells(TextSearchConfig(steps=steps), 1)
    assert len(cell.recurrent) == steps


def test_sources_are_shared_where_the_search_may_share_them() -> None:
    cells = image_cells(SEARCH_PRESETS["authors_2020"], 400)
    edges = [cell.normal for cell in cells]
    nodes = [e[i : i + 2] for e in edges for i in range(0, 8, 2)]
    assert all(a != b for a, b in nodes), "two different (operation, source) pairs"
    shared = [sum(e[i][1] == e[i + 1][1] for e in edges) / 400 for i in range(0, 8, 2)]
    # Of 7 n pairs, 6 of the 7 n - 1 others share the source; four standard errors of 400 draws.
    for n, share in zip((2, 3, 4, 5), shared, strict=True):
        expected = 6 / (7 * n - 1)
        assert abs(share - expected) < 4 * (expected * (1 - expected) / 400) ** 0.5
    usual = image_cells(SearchConfig(), 100)
    assert all(c.normal[i][1] != c.normal[i + 1][1] for c in usual for i in range(0, 8, 2))


def test_none_is_drawn_where_the_search_may_derive_it() -> None:
    open_none = SearchConfig(derivation=Derivation(exclude_none=False))
    drawn = [o for cell in image_cells(open_none, 200) for o, _ in cell.normal]
    assert abs(drawn.count("none") / len(drawn) - 1 / 8) < 4 * (7 / 64 / len(drawn)) ** 0.5
    states = [
        o
        for c in recurrent_cells(TextSearchConfig(exclude_none=False), 200)
        for o, _ in c.recurrent
    ]
    assert abs(states.count("none") / len(states) - 1 / 5) < 4 * (4 / 25 / len(states)) ** 0.5
    assert all(o != "none" for cell in image_cells(SearchConfig(), 50) for o, _ in cell.normal)


def experiment_of(tmp_path: Path, settings: dict[str, Any]) -> Experiment:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(settings))
    return load_experiment(str(path), [])


DIGITS: dict[str, Any] = {
    "search": {
        "seeds": [0],
        "recipe": {
            "data": {"name": "digits"},
            "epochs": 1,
            "batch_size": 16,
            "train_images": 64,
            "valid_images": 64,
        },
    },
    "proxy": {"recipe": {"auxiliary_weight": 0.0}},
}


def searches(**of_name: Any) -> dict[str, Any]:
    return {**DIGITS, "searches": of_name}


def test_a_study_draws_from_the_space_of_the_recipe(tmp_path: Path) -> None:
    five = {"network": {"nodes": 5}}
    settings = searches(
        five={"recipe": five, "against": "drawn"}, drawn={"recipe": five, "cells": "random"}
    )
    study = checked_study(experiment_of(tmp_path, settings), tmp_path)
    (proxy,) = [job for job in study if job.kind == "proxy" and not job.needs]
    assert len(proxy.recipe["genotype"]["normal"]) == 10


UNEQUAL: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "nodes": ({"network": {"nodes": 5}}, {}, "recipe.network.nodes=4 and not 5"),
    "reduction": ({"network": {"reduction": "fixed"}}, {}, "recipe.network.reduction=searched"),
    "none": ({"derivation": {"exclude_none": False}}, {}, "recipe.derivation.exclude_none=True"),
    "sources": ({}, {"derivation": {"distinct_sources": False}}, "distinct_sources=False"),
    "steps": (
        {"data": {"name": "prose"}, "steps": 4},
        {"data": {"name": "prose"}},
        "recipe.steps=8 and not 4",
    ),
}


@pytest.mark.parametrize("case", UNEQUAL)
def test_a_search_against_draws_of_another_space_is_refused(case: str, tmp_path: Path) -> None:
    ours, theirs, fault = UNEQUAL[case]
    found = {"a": {"recipe": ours, "against": "b"}, "b": {"recipe": theirs, "cells": "random"}}
    settings: dict[str, Any] = searches(**found) if case != "steps" else {"searches": found}
    with pytest.raises(InputError) as caught:
        experiment_of(tmp_path, settings)
    assert "searches.a.against=b" in str(caught.value) and fault in str(caught.value)
    assert "set searches.b.recipe." in str(caught.value)


def test_two_ways_of_searching_may_differ_in_their_derivation_not_in_their_cells_size(
    tmp_path: Path,
) -> None:
    open_none = {"recipe": {"derivation": {"exclude_none": False}}, "against": "b"}
    experiment_of(tmp_path, searches(a=open_none, b={}))
    with pytest.raises(InputError, match="of another space"):
        more = {"recipe": {"network": {"nodes": 5}}, "against": "b"}
        experiment_of(tmp_path, searches(a=more, b={}))


def final(cell: dict[str, Any], data: str = "digits") -> dict[str, Any]:
    own = {} if data != "digits" else {"auxiliary_weight": 0.0}
    return {"finals": {"drawn": {"cell": cell, "recipe": {"data": {"name": data}, **own}}}}


def test_a_finals_random_cell_says_its_space(tmp_path: Path) -> None:
    def drawn(cell: dict[str, Any], data: str = "digits") -> Any:
        return fixed_cells(experiment_of(tmp_path, final(cell, data)))["drawn"]

    space = {"nodes": 5, "distinct_sources": False, "exclude_none": False}
    config = SearchConfig(
        network=SupernetConfig(nodes=5),
        derivation=Derivation(distinct_sources=False, exclude_none=False),
    )
    assert drawn({"random": 3, **space}) == SPACES["image"].random(config, 3)
    assert drawn({"random": 3}) == SPACES["image"].random(SearchConfig(), 3)
    loose = TextSearchConfig(steps=4, exclude_none=False)
    cell = {"random": 3, "steps": 4, "exclude_none": False}
    assert drawn(cell, "prose") == SPACES["text"].random(loose, 3)
    for wrong, data, fault in (
        ({"random": 3, "steps": 4}, "digits", "cell.steps=4: convolutional cells"),
        ({"random": 3, "nodes": 4}, "prose", "cell.nodes=4: recurrent cells"),
        ({"random": 3, "nodes": 0}, "digits", "cell.nodes=0: must be from 1"),
        ({"published": "GDAS_V1", "nodes": 4}, "digits", "give cell.random a seed"),
    ):
        with pytest.raises(InputError, match=fault):
            drawn(wrong, data)
