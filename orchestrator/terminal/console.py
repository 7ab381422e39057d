"""Progress: a line a job on a terminal, a line a segment in a pipe. Reads job folders only."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console as Terminal
from rich.live import Live
from rich.text import Text

from gdas.errors import InputError
from orchestrator.experiment.kinds import KINDS
from orchestrator.experiment.study import Job, Study
from orchestrator.store.board import Board, Changes
from orchestrator.store.failure import FAILURE, read_failure
from orchestrator.store.job_folder import NO_SPACE
from orchestrator.store.results import Record
from orchestrator.store.store import Store

SHOWN = (
    *("valid/top1", "test/top1", "train/top1", "valid/perplexity", "train/perplexity"),
    "derived/accuracy",
)
"""The first of these that a record has is the metric shown."""

COLOURS = {"running": "cyan", "done": "green", "failed": "bold red", "blocked": "red"}
HEADER = ("job", "state", "epoch", "metric", "elapsed", "left")


def clock(seconds: float) -> str:
    """1:02 or 3:04:05."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines of text, every column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def progress(
    records: list[Record], *, segments: int = 1, since: float | None = None
) -> dict[str, str]:
    """Epoch, metric, elapsed and left of a job, as text.

    Args:
        segments: of an epoch.
        since: when the job began to run, for one that runs: its clocks go on between records.
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


def job_progress(job: Job, store: Store, *, since: float | None = None) -> dict[str, str]:
    """`progress` of a job from its folder."""
    return progress(store.records(job), segments=_segments(job), since=since)


def _segments(job: Job) -> int:
    """Of an epoch."""
    return int(job.recipe.get("config", {}).get("segments_per_epoch", 1))


def overview(
    study: Study,
    board: Board,
    progress_of: Callable[[Job], Mapping[str, str]],
    *,
    height: int | None = None,
) -> list[str]:
    """A line a job, grouped by stage; with less room, only those that run or failed.

    Args:
        progress_of: a job's epoch, metric, elapsed and left.
        height: lines that there is room for; None: all that are needed.
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
    """A heading, then each stage's jobs under its tally.

    Args:
        only: leave out jobs in other states.
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


def tally(jobs: Sequence[Job], board: Board) -> str:
    """3 of 4 done, 1 running."""
    states = [board.states[job.id] for job in jobs]
    others = [
        f"{states.count(state)} {state}" for state in dict.fromkeys(states) if state != "done"
    ]
    return ", ".join([f"{states.count('done')} of {len(jobs)} done", *others])


def failure_lines(study: Study, store: Store, board: Board) -> list[str]:
    """For every job that failed at least once: how often, the last error, and the file with all."""
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


def saved_lines(study: Study, store: Store, board: Board) -> list[str]:
    """What an interrupted study keeps of every job that had begun."""
    lines = []
    for job in study:
        p = job_progress(job, store) if board.states[job.id] == "running" else {}
        if p.get("epoch"):
            lines.append(f"{job.label}: saved up to epoch {p['epoch']}")
        elif p:
            lines.append(f"{job.label}: begun, its first epoch is not saved yet")
    return lines


class Console:
    """Shows where every job stands.

    Args:
        study, store: what is shown.
        terminal: where to; None: standard output.
    """

    def __init__(self, study: Study, store: Store, terminal: Terminal | None = None) -> None:
        self.study = study
        self.store = store
        self.terminal = terminal or Terminal(highlight=False, soft_wrap=True)
        self.board: Board | None = None
        self.live: Live | None = None
        self.shown = {job.id: len(store.folder(job).records()) for job in study}
        self.changes = Changes()
        self.since: dict[str, float] = {}  # job id -> when it was seen to begin
        # job id -> its state and progress when last looked at
        self.known: dict[str, tuple[str, Mapping[str, str]]] = {}

    def say(self, line: str) -> None:
        """One line, at once."""
        if self.live is not None:
            self.live.console.print(line, markup=False)
        else:
            print(line, flush=True)

    def start(self, board: Board) -> None:
        self.board = board
        self.changes.seen = dict(board.states)
        if self.terminal.is_terminal:
            self.live = Live(
                self._view(), console=self.terminal, auto_refresh=False, vertical_overflow="crop"
            )
            self.live.start(refresh=True)

    def stop(self) -> None:
        if self.live is not None:
            self.live.update(self._view(whole=True), refresh=True)
            self.live.vertical_overflow = "visible"
            self.live.stop()
            self.live = None

    def update(self) -> None:
        """Show what is new since the last call."""
        if self.live is not None:
            self.live.update(self._view(), refresh=True)
            return
        assert self.board is not None
        for job, state in self.changes.due(self.study, self.board):
            if job.in_driver:
                continue
            records = self.store.records(job)
            for i in range(min(self.shown[job.id], len(records)), len(records)):
                p = progress(records[: i + 1], segments=_segments(job))
                print(
                    f"{time.strftime('%H:%M:%S')}  {job.label}  epoch {p['epoch']}  {p['metric']}  "
                    f"elapsed {p['elapsed']}  left {p['left']}",
                    flush=True,
                )
            self.shown[job.id] = len(records)
            if state != self.changes.seen.get(job.id) and state in ("running", "done"):
                word = "starts" if state == "running" else "done"
                print(f"{time.strftime('%H:%M:%S')}  {job.label}  {word}", flush=True)

    def _view(self, *, whole: bool = False) -> Text:
        assert self.board is not None
        # The last view stays on the screen, and the failures are said after it.
        failures = [] if whole else failure_lines(self.study, self.store, self.board)
        height = self.terminal.size.height - 1
        failures = failures[: height // 2]
        room = None if whole else height - len(failures)
        lines = overview(self.study, self.board, self._progress, height=room)
        text = Text("\n".join([*lines, *failures]), no_wrap=True, overflow="ellipsis")
        for state, colour in COLOURS.items():
            text.highlight_regex(rf"(?m)^  \S+ +({state}\b.*?)(?=  |$)", style=colour)
        text.highlight_regex(
            rf"(?m)^({'|'.join(kind.title for kind in KINDS.values())}): .*$", style="bold"
        )
        text.highlight_regex(r"(?m)^\S+: (failed|could not run).*$", style="red")
        return text

    def _progress(self, job: Job) -> Mapping[str, str]:
        assert self.board is not None
        state, since = self.board.states[job.id], None
        if state == "running":
            since = self.since.setdefault(job.id, time.time())
        elif job.id in self.known and self.known[job.id][0] == state:
            return self.known[job.id][1]
        found = job_progress(job, self.store, since=since)
        self.known[job.id] = state, found
        return found


def error(message: str) -> None:
    """The one way to fail: a line on standard error."""
    print(f"error: {message}", file=sys.stderr, flush=True)


def run_command(command: Callable[[], int]) -> int:
    """Run a command's body; returns its exit code, 2 after bad input."""
    try:
        return command()
    except InputError as problem:
        error(str(problem))
        return 2
    except KeyboardInterrupt:
        error("interrupted")
        return 130
    except BrokenPipeError:  # such as `... | head`
        sys.stderr.close()
        return 141
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f"{problem.filename}: " if problem.filename else ""
        error(f"{where}{NO_SPACE}; nothing that was written is harmed, run the same command again")
        return 1


def say_next(command: str) -> None:
    """The last line of every command: what is useful now."""
    print(f"next: {command}", flush=True)
