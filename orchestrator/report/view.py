"""What the report is made from: an experiment, its study, and the output folder so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from orchestrator.experiment.config import Experiment
from orchestrator.experiment.spaces import SPACES
from orchestrator.experiment.study import Job, Study
from orchestrator.store.board import Board
from orchestrator.store.recorded import driver, recorded_board
from orchestrator.store.results import (
    FinalResult,
    ProxyResult,
    Record,
    Result,
    SearchResult,
    Selection,
)
from orchestrator.store.store import Store

R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class Results:
    """What the report's functions read, by the names that the experiment gives its parts.

    A job that is not done has no result, and is left out.
    """

    experiment: Experiment
    study: Study
    store: Store

    @property
    def folder(self) -> Path:
        """The folder for the report and its figures."""
        return self.store.out / "report"

    @cached_property
    def board(self) -> Board:
        """The state of every job when it is first asked for."""
        driven = driver(self.store) is not None
        return recorded_board(self.store, self.study, driven=driven)

    def result(self, job: Job, kind: type[R]) -> R | None:
        """A job's result; None if it is not done.

        Args:
            kind: the type of the result, for mypy only; it is not checked.
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
        """A final's results, one per seed that is done."""
        return self.done(self.study.final(name), FinalResult)

    def searches(self, name: str) -> list[SearchResult]:
        """A search's results, one per seed that is done."""
        return self.done(self.study.searches(name), SearchResult)

    def trainings(self, name: str) -> dict[int, list[float]]:
        """The score of each proxy training of a search's (or random) cells, by the cell's seed.

        A cell whose trainings are not all done is left out: a mean of fewer is noisier.
        """
        spec = self.experiment.searches[name]
        if spec.select_by != "proxy":
            return {}
        metric, found = SPACES[spec.recipe.task].metric, dict[int, list[float]]()
        for cell in self.study.cells(name):
            done = self.done(cell, ProxyResult)
            if len(done) == spec.proxy_trainings:
                found[cell[0].seed] = [result["metrics"][metric] for result in done]
        return found

    def scores(self, name: str) -> list[float]:
        """The mean over each cell's proxy trainings, of those cells that have all of them."""
        return [fmean(scores) for scores in self.trainings(name).values()]

    def selection(self, name: str) -> Selection | None:
        """The selection record of a search; None if nothing is selected yet."""
        job = self.study.selection(name)
        return self.store.selection(job) if job else None
