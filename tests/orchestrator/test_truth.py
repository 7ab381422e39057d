"""Searches of NAS-Bench-201 from settings to the report, without Ray; the table stays closed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import uuid
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.genotype import (
    bench201_from_json,
    bench201_from_string,
)
from gdas.bench201.table import read_table
from gdas.checkpoint import digest, newest
from gdas.data.images import open_images
from orchestrator.compare import results
from orchestrator.cost.estimate import PROCESS, estimated_bytes, estimated_seconds
from orchestrator.cost.plan import standing
from orchestrator.experiment.load import load_experiment
from orchestrator.report.figures.truth import Row, distribution_figure, epochs_figure
from orchestrator.report.paired import Way, contests, corrected
from orchestrator.report.parts import markdown_of
from orchestrator.report.report import write_report
from orchestrator.report.searches import track
from orchestrator.report.statistics import uniform_p
from orchestrator.report.truth import _methods, _other_images, choice, contests_of
from orchestrator.report.view import Results
from orchestrator.store.data import data_sets, publish
from orchestrator.store.failure import read_failure
from orchestrator.store.job_folder import JobFolder
from orchestrator.store.results import (
    Distribution,
    LookupResult,
    Result,
    SearchResult,
    StudyFile,
)
from orchestrator.store.storage import open_storage
from orchestrator.store.store import Store
from orchestrator.work.lookup import run_lookup, uniform_cells
from tests.cloud import Server
from tests.narrow import narrow, present
from tests.orchestrator.bench201_study import (
    COLUMN,
    YAML,
    Ran,
    opened_files,
    run_without_ray,
    without_times,
)
from tests.orchestrator.contract import assert_is, assert_job_is
from tests.orchestrator.written import NO_DATA


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, bench201_data: Path) -> Ran:
    return run_without_ray(
        load_experiment(str(YAML), []), tmp_path_factory.mktemp("out"), bench201_data
    )


def test_lookups_are_compared_as_every_job_is(ran: Ran) -> None:
    rows = [row[0] for row in results([(ran.store, ran.study)])]
    for job in ran.study:
        assert any(row.startswith(f"{job.label}  ") for row in rows), job.label


def test_the_graph_is_searches_a_lookup_each_and_a_selection(ran: Ran) -> None:
    kinds = [job.kind for job in ran.study]
    assert kinds == ["search", "search", "select", "lookup", "lookup"] * 2
    for name in ran.experiment.searches:
        lookups, searches = ran.study.lookups_of(name), ran.study.searches(name)
        assert [job.needs for job in lookups] == [(search.id,) for search in searches]
        assert [job.label for job in lookups] == [f"lookup-{name}-seed{i}" for i in (0, 1)]
        assert all(estimated_seconds(job) > 0 for job in (*lookups, *searches))
        assert all(estimated_bytes(job) > PROCESS for job in (*lookups, *searches))
    assert all(standing(job, ran.store) == "done" for job in ran.study)


def test_the_table_is_opened_by_lookups_alone(ran: Ran) -> None:
    assert any("nasbench201" in path for path in ran.opened["lookup"])
    assert ran.opened["search"], "the hook sees what searches open"
    assert not [path for path in ran.opened["search"] if "nasbench201" in path]


def test_a_search_cannot_open_the_table() -> None:
    """The module that can is none of those that searching brings along."""
    code = (
        "import sys, gdas.search, orchestrator.work.search; "
        "assert 'gdas.bench201.space' in sys.modules; "
        "sys.exit('gdas.bench201.table' in sys.modules)"
    )
    import subprocess

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_lookup_before_its_search_has_ended_is_refused(
    ran: Ran, bench201_data: Path, tmp_path: Path
) -> None:
    study, store = ran.study, Store(tmp_path)
    (lookup, *_), (search, *_) = study.lookups_of("gdas"), study.searches("gdas")
    store.prepare(search, {"data": str(bench201_data)})
    folder = store.prepare(lookup, {"data": str(bench201_data)})
    with opened_files() as opened, pytest.raises(PermissionError, match="the table stays closed"):
        run_lookup(str(folder.path))
    assert not [path for path in opened if "nasbench201" in path]
    assert read_failure(folder.place) is not None and folder.result() is None


def test_every_cell_is_looked_up_as_the_table_has_it(ran: Ran, bench201_data: Path) -> None:
    table = read_table(bench201_data / "nasbench201" / "nasbench201.csv")
    for name in ran.experiment.searches:
        searches, lookups = ran.searches(name), ran.lookups(name)
        for seed, (job, search, found) in enumerate(
            zip(ran.study.searches(name), searches, lookups, strict=True)
        ):
            derived = bench201_from_json(search["genotype"])
            expected = table.standing(derived, COLUMN)._asdict()
            assert found["derived"] == {"cell": str(derived), **expected}
            assert found["epochs"][-1] == {"epoch": 3, **found["derived"]}
            cells = [r["details"]["genotype"]["cell"] for r in ran.store.folder(job).records()]
            assert [epoch["cell"] for epoch in found["epochs"]] == cells
            best = max(found["scored"][:3], key=lambda scored: scored[1])
            assert found["best_of"]["cell"] == best[0] and found["best_of"]["k"] == 3
            assert [cell for cell, _, _ in found["scored"]] == [
                str(cell) for cell in uniform_cells(seed, "uniform cells", 6)
            ]
            for cell, _, accuracy in found["scored"]:
                assert accuracy == table.standing(bench201_from_string(cell), COLUMN).accuracy
    uniform = [[r["uniform"]["cell"] for r in ran.lookups(n)] for n in ("gdas", "darts")]
    assert uniform[0] == uniform[1] and len(set(uniform[0])) == 2, "the seeds' own, in every search"


def test_records_of_a_lookup_are_the_epochs_of_its_search(ran: Ran) -> None:
    lookup = ran.study.lookups_of("gdas")[0]
    records, (result, _) = ran.store.folder(lookup).records(), ran.lookups("gdas")
    assert [(r["position"], r["of"]) for r in records] == [(1, 3), (2, 3), (3, 3)]
    accuracies = [epoch["accuracy"] for epoch in result["epochs"]]
    assert [r["metrics"]["derived/accuracy"] for r in records] == accuracies
    assert result["metrics"]["uniform/percentile"] == result["uniform"]["percentile"]


def test_a_lookup_killed_before_its_result_is_done_again_to_the_same_figures(
    ran: Ran, tmp_path: Path
) -> None:
    lookup, search = ran.study.lookups_of("gdas")[0], ran.study.searches("gdas")[0]
    for job in (lookup, search):
        shutil.copytree(ran.store.folder(job).path, tmp_path / ran.store.folder(job).path.name)
    folder = JobFolder.open(tmp_path / ran.store.folder(lookup).path.name)
    before, records = folder.result(), folder.records()
    (folder.path / "result.json").unlink()
    run_lookup(str(folder.path))
    assert without_times(present(folder.result())) == without_times(present(before))
    assert [r["metrics"] for r in folder.records()] == [r["metrics"] for r in records]


def test_a_lookup_leaves_what_the_contract_says(ran: Ran) -> None:
    lookup = ran.store.folder(ran.study.lookups_of("gdas")[0])
    assert_job_is(lookup, LookupResult)
    assert_is(json.loads((lookup.path / "distribution.json").read_text()), Distribution)
    assert_job_is(ran.store.folder(ran.study.searches("gdas")[0]), SearchResult)
    assert_is(ran.store.study(), StudyFile)


def test_a_lookup_on_an_object_store_finds_the_same(
    ran: Ran, bench201_data: Path, aws: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDAS_CACHE", str(tmp_path / "cache"))
    lookup, search = ran.study.lookups_of("gdas")[0], ran.study.searches("gdas")[0]
    store = Store(f"s3://bucket/{uuid.uuid4().hex}")
    storage = open_storage(store.address)
    there, source = storage.under("data"), ran.store.folder(search).path
    publish(bench201_data, there, data_sets(lookup.recipe))
    for file in [path for path in source.rglob("*") if path.is_file()]:
        storage.put(file, f"jobs/{source.name}/{file.relative_to(source)}")
    store.refresh()
    run_lookup(store.prepare(lookup, {"data": there.address}).address)
    store.refresh()
    before, after = ran.store.folder(lookup).result(), store.folder(lookup).result()
    assert before is not None and after is not None
    times = {"seconds", "best_of_seconds"}
    assert {k: v for k, v in after.items() if k not in times} == {
        k: v for k, v in before.items() if k not in times
    }
    name = "distribution.json"  # the report's figure of all cells is drawn from it
    of_folder = (ran.store.folder(lookup).path / name).read_text()
    assert (store.folder(lookup).path / name).read_text() == of_folder


def test_cells_are_scored_with_the_weights_that_the_search_left(
    ran: Ran, bench201_data: Path
) -> None:
    from gdas.bench201.space import score_with_shared_weights
    from tests.gdas.tiny import CPU

    search, lookup = ran.study.searches("gdas")[1], ran.lookups("gdas")[1]
    config = ran.experiment.searches["gdas"].recipe
    assert isinstance(config, Bench201SearchConfig)
    config = dataclasses.replace(config, seed=1, valid_images=32)
    checkpoint, _ = newest(ran.store.folder(search).checkpoints)
    assert checkpoint is not None and checkpoint.position == 3
    assert digest(checkpoint.state) == ran.searches("gdas")[1]["digest"]
    images = open_images("digits", "train", bench201_data)
    cell, found, _ = next(s for s in lookup["scored"] if s[1] != 10.0)
    (score,) = score_with_shared_weights(
        config, images, checkpoint.state, [bench201_from_string(cell)], CPU
    )
    assert score.top1 == found


def test_a_random_search_chooses_the_best_by_its_shared_weights(ran: Ran) -> None:
    specs = dict(ran.experiment.searches)
    found = {name: ran.lookups(name) for name in specs}
    darts = specs["darts"]
    sampler = dataclasses.replace(darts.recipe.sampler, method="random", relaxation="hard")
    recipe = dataclasses.replace(darts.recipe, sampler=sampler)
    specs["darts"] = dataclasses.replace(darts, recipe=recipe)
    methods = _methods(specs, found)
    chosen = [m for m in methods if m.chosen]
    assert [m.name.partition(" (")[0] for m in chosen] == [
        "gdas: derived cell",
        "darts: best of 3 uniform cells by its shared weights",
    ]
    assert not [m.name for m in methods if m.name.startswith("darts: derived")]
    best = {r["seed"]: r["best_of"] for r in found["darts"]}
    assert chosen[1].standings == best
    assert [choice(specs["darts"], r) for r in found["darts"]] == list(best.values())
    assert choice(specs["gdas"], found["gdas"][0]) == found["gdas"][0]["derived"]


def test_comparisons_that_are_not_run_yet_are_corrected_for(ran: Ran) -> None:
    percentiles = dict.fromkeys(range(4), 99.0)
    found = contests(Way("ours", percentiles), [], [50, 50])
    assert corrected(found, 5) == pytest.approx([min(1.0, 5 * found[0].p)])
    assert corrected(found, 1) == corrected(found, 0) == [found[0].p]
    # Two seeds are too few for any comparison.
    assert contests_of(Results(ran.experiment, ran.study, ran.store)) == []


def test_the_report_says_where_every_seed_landed(ran: Ran) -> None:
    path = write_report(Results(ran.experiment, ran.study, ran.store))
    report = (path.parent / "report.md").read_text()
    assert "The truth of NAS-Bench-201" in report
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in report.splitlines()}
    for name, how in (("gdas", "hard draws, as GDAS"), ("darts", "softmax weights, as DARTS")):
        lookups = ran.lookups(name)
        row = next(line for key, line in rows.items() if key.startswith(name) and how in key)
        assert ", ".join(f"{r['derived']['accuracy']:.2f}" for r in lookups) in row
        best = rows[f"{name}: best of 3 uniform cells by its shared weights"]
        assert ", ".join(f"{r['best_of']['accuracy']:.2f}" for r in lookups) in best
        mean = np.mean([r["derived"]["percentile"] for r in lookups])
        assert f"mean percentile {mean:.1f} against 50 over 2 seeds" in report
    assert rows["a uniformly drawn cell"].split(" | ")[1] == "2"
    draws = [
        sum(
            r["metrics"][f"{half}/{key}"]
            for job in ran.study.searches("gdas")
            for r in ran.store.folder(job).records()
        )
        for half in ("train", "valid")
        for key in ("no_path", "draws")
    ]
    lost_w, all_w, lost_a, all_a = map(int, draws)
    assert all_w == all_a == 2 * 3 * 4 and lost_w + lost_a > 0
    assert f"| gdas | {lost_w} of {all_w} (" in report and f"| {lost_a} of {all_a} (" in report
    assert "| darts | nothing is drawn | nothing is drawn |" in report
    differ = report[report.index("The searches differ") : report.index("| method |")]
    assert [line for line in differ.splitlines() if line.startswith("|")] == [
        "| setting | gdas | darts |",
        "| --- | --- | --- |",
        "| `sampler.relaxation` | hard | softmax |",
    ]
    assert "gdas against darts: mean percentile" in report
    assert "(permutation test, exact)" in report, "two against two"
    for figure in (f"truth-{COLUMN}.png", f"truth-epochs-{COLUMN}.png"):
        assert (path.parent / figure).stat().st_size > 10_000
        assert f"]({figure})" in report
    assert ".png" not in path.read_text(), "the page is one file"


def test_random_search_alone_has_no_cells_over_the_epochs(
    ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.report import truth

    monkeypatch.setattr(truth, "_is_random", lambda spec: True)
    report = markdown_of(truth.truth(Results(ran.experiment, ran.study, ran.store)))
    assert "percentile" in report and "over the epochs" not in report


def test_a_part_of_a_study_lists_its_seeds_without_their_selection(
    ran: Ran, tmp_path: Path
) -> None:
    name = next(iter(ran.experiment.searches))
    part = ran.study.only([f"lookup-{name}"])
    assert part.selection(name) is None
    assert part.searches(name) == ran.study.searches(name)
    assert part.only([f"search-{name}-seed1"]).searches(name) == ran.study.searches(name)[1:]
    report = markdown_of(track(name, Results(ran.experiment, part, at(ran, tmp_path))))
    assert len([line for line in report.splitlines() if line.startswith(("| 0 |", "| 1 |"))]) == 2


def at(ran: Ran, folder: Path) -> Store:
    """A copy of what ran, with a report's folder."""
    shutil.copytree(ran.store.out, folder / "out")
    (folder / "out" / "report").mkdir(exist_ok=True)
    return Store(folder / "out")


