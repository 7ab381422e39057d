"""Several proxy trainings of each cell: their jobs, the selection by their mean, and the report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gdas.errors import InputError
from orchestrator.experiment.build import build_study
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.load import load_experiment
from orchestrator.experiment.study import Job, Study
from orchestrator.report.evidence import claims_of
from orchestrator.report.first_screen import headline
from orchestrator.report.parts import markdown_of
from orchestrator.report.power import Side, detectable, detectable_by_welch
from orchestrator.report.searches import comparisons
from orchestrator.report.view import Results
from orchestrator.store.results import Selection
from orchestrator.store.store import Store
from orchestrator.tracking.words import figures, run_name, tags_of, variant_of
from orchestrator.work.select import select
from tests.orchestrator.contract import assert_is
from tests.orchestrator.fake_study import finish
from tests.orchestrator.test_study import identity
from tests.orchestrator.written import NO_DATA

YAML = """
search:
  seeds: [0, 1, 2]
  recipe: {data: {name: digits}, epochs: 4, network: {reduction: fixed}}
text_search:
  seeds: [0, 1]
  recipe: {data: {name: prose}}
searches:
  found: {against: drawn}
  drawn: {cells: random}
  recurrent: {recipe: {data: {name: prose}}, against: drawn-recurrent}
  drawn-recurrent: {recipe: {data: {name: prose}}, cells: random}
