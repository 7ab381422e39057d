"""An experiment, its study and what its output folder has by now: what the report is made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from orchestrator.experiment.config import Experiment
from orchestrator.experiment.study import Job, Study
from orchestrator.store.results import FinalResult, Record, Result, SearchResult, Selection
from orchestrator.store.store import Store

R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class Results:
    """What the report's functions ask, by the names that the experiment gives its parts.

    A job that is not done has no result, and is left out.
    """

    experiment: Experiment
    study: Study
    store: Store

    @property
    def folder(self) -> Path:
        """Where the report and its figures go."""
        return self.store.out / "report"

    def result(self, job: Job, kind: type[R]) -> R | None:
        """A job's result; None if it is not done.

        Args:
            kind: what its kind of job leaves, for the type checker.
        """
        return self.store.folder(job).result(kind)

    def done(self, jobs: Iterable[Job], kind: type[R]) -> list[R]:
        """The results of those jobs that are done, in their order."""
        found = (self.result(job, kind) for job in jobs)
        return [result for result in found if result is not None]

    def records(self, job: Job) -> list[Record]:
        """A job's records so far."""
        return self.store.folder(job).records()

    def finals(self, name: str) -> list[FinalResult]:
        """Of a final, a result a seed."""
        return self.done(self.study.final(name), FinalResult)

    def searches(self, name: str) -> list[SearchResult]:
        """Of a search, a result a seed."""
        return self.done(self.study.searches(name), SearchResult)

    def selection(self, name: str) -> Selection | None:
        """What was selected from a search; None if nothing is yet."""
        job = self.study.selection(name)
        return self.store.selection(job) if job else None
