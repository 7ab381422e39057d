"""What others do to an MLflow, and what it refuses: nothing of it stops the rest of a study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gdas.errors import InputError
from orchestrator import send_runs
from orchestrator.report.figures import curves
from orchestrator.store.failure import note_failure, write_failure
from orchestrator.store.recorded import recorded_board
from orchestrator.store.store import Store
from orchestrator.tracking.tracker import Tracker
from tests.orchestrator.fake_study import fake_study, finish

Empty = Callable[[Path], str]


@pytest.fixture(autouse=True)
def plain_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "draw", lambda genotype, path: path.write_bytes(b"a cell"))


def runs(tracker: Tracker) -> dict[str, Any]:
    found = tracker.client.search_runs([tracker.experiment_id])
    return {run.info.run_name: run for run in found}


def begun(out: Path, *words: str, done: int = 2) -> Tracker:
    """A study with some finished searches, and its tracker."""
    experiment, study, store = fake_study(out, *words)
    for job in study.of_kind("search")[:done]:
        finish(store, job)
    return Tracker(study, store, experiment)


def test_files_that_are_refused_stop_no_metrics_and_runs_end(
    tmp_path: Path, empty_database: Empty, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    server = empty_database(tmp_path / "server")
    client = MlflowClient(tracking_uri=server)
    client.create_experiment("gdas", artifact_location="file:///proc/x")
    tracker = begun(tmp_path / "out", f"mlflow.tracking_uri={server}")
    assert tracker.sync(), "the server answers"
    board = recorded_board(tracker.store, tracker.study, driven=False)
    assert not tracker.finish(board, 100)
    said = capsys.readouterr().err
    assert said.count("refuses a file") == 1 and "search-frc-seed0: result.json" in said
    assert "does not answer" not in said and "it has all runs and metrics" in said
    found = runs(tracker)
    assert len(found) == 3
    for seed in (0, 1):
        run = found[f"search frc seed {seed}"]
        assert run.info.status == "FINISHED" and run.data.metrics["valid/top1"] == 33.0
    assert all(run.info.status != "RUNNING" for run in found.values())
    assert send_runs.main([str(tmp_path / "out"), "--to", server]) == 1


def test_one_file_that_is_too_large_keeps_no_other_away(
    tmp_path: Path, empty_database: Empty, capsys: pytest.CaptureFixture[str]
) -> None:
    server = empty_database(tmp_path / "server")
    tracker = begun(tmp_path / "out", f"mlflow.tracking_uri={server}")
    real = tracker.client.log_artifact

    def proxy(run_id: str, path: str, folder: str | None = None) -> None:
        if Path(path).name == "genotype.json":
            raise OSError("413 Request Entity Too Large")
        real(run_id, path, folder)

    tracker.client.log_artifact = proxy
    assert tracker.sync()
    assert tracker.artifacts.refused == [f"search-frc-seed{n}: genotype.json" for n in (0, 1)]
    run_id = runs(tracker)["search frc seed 1"].info.run_id
    there = {file.path for file in tracker.client.list_artifacts(run_id)}
    assert there == {"result.json", "settings.json", "figures"}
    del tracker.client.log_artifact
    assert tracker.finish(recorded_board(tracker.store, tracker.study, driven=False), 100)
    assert "genotype.json" in {file.path for file in tracker.client.list_artifacts(run_id)}


def test_a_failed_job_is_a_failed_run_with_its_traceback_until_it_is_tried_again(
    tmp_path: Path, empty_database: Empty
) -> None:
    empty_database(tmp_path)
    experiment, study, store = fake_study(tmp_path)
    place = store.folder(study.jobs[0]).place
    write_failure(place, "ValueError: no such thing", "Traceback ...\nValueError: no such thing")
    note_failure(place, "", "own", 3, again=False)
    tracker = Tracker(study, store, experiment)
    assert tracker.finish(recorded_board(store, study, driven=False), 100)
    found = runs(tracker)
    run = found["search frc seed 0"]
    assert run.info.status == "FAILED" and run.data.tags["error"] == "ValueError: no such thing"
    assert "Traceback ..." in run.data.tags["mlflow.note.content"]
    assert "failure.json" in {f.path for f in tracker.client.list_artifacts(run.info.run_id)}
    assert len(found) == 2, "jobs that never began have no run"
    finish(store, study.jobs[0])
    tracker = Tracker(study, store, experiment)
    assert tracker.sync()
    run = runs(tracker)["search frc seed 0"]
    assert run.info.status == "FINISHED" and "error" not in run.data.tags
    assert "Failed" not in run.data.tags["mlflow.note.content"]


def test_a_deleted_parent_comes_back_with_its_children(
    tmp_path: Path, empty_database: Empty
) -> None:
    empty_database(tmp_path)
    tracker = begun(tmp_path)
    assert tracker.sync()
    tracker.client.delete_run(tracker.parent)
    assert tracker.finish(recorded_board(tracker.store, tracker.study, driven=False), 100)
    found = runs(tracker)
    parent = next(run for run in found.values() if run.data.tags["stage"] == "study")
    children = [run for run in found.values() if run is not parent]
    assert len(children) == 2
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}


def test_a_deleted_experiment_is_restored_at_home_and_named_at_a_server(
    tmp_path: Path, empty_database: Empty, capsys: pytest.CaptureFixture[str]
) -> None:
    empty_database(tmp_path / "out")
    tracker = begun(tmp_path / "out")
    tracker.client.delete_experiment(tracker.experiment_id)
    assert begun(tmp_path / "out").sync() and "is restored" in capsys.readouterr().err
    tracker.client.delete_experiment(tracker.experiment_id)
    with pytest.raises(InputError, match=r"mlflow\.experiment=gdas: was deleted at .* restore"):
        begun(tmp_path / "other", f"mlflow.tracking_uri={tracker.uri}")


def test_four_studies_that_make_one_experiment_at_one_moment_all_start(
    tmp_path: Path, empty_database: Empty, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    server = empty_database(tmp_path / "server")
    real = MlflowClient.get_experiment_by_name
    looked: list[str] = []

    def late(client: MlflowClient, name: str) -> Any:
        found = real(client, name)
        if not looked:  # another study makes it between the look and our own making
            client.create_experiment(name, artifact_location=(tmp_path / "files").as_uri())
        looked.append(name)
        return found

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", late)
    assert begun(tmp_path / "out", f"mlflow.tracking_uri={server}").sync() and len(looked) == 2


def test_the_command_is_the_last_one_and_the_registry_the_same_server(
    tmp_path: Path,
    empty_database: Empty,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    empty_database(tmp_path)
    tracker = begun(tmp_path)
    assert "MLFLOW_TRACKING_URI, MLFLOW_REGISTRY_URI: not followed" in capsys.readouterr().err
    assert tracker.client._registry_uri == tracker.uri
    store = Store(tmp_path)
    store.write_study(tracker.study, store.study()["settings"], {}, "another command")
    tracker = Tracker(tracker.study, store, tracker.experiment)
    assert tracker.client.get_run(tracker.parent).data.tags["command"] == "another command"


def test_the_studys_run_has_the_figures_that_studies_are_sorted_by(
    tmp_path: Path, empty_database: Empty
) -> None:
    empty_database(tmp_path)
    tracker = begun(tmp_path, done=4)
    finish(tracker.store, tracker.study.jobs[-1], metrics={"test/top1": 60.0})
    tracker.finish(recorded_board(tracker.store, tracker.study, driven=False), 100)
    metrics = tracker.client.get_run(tracker.parent).data.metrics
    assert metrics == {"test_error/frc-digits": 40.0}
    tracker.finish(recorded_board(tracker.store, tracker.study, driven=False), 100)
    (point,) = tracker.client.get_metric_history(tracker.parent, "test_error/frc-digits")
    last = tracker.client.get_run(tracker.parent).info.end_time
    assert point.timestamp == last, "a figure sent again is the same point"


def test_a_run_that_another_folder_wrote_is_never_deleted(
    tmp_path: Path, empty_database: Empty
) -> None:
    server = empty_database(tmp_path / "server")
    words = [f"mlflow.tracking_uri={server}"]
    tracker = begun(tmp_path / "out", *words)
    assert tracker.sync()
    job = tracker.study.jobs[0]
    run_id = tracker.runs[job.id]
    tracker.client.set_tag(run_id, "gdas.home", "elsewhere:/runs")
    records = tracker.store.folder(job).records()
    tracker.store.folder(job).rewrite_records(
        [{**record, "time": record["time"] + 5} for record in records]
    )
    store = Store(tmp_path / "out")
    assert Tracker(tracker.study, store, tracker.experiment).sync()
    found = [r.info.run_id for r in tracker.client.search_runs([tracker.experiment_id])]
    assert run_id in found and len(found) == 4