"""
TWICE = ("search.proxy_trainings=2", "text_search.proxy_trainings=2")


def experiment_of(folder: Path, *overrides: str) -> Experiment:
    (folder / "own.yaml").write_text(YAML)
    return load_experiment(str(folder / "own.yaml"), list(overrides))


def study_of(folder: Path, *overrides: str) -> Study:
    return build_study(experiment_of(folder, *overrides), identity, {})


def test_each_cell_is_trained_again_and_what_was_trained_once_stays(tmp_path: Path) -> None:
    once, twice = study_of(tmp_path), study_of(tmp_path, *TWICE)
    proxies = {job.id: job.name for job in once.of_kind("proxy")}
    again = {job.id: job.name for job in twice.of_kind("proxy")}
    assert len(proxies) == 10 and len(again) == 20
    assert proxies.items() <= again.items(), "the first training has the id and the name it had"
    assert {name for i, name in again.items() if i not in proxies} == {
        f"{name}-training2" for name in proxies.values()
    }
    for name in ("found", "drawn", "recurrent", "drawn-recurrent"):
        for first, second in twice.cells(name):
            assert [job.recipe["config"]["seed"] for job in (first, second)] == [0, 1]
            assert first.needs == second.needs and first.seed == second.seed
            assert {**first.recipe, "config": 0} == {**second.recipe, "config": 0}
        (searches, chosen) = (twice.searches(name), twice.selection(name))
        assert searches == once.searches(name), "each search once"
        assert chosen is not None and chosen.id not in {job.id for job in once}


def test_a_cells_trainings_are_named_together_or_alone(tmp_path: Path) -> None:
    found = study_of(tmp_path, *TWICE)
    kept = found.only(["proxy-found-seed1"]).of_kind("proxy")
    assert [job.name for job in kept] == ["found-seed1", "found-seed1-training2"]
    (alone,) = found.only(["proxy-found-seed1-training2"]).of_kind("proxy")
    assert alone == kept[1]
    results, _ = finished(tmp_path)
    part = dataclasses.replace(results, study=results.study.only(["proxy-found-seed1-training2"]))
    assert part.scores("found") == [], "one training is not the mean of two"
    part = dataclasses.replace(results, study=results.study.only(["proxy-found-seed1"]))
    assert part.scores("found") == [52.0]


def test_runs_in_mlflow_say_which_training_they_are(tmp_path: Path) -> None:
    experiment = experiment_of(tmp_path, *TWICE)
    first, second = build_study(experiment, identity, {}).cells("drawn")[2]
    assert run_name(first) == "proxy drawn seed 2"
    assert run_name(second) == "proxy drawn seed 2 training 2"
    assert variant_of(first) == variant_of(second) == "drawn"
    tags = tags_of(second, experiment)
    assert tags["training"] == "2" and tags["seed"] == "2"
    assert "training" not in tags_of(first, experiment)


SCORES = {  # of the first and the second training, by cell
    "found": ([60.0, 40.0], [52.0, 52.0], [40.0, 50.0]),
    "drawn": ([40.0, 41.0], [42.0, 43.0], [44.0, 45.0]),
}


def finished(folder: Path) -> tuple[Results, Job]:
    """A study whose image cells have SCORES, and the last training among them, not done."""
    experiment = experiment_of(folder, *TWICE)
    study, store = build_study(experiment, identity, {}), Store(folder / "out")
    store.write_study(study, {}, {})
    (folder / "out" / "report").mkdir()
    for name, of_cells in SCORES.items():
        for cell, scores in zip(study.cells(name), of_cells, strict=True):
            for job, score in zip(cell, scores, strict=True):
                store.prepare(job, NO_DATA)
                if score != 45.0:
                    finish(store, job, metrics={"valid/top1": score, "valid/loss": 1.0})
    return Results(experiment, study, store), study.cells("drawn")[2][1]


def test_the_mean_of_a_cells_trainings_selects_and_is_compared(tmp_path: Path) -> None:
    results, last = finished(tmp_path)
    assert results.scores("drawn") == [40.5, 42.5], "a cell counts once all its trainings are done"
    finish(results.store, last, metrics={"valid/top1": 45.0, "valid/loss": 1.0})
    chosen = results.study.selection("found")
    assert chosen is not None
    record = select(results.study, chosen, results.store)
    assert_is(record, Selection)
    assert record["winner"]["seed"] == 1, "not the cell with the best single training"
    assert record["winner"]["trainings"] == [52.0, 52.0]
    assert [c["score"] for c in record["candidates"]] == [50.0, 52.0, 45.0]
    assert record["method"].endswith("the mean of 2 trainings")
    assert results.trainings("found") == dict(enumerate(SCORES["found"]))
    text = markdown_of(comparisons(results))
    assert "50.00, 52.00, 45.00" in text and "2 times with different seeds" in text
    # Of the 20 ways to choose three of the six means, one has a sum of at least 147.
    assert figures(results)["p/found against drawn"] == pytest.approx(1 / 20)


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (("searches.found.select_by=shared_weights",), "set select_by=proxy"),
        (("searches.drawn.proxy_trainings=3",), "set searches.drawn.proxy_trainings=2"),
        (("search.proxy_trainings=0",), "proxy_trainings"),
    ],
)
def test_trainings_that_cannot_be_are_refused(
    overrides: tuple[str, ...], fault: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=fault):
        experiment_of(tmp_path, *TWICE, *overrides)


def test_the_report_gives_the_spread_and_what_the_design_could_find(tmp_path: Path) -> None:
    results, last = finished(tmp_path)
    finish(results.store, last, metrics={"valid/top1": 45.0, "valid/loss": 1.0})
    text = markdown_of(comparisons(results))
    # Means 40.5, 42.5, 44.5 with variance 4: mean squares 8 between and 0.5 within.
    assert "| drawn | 3 | 1.94 | 0.71 | 0.88 (" in text
    # Means 50, 52, 45: mean squares 26 between and 250 / 3 within.
    assert "| found | 3 | 0.00 | 9.13 | 0.00 (" in text
    assert "one-sided p = 0.0500 by the permutation test" in text and "0.0500 by ranks" in text
    # Three cells are too few to know a spread: the other side's counts for both.
    drawn, once = Side(2.0, 3), Side(4.25**0.5, 3)
    assert f"finds a difference of {detectable(drawn, drawn):.2f} points with 80 %" in text
    assert "2.00 for found (as drawn: too few cells of its own) and 2.00 for drawn" in text
    assert f"{detectable(once, once):.2f} with 1 training a cell" in text
    figure = results.folder / "trainings-found-against-drawn.png"
    assert figure.stat().st_size > 5_000 and f"]({figure.name})" in text
    assert "| recurrent | 0 | not run |" in text, "a comparison without results has no figure"


def test_a_report_rests_on_both_spreads_and_says_if_they_differ_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.report.spread.trainings_figure", lambda *_: None)  # slow
    seeds = ("search.seeds=[0,1,2,3,4,5]", f"searches.drawn.seeds={list(range(20, 38))}")
    experiment = experiment_of(tmp_path, *TWICE, *seeds)
    study, store = build_study(experiment, identity, {}), Store(tmp_path / "out")
    store.write_study(study, {}, {})
    (tmp_path / "out" / "report").mkdir()
    for name, width in (("found", 10.0), ("drawn", 1.0)):
        for i, cell in enumerate(study.cells(name)):
            for job in cell:
                store.prepare(job, NO_DATA)
                finish(store, job, metrics={"valid/top1": 50 + width * (i % 3), "valid/loss": 1.0})
    results = Results(experiment, study, store)
    text = markdown_of(comparisons(results))
    # Means 50, 60, 70 twice and 50, 51, 52 six times: variances 400 / 5 and 12 / 17.
    found, drawn = Side(80**0.5, 6), Side((12 / 17) ** 0.5, 18)
    assert f"finds a difference of {detectable(found, drawn):.2f} points with 80 %" in text
    assert f"{found.sd:.2f} for found and {drawn.sd:.2f} for drawn" in text
    assert f"finds one of {detectable_by_welch(found, drawn):.2f} so often" in text
    assert f"{found.sd:.2f} over the 6 cells of found against {drawn.sd:.2f} over the 18" in text
    assert "does not hold its level then" in text and "Welch's t test allows" in text
    (claim,) = (c for c in claims_of(results) if c.text.startswith("found finds"))
    assert "Welch's test, as the spreads differ: 0.0" in claim.p
    (line,) = (line for line in headline(results) if line.startswith("Search found"))
    assert "as the spreads differ" in line


def test_a_report_of_single_trainings_has_no_such_part(tmp_path: Path) -> None:
    experiment = experiment_of(tmp_path)
    study, store = build_study(experiment, identity, {}), Store(tmp_path / "out")
    text = markdown_of(comparisons(Results(experiment, study, store)))
    assert "found against drawn" in text and "Spread" not in text
