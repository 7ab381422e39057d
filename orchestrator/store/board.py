"""The state of every job of a study, shared by whatever runs, shows or tracks them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from orchestrator.experiment.study import Job

State = str
"""waiting, running, done, failed or blocked."""


@dataclass
class Board:
    """The state of every job, shared by the scheduler and the console.

    Attributes:
        states: the state, by job id.
        notes: why a job failed or cannot run, by job id.
        failures: how often a job has failed so far, by job id.
    """

    states: dict[str, State]
    notes: dict[str, str] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)

    def open(self) -> bool:
        """Whether any job has yet to finish."""
        return any(state in ("waiting", "running") for state in self.states.values())

    def all_done(self) -> bool:
        """Whether every job has its result; failed and blocked ones have not."""
        return all(state == "done" for state in self.states.values())


class Changes:
    """Tell which jobs' folders to read again; it is asked every second or two.

    Those are the running jobs, and the jobs whose state changed since their folder was last read.
    So the cost of a round grows with the jobs that run, not with all jobs of the study.

    Attributes:
        seen: a job's state when its folder was last read, by job id.
    """

    def __init__(self) -> None:
        self.seen: dict[str, State] = {}

    def due(self, jobs: Iterable[Job], board: Board) -> Iterator[tuple[Job, State]]:
        """Yield those jobs and their states; if the caller raises on one, it is due again."""
        for job in jobs:
            state = board.states[job.id]  # before the folder is read: a later change is due
            if state == "running" or self.seen.get(job.id) != state:
                yield job, state
                self.seen[job.id] = state
