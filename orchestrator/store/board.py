"""Where every job of a study stands, for all that run, show or track it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from orchestrator.experiment.study import Job

State = str
"""waiting, running, done, failed or blocked."""


@dataclass
class Board:
    """Where every job stands, shared by the scheduler and the console.

    Attributes:
        states: by job id.
        notes: why a job failed or cannot run, by job id.
        failures: errors so far, by job id.
    """

    states: dict[str, State]
    notes: dict[str, str] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)

    def open(self) -> bool:
        """Whether a job is still to be run."""
        return any(state in ("waiting", "running") for state in self.states.values())

    def all_done(self) -> bool:
        return all(state == "done" for state in self.states.values())


class Changes:
    """Which jobs are worth another look at their folders, asked every second or two.

    Those that run, and those whose state is another one than at the last look: so that a look costs
    what runs, and not what there is.
    """

    def __init__(self) -> None:
        self.seen: dict[str, State] = {}

    def due(self, jobs: Iterable[Job], board: Board) -> Iterator[tuple[Job, State]]:
        """Such jobs and their states; a job whose look raised is due again."""
        for job in jobs:
            state = board.states[job.id]  # before the look: what comes after it is seen next time
            if state == "running" or self.seen.get(job.id) != state:
                yield job, state
                self.seen[job.id] = state
