"""A study: its jobs, what each depends on, and the id of each. Pure: no Ray, no files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gdas.cnn.fused.choice import wanted
from orchestrator.experiment.kinds import KINDS, Kind

Alike = tuple[object, ...]
"""A key that is equal for jobs with equal resources."""


@dataclass(frozen=True)
class Job:
    """One unit of work, done once.

    Attributes:
        kind: a key of `orchestrator.experiment.kinds.KINDS`.
        name: the name that people and folders use.
        id: a hash of everything that can change the result.
        needs: ids of the jobs that must be done first.
        recipe: everything that is hashed besides `needs`, ready for JSON.
        resources: the CPUs, GPUs and so on that it uses; recorded, but not hashed.
    """

    kind: str
    name: str
    id: str
    needs: tuple[str, ...]
    recipe: dict[str, Any]
    resources: dict[str, Any]

    @property
    def label(self) -> str:
        """Kind and name, such as "search-frc-seed0"; how people name a job."""
        return f"{self.kind}-{self.name}"

    @property
    def of(self) -> Kind:
        """The entry of its kind."""
        return KINDS[self.kind]

    @property
    def seed(self) -> int:
        """Its own seed; for a proxy training, that of the search or random cell that it scores."""
        return int(self.recipe.get("search", self.recipe["config"])["seed"])

    @property
    def in_driver(self) -> bool:
        """Whether the driver itself runs it, between other jobs, without a job folder."""
        return self.of.runs_in == "driver"

    @property
    def workers(self) -> int:
        """How many processes it runs in; each needs its share of the resources on one machine."""
        return int(self.resources.get("workers", 1))

    @property
    def cost(self) -> dict[str, float]:
        """The CPUs and GPUs that it uses while it runs, over all its workers."""
        if self.in_driver:
            return {"CPU": 0.0, "GPU": 0.0}
        r, workers = self.resources, self.workers
        if "workers" in r:
            return {"CPU": workers * r["cpus_per_worker"], "GPU": workers * r["gpus_per_worker"]}
        return {"CPU": r["cpus"], "GPU": r["gpus"]}

    @property
    def fused(self) -> bool:
        """Whether it asks for fused kernels."""
        return bool(asks_for_fused(self.recipe, self.resources))

    @cached_property
    def alike(self) -> Alike:
        """A key that is equal for jobs with the same resources and number of processes."""
        return (*self.cost.items(), self.workers, self.machines)

    @property
    def machines(self) -> str | None:
        """The resource that its machines must have, besides what it uses; None: any machine."""
        named: str | None = self.resources.get("machines")
        return named


def asks_for_fused(recipe: Mapping[str, Any], resources: Mapping[str, Any]) -> bool | None:
    """Whether a job asks for fused kernels on its device; None if it has no such setting."""
    config = recipe.get("config", {})
    if "kernels" not in config:
        return None
    compiled = config.get("compile", False)
    return wanted(config["kernels"], resources["device"], config["precision"], compiled=compiled)


@dataclass(frozen=True)
class Study:
    """Jobs in an order in which every job comes after those it needs.

    Attributes:
        jobs: each once. If several finals are the same computation, it has the first one's name.
        selections: name of a search to the id of its selection.
        finals: name of a final to the ids of its jobs, one per seed.
        measures: name of a measurement to the id of its job.
        lookups: name of a search to the ids of its lookups, one per seed.
        compared: name of a search to the ids of the jobs that its selection compares.
        left_out: name of a final that cannot run to the reason.
    """

    jobs: tuple[Job, ...]
    selections: dict[str, str]
    finals: dict[str, tuple[str, ...]]
    measures: dict[str, str]
    left_out: dict[str, str]
    lookups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    compared: dict[str, tuple[str, ...]] = field(default_factory=dict)

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
        """The job with that id; KeyError if the study has none."""
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
        return next((job for job in self.jobs if job.id == self.measures.get(name)), None)

    def lookups_of(self, name: str) -> list[Job]:
        """A search's lookups, one per seed, without those that `only` left out."""
        ids = self.lookups.get(name, ())
        return [job for job in self.jobs if job.id in ids]

    def selection(self, name: str) -> Job | None:
        """The selection of a search; None if `only` left it out."""
        return next((job for job in self.jobs if job.id == self.selections.get(name)), None)

    def scored(self, name: str) -> list[Job]:
        """The jobs that a selection compares: searches, or all proxy trainings of every cell.

        Those that `only` left out are missing; the selection itself may be among them.
        """
        return [self.job(own) for own in self.compared.get(name, ()) if own in self._by_id]

    def cells(self, name: str) -> list[list[Job]]:
        """The jobs that a selection compares, by cell, in the order of the seeds.

        A search scores its own cell; of proxy trainings a cell may have several. Left out are those
        that never began in a study of which nothing else is known than its folder.
        """
        cells: dict[int, list[Job]] = {}
        for job in (job for job in self.scored(name) if job.recipe):
            cells.setdefault(job.seed, []).append(job)
        return list(cells.values())

    def searches(self, name: str) -> list[Job]:
        """A search's jobs, one per seed; none for random cells."""
        searched = (self.search_of(cell[0]) for cell in self.cells(name))
        return [job for job in searched if job is not None]

    def search_of(self, scored: Job) -> Job | None:
        """The search whose cell a job scores; None for a random cell."""
        if scored.needs:
            return self.job(scored.needs[0])
        return None if "genotype" in scored.recipe else scored

    def beginnings(self) -> list[str]:
        """All labels and all their beginnings that end before a hyphen, each once."""
        parts = [job.label.split("-") for job in self.jobs]
        found = ["-".join(words[: n + 1]) for words in parts for n in range(len(words))]
        return list(dict.fromkeys(found))

    def named(self, label: str) -> list[Job]:
        """The jobs with that name or id, and those whose label begins so."""
        return [
            job for job in self.jobs if label in (job.id, job.name) or job.label.startswith(label)
        ]

    def only(self, labels: list[str]) -> Study:
        """The study of the selected jobs and all that they depend on.

        Args:
            labels: what `named` selects jobs by.

        Raises:
            KeyError: a label selects no job.
        """
        kept: set[str] = set()
        for label in labels:
            found = self.named(label)
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
