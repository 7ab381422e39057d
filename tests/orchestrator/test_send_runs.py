"""A finished study's runs, sent to another MLflow afterwards, are there as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gdas.files import write_text
from orchestrator import send_runs
from orchestrator.store.recorded import recorded_board
from orchestrator.tracking.tracker import Tracker
from tests.orchestrator.fake_study import fake_study, finish, select
from tests.orchestrator.sent_runs import everything

REPORT = "# tiny\n\n## Table 1\n\n| whose | error |\n| --- | --- |\n| ours | 3.9 |\n"


def test_runs_sent_to_another_mlflow_are_equal_and_sending_twice_doubles_nothing(
    tmp_path: Path, empty_database: Callable[[Path], str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    empty_database(out)
    experiment, study, store = fake_study(out)
    for job in study:
        if job.kind == "search":
            finish(store, job)
    select(store, study)
    finish(store, study.jobs[-1])
    (out / "report").mkdir()
    write_text(out / "report" / "report.md", REPORT)
    tracker = Tracker(study, store, experiment)
    assert tracker.finish(recorded_board(store, study, driven=False), 100)
    there = empty_database(tmp_path / "there")
    capsys.readouterr()
    assert send_runs.main([str(out), "--to", there]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "5 runs are in the experiment" in lines[0] and there in lines[0]
    assert lines[-1].startswith(f"next: mlflow ui --backend-store-uri {there} ")
    sent = everything(there, tmp_path / "a")
    assert sent == everything(tracker.uri, tmp_path / "b")
    # Not merely alike: what a study's runs are.
    parent = next(name for name, run in sent.items() if run["child of"] is None)
    assert sorted(sent) == sorted(
        [parent, "train frc-digits", *(f"search frc seed {seed}" for seed in range(4))]
    )
    assert all(run["child of"] == parent for name, run in sent.items() if name != parent)
    search = sent["search frc seed 2"]
    top1 = [(p[1], p[3]) for p in search["points"] if p[0] == "valid/top1"]
    assert top1 == [(1, 31.0), (2, 32.0), (3, 33.0)]
    assert search["tags"]["variant"] == "frc" and search["tags"]["selected"] == "true"
    assert [(name, split) for name, _, split in search["data"]] == [("digits", "train")]
    assert search["parameters"]["epochs"] == "3" and search["status"] == "FINISHED"
    assert {"figures/cell.png", "genotype.json", "result.json"} <= set(search["files"])
    assert {"report/report.md", "tables/table-1.json", "study.json"} <= set(sent[parent]["files"])
    assert send_runs.main([str(out), "--to", there]) == 0
    assert everything(there, tmp_path / "c") == sent


def test_a_wrong_address_and_a_folder_without_a_study_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_study(tmp_path / "out")
    for words, why in (
        ([str(tmp_path / "out"), "--to", "server:5000"], "must begin with http://"),
        ([str(tmp_path / "out"), "--to", "http://127.0.0.1:9"], "no MLflow answers there"),
        ([str(tmp_path / "none"), "--to", "http://127.0.0.1:9"], "no study there"),
    ):
        assert send_runs.main(words) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ") and why in line
