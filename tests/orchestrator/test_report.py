"""What the report says, from job folders written by hand: no Ray, no training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from gdas.data.settings import AnyImageData, TableData, TextData
from orchestrator.experiment.build import DataIdentity, build_study
from orchestrator.experiment.load import load_experiment
from orchestrator.report.report import write_report
from orchestrator.report.view import Results
from orchestrator.store.results import Selection
from orchestrator.store.store import Store
from orchestrator.work.select import select
from tests.orchestrator.contract import assert_is
from tests.orchestrator.test_study import identity
from tests.orchestrator.written import NO_DATA, search_result

YAML = """
search:
  seeds: [0, 1, 2, 3]
  recipe: {data: {name: digits}, epochs: 4, network: {reduction: fixed}}
searches:
  plain: {against: drawn}
  slow:
    recipe: {epochs: 2, sampler: {acceleration: false}}
    against: plain
  drawn: {cells: random}
"""


def report_of(
    folder: Path, scores: dict[str, float], data: DataIdentity = identity, more: str = ""
) -> str:
    """The report where every seed's proxy has its track's score plus a tenth of its seed.

    Finals and measurements, if `more` has some, are not run.
    """
    (folder / "own.yaml").write_text(YAML + more)
    experiment = load_experiment(str(folder / "own.yaml"), [])
    study = build_study(experiment, data, {})
    store = Store(folder / "out")
    for job in study:
        if job.kind in ("train", "measure"):
            continue
        if job.kind != "select":
            track, seed = job.name[:-1].removesuffix("-seed").removesuffix("-"), int(job.name[-1])
            score = scores[track] + seed / 10
            store.prepare(job, NO_DATA)
            seconds = 60.0 if track == "plain" else 240.0
            result = search_result({"valid/top1": score, "valid/loss": 1.0}, seconds)
            result["drawn_against_uniform"] = [(50.0 + i, 40.0) for i in range(4)]
            store.folder(job).write_result(result)
        else:
            assert_is(select(study, job, store), Selection)
    store.write_study(study, json.loads(json.dumps(dataclasses.asdict(experiment))), {})
    return write_report(Results(experiment, study, store)).with_suffix(".md").read_text()


SCORES = {"plain": 50.0, "slow": 40.0, "drawn": 45.0}


def test_a_search_is_compared_with_random_cells_and_with_another_search(tmp_path: Path) -> None:
    text = report_of(tmp_path, SCORES)
    random, _, other = text.partition("## One way of searching against another")
    assert "## Is searching better than drawing at random?" in random
    assert "Search is better than random cells here" in random
    assert "Slow is not better than plain here" in other


def test_a_search_without_the_acceleration_stands_beside_the_usual_one(tmp_path: Path) -> None:
    lines = report_of(tmp_path, SCORES).splitlines()
    start = next(i for i, line in enumerate(lines) if "fewer epochs suffice" in line)
    rows = [line for line in lines[start : start + 8] if line.startswith("| slow | no | 2 |")]
    assert len(rows) == 1 and "40.15" in rows[0] and "4.0 min" in rows[0]
    assert any(line.startswith("| plain | yes | 4 |") for line in lines[start : start + 8])


def test_drawn_cells_beside_uniform_ones(tmp_path: Path) -> None:
    text = report_of(tmp_path, SCORES)
    assert "Cells drawn from the final logits" in text and "The logits' cells are better." in text


def test_unpublished_data_are_named_at_the_top(tmp_path: Path) -> None:
    def other(data: AnyImageData | TextData | TableData, split: str) -> str:
        return f"{data.name}-unpublished-0123"

    assert "not the published ones" not in report_of(tmp_path, SCORES)
    (tmp_path / "again").mkdir()
    top = report_of(tmp_path / "again", SCORES, other).split("##")[0]
    assert "The files of digits are not the published ones" in top
