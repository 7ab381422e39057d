"""Progress: one line a job on a terminal, a line a segment in a pipe. Reads job folders only."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console as Terminal
from rich.live import Live
from rich.table import Table

from orchestrator.scheduler import Board
from orchestrator.store import Record, Store
from orchestrator.study import Job, Study

SHOWN = ("valid/top1", "test/top1", "train/top1", "valid/perplexity", "train/perplexity")
"""The first of these that a record has is the metric shown."""


def clock(seconds: float) -> str:
    """1:02 or 3:04:05."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def progress(records: list[Record]) -> dict[str, str]:
    """Epoch, metric, elapsed and remaining of a job, as text."""
    if not records:
        return {"epoch": "", "metric": "", "elapsed": "", "left": ""}
    last = records[-1]
    name = next((key for key in SHOWN if key in last["metrics"]), "")
    spent = sum(record["seconds"] for record in records)
    recent = [record["seconds"] for record in records[-5:]]
    left = (last["of"] - last["position"]) * sum(recent) / len(recent)
    return {
        "epoch": f"{last['position']}/{last['of']}",
        "metric": f"{name} {last['metrics'][name]:.2f}" if name else "",
        "elapsed": clock(spent),
        "left": clock(left),
    }


class Console:
    """Shows where every job stands.

    Args:
        study, store: what is shown.
    """

    def __init__(self, study: Study, store: Store) -> None:
        self.study = study
        self.store = store
        self.terminal = Terminal(highlight=False, soft_wrap=True)
        self.board: Board | None = None
        self.live: Live | None = None
        self.shown = {job.id: len(store.folder(job).records()) for job in study}
        self.last_states: dict[str, str] = {}

    def say(self, line: str) -> None:
        """One line, at once."""
        if self.live is not None:
            self.live.console.print(line)
        else:
            print(line, flush=True)

    def start(self, board: Board) -> None:
        self.board = board
        self.last_states = dict(board.states)
        if self.terminal.is_terminal:
            self.live = Live(self._table(), console=self.terminal, refresh_per_second=2)
            self.live.start()

    def stop(self) -> None:
        if self.live is not None:
            self.live.update(self._table())
            self.live.stop()
            self.live = None

    def update(self) -> None:
        """Show what is new since the last call."""
        if self.live is not None:
            self.live.update(self._table())
            return
        for job in self.study:
            records = self.store.records(job)
            for i in range(min(self.shown[job.id], len(records)), len(records)):
                p = progress(records[: i + 1])
                print(
                    f"{time.strftime('%H:%M:%S')}  {job.label}  epoch {p['epoch']}  {p['metric']}  "
                    f"elapsed {p['elapsed']}  left {p['left']}",
                    flush=True,
                )
            self.shown[job.id] = len(records)
            self._state_change(job)

    def _state_change(self, job: Job) -> None:
        assert self.board is not None
        state = self.board.states[job.id]
        if state != self.last_states.get(job.id) and job.kind != "select":
            if state in ("running", "done"):
                word = "starts" if state == "running" else "done"
                print(f"{time.strftime('%H:%M:%S')}  {job.label}  {word}", flush=True)
            self.last_states[job.id] = state

    def _table(self) -> Table:
        assert self.board is not None
        table = Table(box=None, pad_edge=False)
        for column in ("job", "state", "epoch", "metric", "elapsed", "left"):
            table.add_column(column)
        for job in self.study:
            state = self.board.states[job.id]
            p: dict[str, Any] = progress(self.store.records(job))
            left = p["left"] if state == "running" else ""
            table.add_row(job.label, state, p["epoch"], p["metric"], p["elapsed"], left)
        return table


def error(message: str) -> None:
    """The one way to fail: a line on standard error."""
    print(f"error: {message}", file=sys.stderr, flush=True)
