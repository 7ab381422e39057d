"""Lookups in NAS-Bench-201: their settings, and the tables that are refused before any start."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.genotype import ACCURACIES
from gdas.bench201.table import read_table
from gdas.errors import InputError
from orchestrator.experiment.build import build_study
from orchestrator.experiment.load import load_experiment
from orchestrator.reproduce_paper import main
from orchestrator.run.checks import identity, prepare_data
from orchestrator.store.store import Store
from tests.orchestrator.bench201_study import YAML, study_of, write_table


def test_the_table_and_the_lookups_settings_change_lookups_alone(
    bench201_data: Path, tmp_path: Path
) -> None:
    def ids(folder: Path, *overrides: str) -> dict[str, str]:
        study = study_of(load_experiment(str(YAML), list(overrides)), folder)
        return {job.label: job.id for job in study}

    before = ids(bench201_data)
    (tmp_path / "nasbench201").mkdir()
    (tmp_path / "nasbench201" / "nasbench201.csv").write_text("another")
    for after in (ids(tmp_path), ids(bench201_data, "bench201_search.lookup.best_of=2")):
        changed = {label for label in before if before[label] != after[label]}
        assert changed == {label for label in before if label.startswith("lookup-")}
    after = ids(bench201_data, "searches.gdas.recipe.epochs=2")
    assert {label for label in before if before[label] != after[label]} == {
        *(f"{kind}-gdas-seed{i}" for kind in ("search", "lookup") for i in (0, 1)),
        "select-gdas",
    }


def refused(capsys: pytest.CaptureFixture[str], data: Path, *words: str) -> str:
    """The one line of a refusal, before Ray is started or anything is written."""
    assert main([str(YAML), *words, "--data", str(data), "--out", str(data / "out")]) == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1 and output.err.startswith("error: ")
    assert not list((data / "out").glob("jobs/*"))
    return output.err


def test_a_missing_or_damaged_table_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "nasbench201.csv: cannot read the table" in refused(capsys, tmp_path)
    write_table(tmp_path, without=1)
    assert "15624 of the 15625 cells" in refused(capsys, tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bench201_search.lookup.best_of=7", r"best_of=7: must be from 1 to cells=6"),
        ("bench201_search.lookup.cells=1", "cells=1: must be 2 or more"),
        ("bench201_search.lookup.images=65", r"lookup.images=65: larger than D_V \(64\)"),
        ("bench201_search.lookup.column=cifar10", "lookup.column=cifar10: must be cifar10_test"),
        ("searches.gdas.select_by=proxy", "NAS-Bench-201 cells are selected by shared_weights"),
        ("searches.gdas.proxy={epochs: 1}", "proxy: NAS-Bench-201 cells are not trained"),
        ("searches.gdas.preset=paper", "preset paper has no search for NAS-Bench-201 cells; use"),
        ("searches.gdas.recipe.task=bench202", "task=bench202: unknown; did you mean bench201"),
        ("searches.gdas.recipe.network={}", "network: unknown key"),
        ("searches.frc={lookup: {}}", "only cells of NAS-Bench-201"),
        ("finals.x={cell: {searched: gdas}}", "searches for cells of the other kind"),
    ],
)
def test_bad_settings_are_refused(bench201_data: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        study_of(load_experiment(str(YAML), [override]), bench201_data)


def test_the_search_starts_from_the_benchmarks_settings() -> None:
    search = load_experiment(str(YAML), []).searches["gdas"]
    assert search.preset == "authors_2020"
    assert search.proxy is None and search.select_by == "shared_weights"
    assert search.recipe.weights == Bench201SearchConfig().weights
    assert search.recipe.data.name == "digits"


def test_all_the_tables_columns_can_be_looked_up(bench201_data: Path) -> None:
    for column in ACCURACIES:
        experiment = load_experiment(str(YAML), [f"bench201_search.lookup.column={column}"])
        assert json.dumps(dataclasses.asdict(experiment))
        assert len(list(study_of(experiment, bench201_data))) == 10


CIFAR100 = "bench201_search.recipe.data={name: cifar100}"


@pytest.mark.parametrize(
    ("overrides", "column"),
    [
        (["bench201_search.recipe.data={name: cifar10}"], "cifar10_test_200"),
        ([CIFAR100], "cifar100_test_200"),
        ([CIFAR100, "bench201_search.lookup={}"], "cifar100_test_200"),
        ([CIFAR100, "bench201_search.lookup.column=cifar10_valid_12"], "cifar10_valid_12"),
        ([], "cifar10_test_200"),
    ],
)
def test_a_search_is_looked_up_in_the_column_of_its_own_images(
    overrides: list[str], column: str, bench201_data: Path
) -> None:
    experiment = load_experiment(str(YAML), [*overrides, "bench201_search.lookup.images=32"])
    jobs = build_study(experiment, partial(identity, bench201_data), {})
    found = {job.recipe["lookup"]["column"] for job in jobs if job.kind == "lookup"}
    assert found == {column}


def swapped(values: list[str]) -> list[str]:
    """CIFAR-100's accuracies under CIFAR-10's title, and the other way round."""
    return [*values[:2], values[3], values[2], *values[4:]]


def errors(values: list[str]) -> list[str]:
    return [*values[:2], *(str(100 - float(value)) for value in values[2:])]


def one_fraction(values: list[str]) -> list[str]:
    return [*values[:2], "0.9" if values[0] == "777" else values[2], *values[3:]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (swapped, r"cifar10_test_200: \|none~0\|\S+ has 1, and guessing gives 10; must be"),
        (errors, r"cifar10_test_200: \|none~0\|\S+ can only guess and has 90, not 10; .*errors"),
        (one_fraction, r"cifar10_test_200: \S+ has 0\.9, and guessing .* multiply fractions"),
    ],
)
def test_a_table_whose_numbers_cannot_be_what_its_titles_say_is_refused_before_anything_starts(
    change: Callable[[list[str]], list[str]], said: str, tmp_path: Path
) -> None:
    head, *lines = write_table(tmp_path).read_text().splitlines()
    rows = [head, *(",".join(change(line.split(","))) for line in lines)]
    (tmp_path / "nasbench201" / "nasbench201.csv").write_text("\n".join(rows))
    study = study_of(load_experiment(str(YAML), []), tmp_path)
    with pytest.raises(InputError, match=said):
        prepare_data(study, Store(tmp_path / "out"), tmp_path)


def test_a_table_in_fractions_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path)
    lines = path.read_text().splitlines()
    place = lines[0].split(",").index("cifar100_test_200")
    with path.open("w") as file:
        file.write(lines[0] + "\n")
        for line in lines[1:]:
            values = line.split(",")
            values[place] = str(float(values[place]) / 100)
            file.write(",".join(values) + "\n")
    with pytest.raises(InputError, match=r"cifar100_test_200: no value is above 1 .* by 100"):
        read_table(path)
