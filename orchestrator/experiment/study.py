"""A study: jobs, what each waits for, and what each is, as an id. Pure: no Ray, no files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from orchestrator.experiment.kinds import KINDS, Kind

Alike = tuple[object, ...]
"""What two jobs share that hold the same."""


@dataclass(frozen=True)
class Job:
    """One unit of work, done once.

    Attributes:
        kind: a name of `orchestrator.experiment.kinds.KINDS`.
        name: for people and folder names.
        id: hash of all that can change the result.
        needs: ids of the jobs that must be done first.
        recipe: all that is hashed beside data and needs, ready for JSON.
        resources: what it holds while it runs; recorded only.
    """

    kind: str
    name: str
    id: str
    needs: tuple[str, ...]
    recipe: dict[str, Any]
    resources: dict[str, Any]

    @property
    def label(self) -> str:
        return f"{self.kind}-{self.name}"

    @property
    def of(self) -> Kind:
        """What its kind is."""
        return KINDS[self.kind]

    @property
    def in_driver(self) -> bool:
        """Whether the driver itself does it, between jobs, and no job folder is made."""
        return self.of.runs_in == "driver"

    @property
    def workers(self) -> int:
        """How many processes it is; each holds its share on one machine."""
        return int(self.resources.get("workers", 1))

    @property
    def cost(self) -> dict[str, float]:
        """CPUs and GPUs it holds while it runs."""
        if self.in_driver:
            return {"CPU": 0.0, "GPU": 0.0}
        r, workers = self.resources, self.workers
        if "workers" in r:
            return {"CPU": workers * r["cpus_per_worker"], "GPU": workers * r["gpus_per_worker"]}
        return {"CPU": r["cpus"], "GPU": r["gpus"]}

    @cached_property
    def alike(self) -> Alike:
        """Equal for jobs that hold the same, spread over machines in the same way."""
        return (*self.cost.items(), self.workers)


@dataclass(frozen=True)
class Study:
    """Jobs in an order in which every job comes after those it needs.

    Attributes:
        jobs: each once, under the name it had first, though several finals may be it.
        selections: name of a search to the id of its selection.
        finals: name of a final to the ids of its jobs, one a seed.
        measures: name of a measurement to the id of its job.
        lookups: name of a search to the ids of its lookups, one a seed.
        left_out: name of a final that cannot run to the reason.
    """

    jobs: tuple[Job, ...]
    selections: dict[str, str]
    finals: dict[str, tuple[str, ...]]
    measures: dict[str, str]
    left_out: dict[str, str]
    lookups: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Job]:
        return iter(self.jobs)

    @cached_property
    def in_cluster(self) -> tuple[Job, ...]:
        """The jobs that run in trials or workers and have a folder: all but selections."""
        return tuple(job for job in self.jobs if not job.in_driver)

    def of_kind(self, kind: str) -> list[Job]:
        """All jobs of a kind."""
        return [job for job in self.jobs if job.kind == kind]

    def job(self, job_id: str) -> Job:
        return self._by_id[job_id]

    @cached_property
    def _by_id(self) -> dict[str, Job]:
        return {job.id: job for job in self.jobs}

    def final(self, name: str) -> list[Job]:
        """The jobs of a final, one a seed, without those that `only` left out."""
        ids = self.finals.get(name, ())
        return [job for job in self.jobs if job.id in ids]

    def measure(self, name: str) -> Job | None:
        """The job of a measurement, or None where `only` left it out."""
        return next((job for job in self.jobs if job.id == self.measures[name]), None)

    def lookups_of(self, name: str) -> list[Job]:
        """A search's lookups, one a seed, without those that `only` left out."""
        ids = self.lookups.get(name, ())
        return [job for job in self.jobs if job.id in ids]

    def selection(self, name: str) -> Job | None:
        """The selection of a search, or None where `only` left it out."""
        return next((job for job in self.jobs if job.id == self.selections[name]), None)

    def scored(self, name: str) -> list[Job]:
        """What a selection compares, one a seed: searches, or proxy trainings."""
        select = self.selection(name)
        return [self.job(need) for need in select.needs] if select else []

    def searches(self, name: str) -> list[Job]:
        """A search's jobs, one a seed; none for random cells."""
        searched = (self.search_of(job) for job in self.scored(name))
        return [job for job in searched if job is not None]

    def search_of(self, scored: Job) -> Job | None:
        """The search whose cell a job scores; None for a random cell."""
        if scored.needs:
            return self.job(scored.needs[0])
        return None if "genotype" in scored.recipe else scored

    def only(self, labels: list[str]) -> Study:
        """The named jobs and all that they need.

        Args:
            labels: labels, names or ids; a label's beginning stands for all that begin so.

        Raises:
            KeyError: a label fits no job.
        """
        kept: set[str] = set()
        for label in labels:
            found = [
                job
                for job in self.jobs
                if label in (job.id, job.name) or job.label.startswith(label)
            ]
            if not found:
                raise KeyError(label)
            kept.update(job.id for job in found)
        for job in reversed(self.jobs):
            if job.id in kept:
                kept.update(job.needs)
        jobs = tuple(job for job in self.jobs if job.id in kept)
        return dataclasses.replace(self, jobs=jobs)


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted keys."""
    out: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = str(value)
    return out
