"""What the driver does every second costs what runs, not what there is: file accesses, counted."""

from __future__ import annotations

import gc
import io
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from rich.console import Console as Terminal

from orchestrator.cost.left import Remaining
from orchestrator.store.board import Board
from orchestrator.terminal.console import Console
from orchestrator.tracking.artifacts import Artifacts
from orchestrator.tracking.tracker import Tracker
from tests.orchestrator.fake_study import fake_study, finish, record
from tests.orchestrator.written import plain_result

LOOKS = ((io, "open"), (os, "stat"), (os, "listdir"), (os, "scandir"))
RUNNING = 2


class Looks:
    """Counts calls that open, list or ask for a file below a folder."""

    def __init__(self, below: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        for module, name in LOOKS:
            monkeypatch.setattr(module, name, self._counted(getattr(module, name), str(below)))

    def _counted(self, call: Callable[..., Any], below: str) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.count += bool(arguments) and str(arguments[0]).startswith(below)
            return call(*arguments, **named)

        return counted

    def of(self, tick: Callable[[], Any]) -> int:
        before = self.count
        tick()
        return self.count - before


def looks_a_tick(out: Path, jobs: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """With a third of the jobs done, two running, one failed and the rest waiting."""
    experiment, study, store = fake_study(out, f"search.seeds={list(range(jobs))}")
    searches = [job for job in study if job.kind == "search"]
    board = Board({job.id: "waiting" for job in study})
    done, others = searches[: jobs // 3], searches[jobs // 3 :]
    for job in done:
        finish(store, job)
        board.states[job.id] = "done"
    for job in others[:RUNNING]:
        store.folder(job).append_record(record(1))
        board.states[job.id] = "running"
    for job in others[RUNNING:]:
        shutil.rmtree(store.folder(job).path)
    board.states[others[RUNNING].id] = "failed"
    piped = Console(study, store, Terminal(file=io.StringIO()))
    live = Console(
        study, store, Terminal(file=io.StringIO(), force_terminal=True, width=90, height=3 * jobs)
    )
    monkeypatch.setattr(Tracker, "_connect", lambda self: None)
    monkeypatch.setattr(Tracker, "_start", lambda *_: "run")
    monkeypatch.setattr(Artifacts, "_picture", lambda *_: None)
    tracker = Tracker(study, store, experiment)
    tracker.parent, tracker.mlflow.client, tracker.board = "parent", MagicMock(), board
    os.utime(store.out / "jobs", (1e9, 1e9))  # it has been quiet for a while
    looks = Looks(out, monkeypatch)
    piped.start(board)
    live.start(board)
    ticks: dict[str, Callable[[], Any]] = {
        "a pipe's console": piped.update,
        "a terminal's console": live.update,
        "tracking": tracker.sync,
    }
    for tick in ticks.values():
        tick()  # all is new to it
    assert len(tracker.closed) == len(done)
    found = {name: looks.of(tick) for name, tick in ticks.items()}
    live.stop()
    return found


def test_a_tick_looks_at_what_runs_and_at_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = looks_a_tick(tmp_path / "few", 12, monkeypatch)
    many = looks_a_tick(tmp_path / "many", 60, monkeypatch)
    assert few == many
    assert all(0 < count <= 8 * RUNNING for count in many.values()), many


def test_asking_for_every_folder_lists_the_jobs_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, study, store = fake_study(tmp_path / "out", "search.seeds=[0,1,2,3,4,5,6,7]")
    for job in list(study)[4:8]:
        shutil.rmtree(store.folder(job).path)
    os.utime(store.out / "jobs", (1e9, 1e9))  # it has been quiet for a while
    looks = Looks(tmp_path, monkeypatch)
    # A question for its time each, and one list of all.
    assert looks.of(lambda: [store.folder(job) for job in study]) == len(study.jobs) + 1


def test_a_folder_that_came_or_went_is_noticed(tmp_path: Path) -> None:
    _, study, store = fake_study(tmp_path / "out")
    job = study.jobs[0]
    path = store.folder(job).path
    older = path.with_name(f"search-its-old-name-{job.id}")
    path.rename(older)
    assert store.folder(job).path == older and store.folder_name(job.id) == older.name
    shutil.rmtree(older)
    assert store.folder(job).path == path and store.folder_name(job.id) == job.id


def test_what_changes_while_a_job_waits_again_is_shown_and_sent(
    tmp_path: Path, empty_database: Callable[[Path], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A job that failed and waits had written a record since it was last looked at."""
    empty_database(tmp_path / "out")
    experiment, study, store = fake_study(tmp_path / "out")
    board = Board({job.id: "waiting" for job in study})
    job = study.jobs[0]
    console = Console(study, store, Terminal(file=io.StringIO()))
    console.start(board)
    tracker = Tracker(study, store, experiment)
    tracker.board = board
    assert tracker.sync()
    board.states[job.id] = "running"
    console.update()
    assert tracker.sync()
    store.folder(job).append_record(record(1))
    board.states[job.id] = "waiting"
    console.update()
    assert tracker.sync()
    assert "search-frc-seed0  epoch 1/3" in capsys.readouterr().out
    assert len(tracker.client.get_metric_history(tracker.runs[job.id], "seconds")) == 1


@pytest.mark.slow
def test_a_thousand_jobs_take_no_more_looks_than_ten_and_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """5,000 records: what the console, the tracking and the time left keep of them."""
    jobs = 1000
    experiment, study, store = fake_study(tmp_path, f"search.seeds={list(range(jobs))}")
    board = Board({job.id: "waiting" for job in study})
    searches = [job for job in study if job.kind == "search"]
    for job in searches:
        for position in range(1, 6):
            store.folder(job).append_record(record(position, of=5))
    for job in searches[RUNNING:]:
        store.folder(job).write_result(plain_result())
    board.states |= dict.fromkeys([job.id for job in searches], "done")
    board.states |= dict.fromkeys([job.id for job in searches[:RUNNING]], "running")
    monkeypatch.setattr(Tracker, "_connect", lambda self: None)
    monkeypatch.setattr(Tracker, "_start", lambda *_: "run")
    monkeypatch.setattr(Artifacts, "_picture", lambda *_: None)
    tracker = Tracker(study, store, experiment)
    tracker.parent, tracker.mlflow.client, tracker.board = "parent", MagicMock(), board
    console = Console(study, store, Terminal(file=io.StringIO()))
    remaining = Remaining(study, store, board, lambda: {"CPU": 2.0, "GPU": 0.0})
    console.start(board)
    ticks: list[Callable[[], Any]] = [console.update, tracker.sync, remaining]
    tracemalloc.start()
    try:
        for tick in ticks:
            tick()
        tracker.mlflow.client.reset_mock()  # it remembers every call
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    os.utime(store.out / "jobs", (1e9, 1e9))
    looks = Looks(tmp_path, monkeypatch)
    remaining.due = 0.0
    assert sum(looks.of(tick) for tick in ticks) <= 8 * RUNNING * len(ticks)
    assert len(tracker.closed) == jobs - RUNNING
    # A driver with 50 jobs takes 970 MiB; half of that for 950 more would be 520 KiB a job.
    assert kept < 200 * jobs * 1024, f"{kept / jobs / 1024:.0f} KiB a job"
