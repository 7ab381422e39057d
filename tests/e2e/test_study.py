"""A whole study on Ray, killed and run again: what it leaves behind, and that it resumes.

Its jobs are compared with themselves without Ray, where nothing is killed. One file, so that one
process of the fast suite has the study.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.work.final import train_worker
from orchestrator.work.search import run_search
from tests.e2e import driving
from tests.readme import ROOT


def test_four_searches_run_at_once_in_processes_of_their_own(interrupted: Path) -> None:
    searches = [
        driving.records(path)
        for label, path in driving.folders(interrupted).items()
        if label.startswith("search-")
    ]
    assert len(searches) == 4
    assert len({records[0]["pid"] for records in searches}) == 4
    assert os.getpid() not in {records[0]["pid"] for records in searches}
    assert int(driving.at_once(interrupted).read_text()) >= 4, "all ran at one moment"


def test_the_winner_is_the_best_by_validation_and_is_what_was_trained(interrupted: Path) -> None:
    selection = json.loads((interrupted / "selections" / "frc.json").read_text())
    scores = [c["score"] for c in selection["candidates"]]
    assert len(scores) == 4
    assert selection["winner"]["score"] == max(scores)
    final = driving.result(driving.folders(interrupted)["train-frc-digits"])
    assert final["genotype"] == selection["winner"]["genotype"]
    assert final["provenance"]["selection"] == selection["id"]
    assert final["workers"] == 2


def test_the_report_has_our_number_beside_the_papers(interrupted: Path) -> None:
    report = (interrupted / "report" / "report.md").read_text()
    final = driving.result(driving.folders(interrupted)["train-frc-digits"])
    lines = report.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("| **ours**: frc-digits"))
    assert lines[at + 1].startswith("| GDAS (FRC) + CutOut | 2.82 |"), "above the paper's row"
    assert f"| {100 - final['metrics']['test/top1']:.2f} [" in lines[at]
    assert "on digits" in lines[at], "digits are not CIFAR-10"
    verdict = next(line for line in lines if line.startswith("| final frc-digits"))
    assert "| 2.82 | run too small to compare |" in verdict
    html = (interrupted / "report" / "report.html").read_text()
    assert html.count('src="data:image/png;base64,') == 2
    assert html.count("<svg class=curves") == 5
    assert 'src="http' not in html and ".png" not in html, "self-contained"


def test_mlflow_has_every_record_once_under_one_parent(interrupted: Path) -> None:
    assert driving.points(interrupted / "mlflow.db") == driving.expected_points(interrupted)
    with sqlite3.connect(interrupted / "mlflow.db") as database:
        # The run of a job whose newest checkpoint was damaged may have been replaced.
        living = "select status from runs where lifecycle_stage = 'active'"
        statuses = database.execute(living).fetchall()
        parents = database.execute(
            "select distinct value from tags where key = 'mlflow.parentRunId'"
        ).fetchall()
        selected = database.execute("select count(*) from tags where key = 'selected'").fetchone()
    assert statuses == [("FINISHED",)] * 6, "a parent, four searches and a final"
    assert len(parents) == 1
    assert selected == (1,)


def test_the_same_command_again_does_nothing_twice(interrupted: Path, data_folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (interrupted / "jobs").rglob("*")}
    sessions = set((interrupted / "ray").iterdir())
    code, output = driving.run(interrupted, data_folder)
    assert code == 0, output
    assert output.count(": done") == 6, output
    assert {path: path.stat().st_mtime_ns for path in (interrupted / "jobs").rglob("*")} == before
    assert set((interrupted / "ray").iterdir()) == sessions, "Ray was not even started"
    assert driving.points(interrupted / "mlflow.db") == driving.expected_points(interrupted)


def test_the_harmed_searches_end_with_the_same_digests_as_without_ray(
    interrupted: Path, tmp_path: Path
) -> None:
    names = set(driving.harmed(interrupted).read_text().split())
    assert names and all(name.startswith("search-") for name in names)
    for name in names:
        source = interrupted / "jobs" / name
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.json").write_text((source / "settings.json").read_text())
        digest = run_search(str(tmp_path / name))["digest"]
        assert digest == driving.result(source)["digest"], name


def test_a_final_of_two_workers_without_ray_ends_with_the_same_digest(
    interrupted: Path, tmp_path: Path
) -> None:
    source, alone = driving.folders(interrupted)["train-frc-digits"], tmp_path / "alone"
    alone.mkdir()
    for name in ("settings.json", "provenance.json"):
        (alone / name).write_text((source / name).read_text())
    command = [sys.executable, "-m", "tests.gdas.team", "tests.e2e.final_worker"]
    done = subprocess.run(
        [*command, str(alone), str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert done.returncode == 0, done.stderr
    assert driving.result(alone)["digest"] == driving.result(source)["digest"]


def test_the_test_split_stays_closed_without_provenance(interrupted: Path, tmp_path: Path) -> None:
    source = driving.folders(interrupted)["train-frc-digits"]
    (tmp_path / "settings.json").write_text((source / "settings.json").read_text())
    with pytest.raises(PermissionError, match="the test split stays closed"):
        train_worker(str(tmp_path))


@pytest.mark.slow
def test_a_killed_study_with_damaged_files_ends_with_the_digests_of_one_left_alone(
    interrupted: Path, undisturbed: Path
) -> None:
    assert driving.digests(interrupted) == driving.digests(undisturbed)
