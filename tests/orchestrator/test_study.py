"""Jobs, what they wait for, and their ids: what changes an id and what does not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import gdas
from gdas.cnn.genotype import PUBLISHED
from gdas.data.settings import AnyImageData, PhotoData, TableData, TextData
from gdas.errors import InputError
from orchestrator.experiment.build import build_study
from orchestrator.experiment.load import load_experiment
from orchestrator.experiment.study import Study


def identity(data: AnyImageData | TextData | TableData, split: str) -> str:
    return f"photos-100-{split}" if isinstance(data, PhotoData) else f"{data.name}-{split}"


SMALL = str(Path(__file__).with_name("small.yaml"))


def study(*overrides: str, name: str = SMALL) -> Study:
    """The image half of an experiment, unless a test asks for all of it."""
    experiment = load_experiment(name, list(overrides))
    images = dataclasses.replace(
        experiment,
        searches={k: v for k, v in experiment.searches.items() if v.recipe.task == "image"},
        finals={k: v for k, v in experiment.finals.items() if v.recipe.task == "image"},
        measures={},
    )
    published = {
        name: PUBLISHED[final.cell.published].to_json()
        for name, final in images.finals.items()
        if final.cell.published
    }
    return build_study(images, identity, published)


def ids(found: Study) -> dict[str, str]:
    return {job.label: job.id for job in found}


def changed(*overrides: str) -> set[str]:
    """Labels of the jobs whose id an override changes."""
    before, after = ids(study()), ids(study(*overrides))
    return {label for label in before | after if before.get(label) != after.get(label)}


ALL = {f"search-gdas-frc-seed{i}" for i in range(4)} | {
    "select-gdas-frc",
    "train-gdas-frc-digits",
}


def test_the_graph_is_searches_then_selection_then_final() -> None:
    found = study()
    assert [job.kind for job in found] == ["search"] * 4 + ["select", "train"]
    select, final = found.jobs[4], found.jobs[5]
    assert set(select.needs) == {job.id for job in found.jobs[:4]}
    assert final.needs == (select.id,)


def test_with_proxies_the_selection_waits_for_them_and_each_for_its_search() -> None:
    found = study("search.select_by=proxy", "searches.gdas-frc.proxy.epochs=1")
    proxies = [job for job in found if job.kind == "proxy"]
    searches = [job for job in found if job.kind == "search"]
    assert [p.needs for p in proxies] == [(s.id,) for s in searches]
    select = next(job for job in found if job.kind == "select")
    assert set(select.needs) == {job.id for job in proxies}


def test_a_setting_changes_what_depends_on_it_and_nothing_else() -> None:
    assert changed("search.recipe.epochs=4") == ALL
    assert changed("final.recipe.epochs=5") == {"train-gdas-frc-digits"}
    assert changed("searches.gdas-frc.seeds=[0,1,2,5]") == {
        "search-gdas-frc-seed3",
        "search-gdas-frc-seed5",
        "select-gdas-frc",
        "train-gdas-frc-digits",
    }


def test_resources_and_names_change_no_id() -> None:
    assert changed("search.resources.threads=2", "final.resources.workers=2", "retries=5") == set()


def test_the_algorithms_version_and_the_data_change_every_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = ids(study())
    everything = load_experiment("smoke", [])
    other = build_study(everything, lambda data, split: f"other {data.name} {split}", {})
    assert not set(ids(other).values()) & set(before.values())
    monkeypatch.setattr(gdas, "ALGORITHM_VERSION", gdas.ALGORITHM_VERSION + 1)
    assert not set(ids(study()).values()) & set(before.values())


def test_a_search_does_not_depend_on_the_test_split() -> None:
    def without_test(data: AnyImageData | TextData | TableData, split: str) -> str:
        return identity(data, split) if split != "test" else "gone"

    found = build_study(load_experiment("smoke", []), without_test, {})
    before, after = ids(build_study(load_experiment("smoke", []), identity, {})), ids(found)
    changed_ids = {k for k in before if before[k] != after[k]}
    finals = {f"train-gdas-{name}" for name in ("frc-digits", "frc-photos", "rnn-prose")}
    assert changed_ids == finals


def test_equal_finals_are_one_job() -> None:
    cells = {name: PUBLISHED["GDAS_V1"].to_json() for name in ("one", "two")}
    overrides = [f"finals.{name}.cell.published=GDAS_V1" for name in cells]
    found = build_study(load_experiment("smoke", overrides), identity, cells)
    assert len([job for job in found if job.kind == "train"]) == 4
    assert found.final("one") == found.final("two") != []


def test_recurrent_cells_come_by_the_same_graph() -> None:
    found = build_study(load_experiment("smoke", []), identity, {})
    proxies = [job for job in found if job.kind == "proxy" and "rnn" in job.name]
    assert [job.name for job in proxies] == [f"gdas-rnn-seed{i}" for i in range(4)]
    assert [job.name for job in found.searches("gdas-rnn")] == [job.name for job in proxies]
    (final,) = found.final("gdas-rnn-prose")
    assert set(final.recipe["data"]) == {"train", "valid", "test"}
    assert set(proxies[0].recipe["data"]) == {"train", "valid"}, "no job but a final reads test"


def test_only_keeps_what_is_named_and_what_it_needs() -> None:
    found = study()
    assert [job.label for job in found.only(["search-gdas-frc-seed2"])] == ["search-gdas-frc-seed2"]
    assert len(found.only(["gdas-frc-digits"]).jobs) == 6
    assert [job.kind for job in found.only(["search-"])] == ["search"] * 4
    with pytest.raises(KeyError, match="nothing"):
        found.only(["nothing"])


def test_random_cells_are_scored_and_selected_without_a_search() -> None:
    overrides = [
        "search.select_by=proxy",
        "searches.drawn.cells=random",
        "searches.drawn.recipe.network.reduction=fixed",
        "searches.gdas-frc.against=drawn",
        "finals.best-drawn.cell.searched=drawn",
    ]
    found = study(*overrides)
    scored = found.scored("drawn")
    assert [job.kind for job in scored] == ["proxy"] * 4
    assert found.searches("drawn") == []
    assert all(job.needs == () for job in scored)
    cells = [job.recipe["genotype"] for job in scored]
    assert len({str(cell) for cell in cells}) == 4
    # The same halves of the data and the same budget as the searched cells of the same seed.
    for drawn, searched in zip(scored, found.scored("gdas-frc"), strict=True):
        assert drawn.recipe["search"]["seed"] == searched.recipe["search"]["seed"]
        assert drawn.recipe["config"] == searched.recipe["config"]
    (final,) = found.final("best-drawn")
    assert final.needs == (found.selections["drawn"],)


def test_a_final_may_be_repeated_with_other_seeds() -> None:
    (once,) = study().final("gdas-frc-digits")
    repeated = study("finals.gdas-frc-digits.seeds=[0, 1, 2]").final("gdas-frc-digits")
    assert [job.recipe["config"]["seed"] for job in repeated] == [0, 1, 2]
    assert repeated[0].id == once.id, "what was trained stays trained"


def test_a_combined_cell_waits_for_both_of_its_searches_and_table_5_shares_jobs() -> None:
    experiment = load_experiment("paper", [])
    cells = {"darts-cutout-cifar100": PUBLISHED["DARTS_V2"].to_json()}
    found = build_study(experiment, identity, cells)
    (mixed,) = found.final("normal-frc-reduction-gdas")
    assert set(mixed.needs) == {found.selections["gdas"], found.selections["gdas-frc"]}
    assert found.final("normal-gdas-reduction-gdas") == found.final("gdas-cutout-cifar10")
    assert found.final("normal-frc-reduction-fixed") == found.final("gdas-frc-cutout-cifar10")
    (fixed,) = found.final("normal-gdas-reduction-fixed")
    assert fixed.needs == (found.selections["gdas"],)


def test_a_final_without_its_data_is_left_out_where_the_settings_say_so() -> None:
    def no_photos(data: Any, split: str) -> str:
        if data.name == "imagenet":
            raise InputError("no ImageNet at data/imagenet")
        return f"{data.name}-{split}"

    experiment = load_experiment("paper", [])
    cells = {"darts-cutout-cifar100": PUBLISHED["DARTS_V2"].to_json()}
    found = build_study(experiment, no_photos, cells)
    assert found.left_out == {
        "gdas-imagenet": "no ImageNet at data/imagenet",
        "gdas-frc-imagenet": "no ImageNet at data/imagenet",
    }
    assert found.final("gdas-imagenet") == []
    refusing = load_experiment("paper", ["finals.gdas-imagenet.without_data=refuse"])
    with pytest.raises(InputError, match="no ImageNet"):
        build_study(refusing, no_photos, cells)
