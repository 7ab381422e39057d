"""Progress while a study runs: a line per job on a terminal, a line per segment in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from rich.console import Console as Terminal
from rich.live import Live
from rich.text import Text

from orchestrator.experiment.kinds import KINDS
from orchestrator.experiment.study import Job, Study
from orchestrator.store.board import Board, Changes
from orchestrator.store.store import Store
from orchestrator.terminal.progress import (
    bar,
    failure_lines,
    job_progress,
    overview,
    progress,
    segments_of,
)

COLOURS = {"running": "cyan", "done": "green", "failed": "bold red", "blocked": "red"}


class Console:
    """Shows the state of every job.

    Args:
        study, store: the study, and its output folder.
        terminal: where it is shown; None: standard output.

    Attributes:
        left: if given, tells the seconds that the whole study still takes, and how much of it is
            done, from 0 to 1; None if it cannot tell.
    """

    def __init__(self, study: Study, store: Store, terminal: Terminal | None = None) -> None:
        self.study = study
        self.store = store
        self.terminal = terminal or Terminal(highlight=False, soft_wrap=True)
        self.board: Board | None = None
        self.left: Callable[[], tuple[float, float] | None] = lambda: None
        self.live: Live | None = None
        self.shown = {job.id: len(store.folder(job).records()) for job in study}
        self.changes = Changes()
        self.since: dict[str, float] = {}  # job id -> when it was first seen running
        # job id -> its state and progress when its folder was last read
        self.known: dict[str, tuple[str, Mapping[str, str]]] = {}

    def say(self, line: str) -> None:
        """Print one line at once, above the live view if there is one."""
        if self.live is not None:
            self.live.console.print(line, markup=False)
        else:
            print(line, flush=True)

    def start(self, board: Board) -> None:
        """Show the board's jobs from now on; on a terminal, as a view that is redrawn."""
        self.board = board
        self.changes.seen = dict(board.states)
        if self.terminal.is_terminal:
            self.live = Live(
                self._view(), console=self.terminal, auto_refresh=False, vertical_overflow="crop"
            )
            self.live.start(refresh=True)

    def stop(self) -> None:
        """Draw the last view, with every job, and leave it on the terminal."""
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
                p = progress(records[: i + 1], segments=segments_of(job))
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
        # The last view stays on the screen, and the failures are printed after it.
        failures = [] if whole else failure_lines(self.study, self.store, self.board)
        height = self.terminal.size.height - 1
        failures = failures[: height // 2]
        left = None if whole else self.left()
        above = [] if left is None else [bar(*left)]
        room = None if whole else height - len(failures) - len(above)
        lines = overview(self.study, self.board, self._progress, height=room)
        text = Text("\n".join([*above, *lines, *failures]), no_wrap=True, overflow="ellipsis")
        for state, colour in COLOURS.items():
            text.highlight_regex(rf"(?m)^  \S+ +({state}\b.*?)(?=  |$)", style=colour)
        titles = "|".join(kind.title for kind in KINDS.values())
        text.highlight_regex(rf"(?m)^({titles}): .*$", style="bold")
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
