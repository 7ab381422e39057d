"""The live view: a line a job by stage, failures with their log; what an interrupt keeps."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console as Terminal

from orchestrator.experiment.study import Study
from orchestrator.store.board import Board
from orchestrator.store.failure import write_failure
from orchestrator.store.store import Store
from orchestrator.terminal.console import Console
from orchestrator.terminal.progress import failure_lines, overview, progress, saved_lines
from orchestrator.terminal.words import columns
from tests.orchestrator.fake_study import fake_study, finish, record


@pytest.fixture
def running(tmp_path: Path) -> tuple[Study, Store, Board]:
    """One search done, one running after a failure, one failed for good, the rest waiting."""
    _, study, store = fake_study(tmp_path / "out")
    first, second, third, *_ = study.jobs
    finish(store, first)
    store.folder(second).append_record(record(1))
    write_failure(store.folder(second).place, "ValueError: first try", "the traceback")
    board = Board({job.id: "waiting" for job in study})
    board.states |= {first.id: "done", second.id: "running", third.id: "failed"}
    board.failures |= {second.id: 1, third.id: 3}
    board.notes[third.id] = "its process died without a word"
    return study, store, board


def screen(width: int, height: int) -> tuple[Terminal, io.StringIO]:
    out = io.StringIO()
    return Terminal(
        file=out, force_terminal=True, width=width, height=height, color_system=None
    ), out


def test_a_terminal_shows_every_job_under_its_stage_and_failures_with_their_log(
    running: tuple[Study, Store, Board],
) -> None:
    study, store, board = running
    terminal, out = screen(100, 40)
    console = Console(study, store, terminal)
    console.start(board)
    shown = out.getvalue()
    console.stop()
    lines = [line.rstrip() for line in shown.splitlines()]
    stage = next(i for i, line in enumerate(lines) if "search: 1 of 4 done" in line)
    assert "1 running, 1 failed, 1 waiting" in lines[stage]
    assert lines[stage + 1].split()[:3] == ["frc-seed0", "done", "3/3"]
    assert lines[stage + 2].split()[:5] == ["frc-seed1", "running", "(failed", "1x)", "1/3"]
    assert lines[stage + 2].split()[-1] != lines[stage + 2].split()[-2], "elapsed and left"
    assert any("search-frc-seed2: failed 3x: its process died" in line for line in lines)
    log = f"  log: {store.folder(study.jobs[1]).path / 'failure.json'}"[:90]
    assert any(line.startswith(log) for line in lines)


def test_a_low_terminal_shows_what_runs_and_failed_and_never_more_than_it_has(
    running: tuple[Study, Store, Board],
) -> None:
    study, store, board = running
    terminal, out = screen(60, 14)
    console = Console(study, store, terminal)
    console.start(board)
    lines = out.getvalue().splitlines()
    assert len(lines) <= 14 and max(map(len, lines)) <= 66, "with some control characters"
    text = "\n".join(lines)
    assert "frc-seed1" in text and "orchestrator.status" in text and "frc-seed3" not in text
    out.truncate(0)
    console.stop()
    assert "frc-seed3" in out.getvalue(), "the last view is whole"


def test_a_line_said_on_a_terminal_keeps_its_brackets(
    running: tuple[Study, Store, Board],
) -> None:
    study, store, board = running
    terminal, out = screen(100, 40)
    console = Console(study, store, terminal)
    console.start(board)
    console.say("search-frc-seed1: failed (x[red]); tried again")
    console.stop()
    assert "failed (x[red]); tried again" in out.getvalue()


def test_failures_are_listed_with_the_last_error_and_its_file(
    running: tuple[Study, Store, Board],
) -> None:
    study, store, board = running
    lines = failure_lines(study, store, board)
    assert lines[0] == "search-frc-seed1: failed (now running): ValueError: first try"
    assert lines[1] == f"  log: {store.folder(study.jobs[1]).path / 'failure.json'}"
    assert lines[2] == "search-frc-seed2: failed 3x: its process died without a word"


def test_an_interrupted_study_says_what_is_saved(running: tuple[Study, Store, Board]) -> None:
    study, store, board = running
    assert saved_lines(study, store, board) == ["search-frc-seed1: saved up to epoch 1/3"]
    board.states[study.jobs[3].id] = "running"
    assert saved_lines(study, store, board)[1].startswith("search-frc-seed3: begun")


def test_a_running_jobs_clocks_go_on_between_records() -> None:
    last = record(1, of=3, seconds=100.0)
    last["time"] -= 40
    still = progress([last])
    assert (still["elapsed"], still["left"]) == ("1:40", "3:20")
    running = progress([last], since=last["time"] - 1)
    assert (running["elapsed"], running["left"]) == ("2:20", "2:40")
    resumed = progress([last], since=last["time"] + 40)
    assert resumed["elapsed"] == "1:40", "the time between two starts is not counted"


def test_parts_of_an_epoch_are_shown_in_epochs() -> None:
    assert progress([record(3, of=40)], segments=20)["epoch"] == "0.15/2"


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert columns([("a", "bb", "c"), ("aaa", "b", "")]) == ["a    bb  c", "aaa  b"]


def test_an_overview_has_every_stage_once(running: tuple[Study, Store, Board]) -> None:
    study, store, board = running
    lines = overview(study, board, lambda job: progress(store.folder(job).records()))
    titles = [line.split(":")[0] for line in lines if not line.startswith(" ")][1:]
    assert titles == ["search", "selection", "final training"]


def test_the_whole_studys_time_left_is_above_the_jobs(
    running: tuple[Study, Store, Board],
) -> None:
    study, store, board = running
    terminal, out = screen(100, 40)
    console = Console(study, store, terminal)
    console.left = lambda: (3725.0, 0.5)
    console.start(board)
    line = f"[{'#' * 15}{'-' * 15}] 50 % of the work, about 1:02:05 left"
    assert line in out.getvalue().splitlines()[0]
    out.truncate(0)
    console.stop()
    assert "of the work" not in out.getvalue().rpartition("job ")[2], "the last view is of the end"
