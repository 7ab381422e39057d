"""The state of jobs as lines of text, from job folders alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from shlex import quote

from orchestrator.experiment.kinds import KINDS
from orchestrator.experiment.study import Job, Study
from orchestrator.store.board import Board
from orchestrator.store.failure import FAILURE, read_failure
from orchestrator.store.results import Record
from orchestrator.store.store import Store
from orchestrator.terminal.words import clock, columns

SHOWN = (
    *("valid/top1", "test/top1", "train/top1", "valid/perplexity", "train/perplexity"),
    "derived/accuracy",
)
"""Metrics to show; the first one that a record has is shown."""

BAR = 30
"""Letters in the bar of a study's progress."""

HEADER = ("job", "state", "epoch", "metric", "elapsed", "left")


def progress(
    records: list[Record], *, segments: int = 1, since: float | None = None
) -> dict[str, str]:
    """A job's epoch, metric, elapsed and remaining time, as text.

    Args:
        segments: how many segments an epoch has.
        since: when the job started, if it runs; its times then go on between records.
    """
    if not records:
        elapsed = clock(max(0.0, time.time() - since)) if since else ""
        return {"epoch": "", "metric": "", "elapsed": elapsed, "left": ""}
    last = records[-1]
    name = next((key for key in SHOWN if key in last["metrics"]), "")
    spent = sum(record["seconds"] for record in records)
    recent = [record["seconds"] for record in records[-5:]]
    left = (last["of"] - last["position"]) * sum(recent) / len(recent)
    if since is not None:
        beyond = max(0.0, time.time() - max(since, last["time"]))
        spent, left = spent + beyond, max(0.0, left - beyond)
    return {
        "epoch": f"{last['position'] / segments:.4g}/{last['of'] // segments}",
        "metric": f"{name} {last['metrics'][name]:.2f}" if name else "",
        "elapsed": clock(spent),
        "left": clock(left),
    }


def bar(seconds: float, share: float) -> str:
    """A study's progress as a bar, and the time that it still takes.

    Args:
        share: how much of the work is done, from 0 to 1.
    """
    full = min(BAR, int(share * BAR))
    shown = min(99, int(100 * share))  # 100 % is when all is done
    return f"[{'#' * full}{'-' * (BAR - full)}] {shown} % of the work, about {clock(seconds)} left"


def job_progress(job: Job, store: Store, *, since: float | None = None) -> dict[str, str]:
    """The `progress` of a job, from its folder."""
    return progress(store.records(job), segments=segments_of(job), since=since)


def segments_of(job: Job) -> int:
    """How many segments an epoch of the job has."""
    return int(job.recipe.get("config", {}).get("segments_per_epoch", 1))


def tally(jobs: Sequence[Job], board: Board) -> str:
    """A count of jobs by state, such as "3 of 4 done, 1 running"."""
    states = [board.states[job.id] for job in jobs]
    others = [
        f"{states.count(state)} {state}" for state in dict.fromkeys(states) if state != "done"
    ]
    return ", ".join([f"{states.count('done')} of {len(jobs)} done", *others])


def overview(
    study: Study,
    board: Board,
    progress_of: Callable[[Job], Mapping[str, str]],
    *,
    height: int | None = None,
) -> list[str]:
    """A line per job, grouped by kind; if they do not fit, only running and failed jobs.

    Args:
        progress_of: gives a job's `progress`.
        height: how many lines fit; None: as many as are needed.
    """
    if height is None or 1 + len({job.kind for job in study}) + len(study.jobs) <= height:
        return _lines(study, board, progress_of, None)
    lines = _lines(study, board, progress_of, ("running", "failed"))
    return [*lines[: max(1, height - 1)], "(all of them: python -m orchestrator.status OUT)"]


def _lines(
    study: Study,
    board: Board,
    progress_of: Callable[[Job], Mapping[str, str]],
    only: tuple[str, ...] | None,
) -> list[str]:
    """A heading, then each kind's jobs under its tally.

    Args:
        only: the states of jobs to show; None: all.
    """
    rows: list[tuple[str, ...] | str] = [HEADER]
    for name, kind in KINDS.items():
        jobs = study.of_kind(name)
        if not jobs:
            continue
        rows.append(f"{kind.title}: {tally(jobs, board)}")
        for job in jobs:
            state, tried = board.states[job.id], board.failures.get(job.id, 0)
            if only is not None and state not in only:
                continue
            p = progress_of(job)
            left = p["left"] if state == "running" else ""
            if tried and state != "failed":
                state += f" (failed {tried}x)"
            rows.append((f"  {job.name}", state, p["epoch"], p["metric"], p["elapsed"], left))
    cells = iter(columns([row for row in rows if not isinstance(row, str)]))
    return [row if isinstance(row, str) else next(cells) for row in rows]


def failure_lines(study: Study, store: Store, board: Board) -> list[str]:
    """For every job that failed at least once: how often, the last error, and its log file."""
    lines = []
    for job in study:
        count, state = board.failures.get(job.id, 0), board.states[job.id]
        if state == "blocked":
            why = board.notes.get(job.id, "what it needs failed")
            lines.append(f"{job.label}: could not run: {why}")
        elif count or state == "failed":
            folder = store.folder(job)
            failure, silent = read_failure(folder.place), "its process died without a word"
            why = board.notes.get(job.id) or (failure.error if failure else silent)
            times = f" {count}x" if count > 1 else ""
            then = "" if state == "failed" else f" (now {state})"
            lines.append(f"{job.label}: failed{times}{then}: {why}")
            there = (folder.path / FAILURE).exists()
            log = f"  log: {folder.place.address_of(FAILURE)}"
            lines.append(log if there else f"  folder: {folder.address}")
    return lines


def split_failed(study: Study, store: Store, board: Board) -> tuple[list[Job], list[Job]]:
    """The failed jobs that the next command does not try again, and the others."""
    failed = [job for job in study if board.states[job.id] == "failed"]
    found = {job.id: read_failure(store.folder(job).place) for job in failed if not job.in_driver}
    stuck = [job for job in failed if (failure := found.get(job.id)) and failure.settled]
    return stuck, [job for job in failed if job not in stuck]


def unfinished_line(study: Study, store: Store, board: Board) -> str:
    """What becomes of a study's failed jobs with the next command."""
    stuck, others = split_failed(study, store, board)
    if not stuck:
        return "some jobs did not finish; the same command tries them again"
    failure, more = read_failure(store.folder(stuck[0]).place), len(stuck) - 1
    then = failure.then(stuck[0].label) if failure else ""
    line = f"{stuck[0].label}{f' and {more} more' if more else ''} diverged and "
    line += f"{'are' if more else 'is'} {then}"
    return f"{line}; the same command tries the others again" if others else line


def command_after(study: Study, store: Store, board: Board, command: str) -> str:
    """What to run next: the study's own command, unless that would change nothing."""
    out = quote(store.address)
    if board.all_done():
        return f"python -m orchestrator.status {out}"
    stuck, others = split_failed(study, store, board)
    states = set(board.states.values())
    if not stuck or others or states.intersection(("waiting", "running", "stopped")):
        return command
    return f"python -m orchestrator.log {out} {stuck[0].label} --traceback"


def saved_lines(study: Study, store: Store, board: Board) -> list[str]:
    """For every job that was running when the study was interrupted, what is saved."""
    lines = []
    for job in study:
        p = job_progress(job, store) if board.states[job.id] == "running" else {}
        if p.get("epoch"):
            lines.append(f"{job.label}: saved up to epoch {p['epoch']}")
        elif p:
            lines.append(f"{job.label}: begun, its first epoch is not saved yet")
    return lines
