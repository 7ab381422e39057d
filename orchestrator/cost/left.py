"""How long a running study still takes: the plan's estimates, corrected by what has run.

A job that has records takes what its last segments took. For any other, the estimate is multiplied
by how much longer than estimated the study's jobs of its kind have taken so far, or else its jobs
of all kinds. The rest is the plan's: jobs are handed out as the scheduler does.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from orchestrator.cost.estimate import LAST_S, Estimator, likeness
from orchestrator.cost.plan import duration, makespan
from orchestrator.experiment.study import Job, Study
from orchestrator.store.board import Board, Changes
from orchestrator.store.results import Record
from orchestrator.store.store import Store

EVERY_S = 5.0
"""How often it is computed anew, in seconds; or so seldom that it takes a hundredth of the time."""
RECENT = 5
"""How many of a job's last segments tell its pace."""


class Left(NamedTuple):
    """What is left of a study.

    Attributes:
        seconds: until its last job ends.
        share: how much of its work is done, from 0 to 1.
    """

    seconds: float
    share: float


class Remaining:
    """What is left of a study that runs, asked for several times a minute.

    Args:
        board: the states of its jobs.
        budget: asked for the CPUs and GPUs that jobs may use together.
    """

    def __init__(
        self, study: Study, store: Store, board: Board, budget: Callable[[], Mapping[str, float]]
    ) -> None:
        self.study, self.store, self.board, self.budget = study, store, board, budget
        self.changes = Changes()
        self.records: dict[str, list[Record]] = {}  # by job id, as far as they were read
        self.alone: dict[str, float] = {}  # seconds of a segment as estimated, by `likeness`
        self.found: Left | None = None
        self.due = 0.0

    def __call__(self) -> Left | None:
        """What is left, a few seconds old at most; None if it cannot be told."""
        now = time.monotonic()
        if now >= self.due:
            try:
                self.found = self._computed()
            except Exception:  # a kind of job without an estimate, say; the view goes on without it
                self.found = None
            took = time.monotonic() - now
            self.due = now + max(EVERY_S, 100 * took)
        return self.found

    def _computed(self) -> Left | None:
        for job, _ in self.changes.due(self.study.in_cluster, self.board):
            self.records[job.id] = list(self.store.records(job))
        budget = dict(self.budget())
        if not budget:
            return None  # the cluster is not known yet
        ratios = self._ratios()
        # A job that failed for good, and what needs it, take no more time.
        left = {job.id: self._left(job, ratios) if self._open(job) else 0.0 for job in self.study}
        spans = {job.id: duration(job, left[job.id]) for job in self.study}
        done = sum(self._spent(job) * _size(job) for job in self.study)
        ahead = sum(spans[job.id] * _size(job) for job in self.study)
        share = done / (done + ahead) if done + ahead else 1.0
        return Left(makespan(self.study, spans, budget), share)

    def _open(self, job: Job) -> bool:
        return not job.in_driver and self.board.states[job.id] in ("waiting", "running")

    def _spent(self, job: Job) -> float:
        """Seconds in a job's segments so far."""
        return float(sum(record["seconds"] for record in self.records.get(job.id, ())))

    def _left(self, job: Job, ratios: Mapping[str, float]) -> float:
        """Seconds of work that an open job still has."""
        of, records = segments(job), self.records[job.id]
        ahead = max(0, of - len(records))
        if not ahead:
            return LAST_S
        if not records:
            return ahead * self._segment(job) * ratios.get(job.kind, ratios.get("", 1.0))
        recent = [record["seconds"] for record in records[-RECENT:]]
        running = self.board.states[job.id] == "running"
        begun = max(0.0, time.time() - records[-1]["time"]) if running else 0.0
        return max(LAST_S, ahead * sum(recent) / len(recent) - begun)

    def _ratios(self) -> dict[str, float]:
        """How many times as long as estimated segments took, by kind, and under "" for all."""
        took, estimated = defaultdict[str, float](float), defaultdict[str, float](float)
        for job in self.study.in_cluster:
            records = len(self.records[job.id])
            for kind in (job.kind, "") if records else ():
                took[kind] += self._spent(job)
                estimated[kind] += records * self._segment(job)
        return {kind: took[kind] / seconds for kind, seconds in estimated.items() if seconds}

    def _segment(self, job: Job) -> float:
        """Seconds of one of a job's segments, as estimated before it runs."""
        key = likeness(job.kind, job.recipe, job.resources)
        if key not in self.alone:
            self.alone[key] = Estimator().estimate(job).seconds / segments(job)
        return self.alone[key]


def _size(job: Job) -> float:
    """How much of the cluster a job uses, in its scarcest resource."""
    return job.cost["GPU"] or job.cost["CPU"]


def segments(job: Job) -> int:
    """How many segments a job has."""
    config = job.recipe.get("config", {})
    if "epochs" not in config or "iterations" in job.recipe:
        return 1
    return int(config["epochs"]) * int(config.get("segments_per_epoch", 1))
