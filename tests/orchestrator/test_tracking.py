"""MLflow has every record once, whatever happened to the records or to the server."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gdas.errors import InputError
from orchestrator.experiment.build import build_study
from orchestrator.experiment.load import load_experiment
from orchestrator.experiment.study import Study
from orchestrator.run.scheduler import Scheduler
from orchestrator.store.job_folder import JobFolder
from orchestrator.store.results import Record
from orchestrator.store.store import Store
from orchestrator.tracking.tracker import Tracker
from tests.e2e.driving import expected_points, points
from tests.orchestrator.test_study import identity
from tests.orchestrator.written import NO_DATA, plain_record


def record(position: int, when: float) -> Record:
    metrics = {"train/loss": 1.0 / position}
    return plain_record(position, metrics=metrics, started=when - 1, time=when, seconds=1.0)


def made(out: Path, *words: str) -> tuple[Study, Store, JobFolder, Tracker]:
    experiment = load_experiment("smoke", list(words))
    study, store = build_study(experiment, identity, {}), Store(out)
    store.write_study(study, {}, {})
    folder = store.prepare(study.jobs[0], NO_DATA)
    return study, store, folder, Tracker(study, store, experiment)


def test_a_history_that_was_given_up_is_replaced_not_added_to(
    tmp_path: Path, empty_database: Callable[[Path], str]
) -> None:
    empty_database(tmp_path)
    _, _, folder, tracker = made(tmp_path)
    database = tmp_path / "mlflow.db"
    folder.rewrite_records([record(1, 10.0), record(2, 20.0), record(3, 30.0)])
    assert tracker.sync() and tracker.sync(), "sending twice is sending once"
    assert points(database) == expected_points(tmp_path)
    # The newest checkpoint was damaged: the third segment comes again, later.
    folder.rewrite_records([record(1, 10.0), record(2, 20.0), record(3, 40.0)])
    assert tracker.sync()
    assert points(database) == expected_points(tmp_path)
    # The same between two commands: nothing is remembered but what MLflow has.
    folder.rewrite_records([record(1, 10.0), record(2, 50.0)])
    *_, tracker = made(tmp_path)
    assert tracker.sync()
    assert points(database) == expected_points(tmp_path)
    assert sum(points(database).values()) == 4


def test_a_server_that_comes_back_with_nothing_gets_everything(
    tmp_path: Path, empty_database: Callable[[Path], str]
) -> None:
    empty_database(tmp_path)
    _, _, folder, tracker = made(tmp_path)
    folder.rewrite_records([record(1, 10.0), record(2, 20.0)])
    assert tracker.sync()
    tracker.client.delete_run(tracker.runs[next(iter(tracker.runs))])
    folder.append_record(record(3, 30.0))
    assert not tracker.sync(), "it says that the run is gone"
    assert tracker.sync()
    assert points(tmp_path / "mlflow.db") == expected_points(tmp_path)


def test_a_server_that_is_not_there_is_an_error_or_by_setting_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as s:  # bound, not listening: nothing answers there
        s.bind(("127.0.0.1", 0))
        uri = f"mlflow.tracking_uri=http://127.0.0.1:{s.getsockname()[1]}"
        with pytest.raises(InputError, match=r"mlflow\.unreachable=warn"):
            made(tmp_path / "a", uri)
        study, store, folder, tracker = made(tmp_path / "b", uri, "mlflow.unreachable=warn")
        folder.rewrite_records([record(1, 10.0)])
        assert not tracker.sync() and not tracker.sync()
        tracker.finish(Scheduler(study, store, {}, print).board, 20)
    said = capsys.readouterr().err
    assert said.count("does not answer") == 1, "said once"
    assert "the same command sends the rest" in said


def test_a_server_that_hangs_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()  # connections are taken, and nothing is answered
        uri = f"mlflow.tracking_uri=http://127.0.0.1:{s.getsockname()[1]}"
        study, store, _, tracker = made(tmp_path, uri, "mlflow.unreachable=warn")
        board = Scheduler(study, store, {}, print).board
        tracker.start(board)
        began = time.monotonic()
        tracker.finish(board, 0.5)
        assert time.monotonic() - began < 20, "MLflow alone tries for minutes"
    assert "not everything was sent" in capsys.readouterr().err


def test_what_mlflow_logs_of_a_failing_database_is_not_shown(
    tmp_path: Path, empty_database: Callable[[Path], str]
) -> None:
    empty_database(tmp_path)
    made(tmp_path)
    assert not logging.getLogger("mlflow.store.db.utils").isEnabledFor(logging.ERROR)