def test_a_search_that_is_no_better_is_called_so(ran: Ran, tmp_path: Path) -> None:
    """Every lookup says the middle cell, then the best one."""
    from orchestrator.report.truth import truth

    for percentile, word in ((50.0, "is not better"), (99.9, "is better")):
        store = Store(tmp_path / str(percentile))
        (store.out / "report").mkdir()
        for job in ran.study:
            if job.kind in ("search", "lookup"):
                source, folder = ran.store.folder(job), store.prepare(job, NO_DATA)
                folder.rewrite_records(source.records())
                result: Result = present(source.result())
                if job.kind == "lookup":
                    result = looked_up = present(source.result(LookupResult))
                    looked_up["derived"]["percentile"] = percentile
                    text = (source.path / "distribution.json").read_text()
                    (folder.path / "distribution.json").write_text(text)
                folder.write_result(result)
        report = markdown_of(truth(Results(ran.experiment, ran.study, store)))
        assert f"**gdas {word} than uniform draws here**" in report
        assert f"**darts {word} than uniform draws here**" in report


def test_the_figures_put_every_seed_where_it_landed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dots at the accuracies, an arrow at the edge for one below it; held epochs shaded."""
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, dpi: drawn.append(figure))
    every: Distribution = {
        "accuracies": [10.0, 80.0, 90.0, 94.0],
        "cells": [4, 16, 60, 20],
        "function_percentile": 50.0,
    }
    row = Row("mine", [10.0, 90.0, 94.0], "61, p = 0.2000")
    distribution_figure(tmp_path / "a.png", every, [row], COLUMN)
    top, rows = drawn[0].axes
    marks = {str(line.get_marker()): [*np.asarray(line.get_xdata())] for line in rows.lines}
    assert marks["o"] == [90.0, 94.0] and marks["<"] == [80.0] and marks["|"] == [90.0]
    assert sum(narrow(bar, Rectangle).get_height() for bar in top.patches) == 100
    assert {text.get_text() for text in rows.texts} == {"mean percentile, p", row.end}

    epochs_figure(tmp_path / "b.png", {"mine": [[20, 40], [40, 90]], "other": [[50]]}, {"mine": 1})
    panels = drawn[1].axes
    lines = [[*map(float, np.asarray(line.get_ydata()))] for line in panels[0].lines]
    assert [20, 40] in lines and [40, 90] in lines and [30, 65] in lines
    assert [len(panel.patches) for panel in panels] == [1, 0]


def test_lookups_that_have_not_run_read_so(ran: Ran, tmp_path: Path) -> None:
    path = write_report(Results(ran.experiment, ran.study, Store(tmp_path)))
    assert "not run: no lookup has ended" in (path.parent / "report.md").read_text()


def test_p_against_uniform_draws_is_that_of_all_draws() -> None:
    cells = [2, 1, 3]  # two of the worst cells, one better, three best
    percentiles = [100 * 2 / 12, 100 * 5 / 12, 100 * 9 / 12]
    of_cell = [p for p, count in zip(percentiles, cells, strict=True) for _ in range(count)]
    for n in (1, 2, 4):
        sums = sorted(sum(draw) for draw in product(of_cell, repeat=n))
        for found in product(percentiles, repeat=n):
            expected = sum(s >= sum(found) - 1e-9 for s in sums) / len(sums)
            assert uniform_p(cells, found) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="at least one"):
        uniform_p(cells, [])


def test_the_report_says_which_images_are_looked_up_if_they_are_others(
    ran: Ran, tmp_path: Path
) -> None:
    path = write_report(Results(ran.experiment, ran.study, ran.store))
    text = (path.parent / "report.md").read_text()
    assert "**gdas searched on digits and is looked up on cifar10**" in text
    usual = load_experiment(str(YAML), ["bench201_search.recipe.data={name: cifar10}"])
    assert _other_images("cifar10_test_200", usual.searches) == []
    assert len(_other_images("cifar100_test_200", usual.searches)) == 2
