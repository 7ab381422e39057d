"""A study: the jobs of an experiment, what each waits for, and what each is, as an id.

Pure: no Ray, no MLflow, no files. A job's id is a hash of all that can change its result: its
recipe, its data, the ids it depends on and the algorithm's version. Equal jobs are one job.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import gdas
from gdas.cnn.config import TrainConfig
from gdas.data.settings import AnyImageData, TableData, TextData
from gdas.errors import InputError
from gdas.presets import AnySearchConfig
from gdas.rnn.config import TextTrainConfig
from orchestrator.experiment.config import Experiment, FinalSpec, MeasureSpec, SearchSpec
from orchestrator.experiment.spaces import SPACES

AnyConfig = AnySearchConfig | TrainConfig | TextTrainConfig
Kind = Literal["search", "proxy", "select", "lookup", "train", "measure"]
DataIdentity = Callable[[AnyImageData | TextData | TableData, Any], str]
"""(data settings, split) to what the split's content is; of a table there is one."""

TITLES = {
    "search": "search",
    "proxy": "proxy training",
    "select": "selection",
    "lookup": "lookup",
    "train": "final training",
    "measure": "measurement",
}


Alike = tuple[object, ...]
"""What two jobs share that hold the same."""


@dataclass(frozen=True)
class Job:
    """One unit of work, done once.

    Attributes:
        kind: a search, a short scoring training, a selection, a lookup of a search's cells, a
            final training, or a measurement.
        name: for people and folder names.
        id: hash of all that can change the result.
        needs: ids of the jobs that must be done first.
        recipe: all that is hashed beside data and needs, ready for JSON.
        resources: what it holds while it runs; recorded only.
    """

    kind: Kind
    name: str
    id: str
    needs: tuple[str, ...]
    recipe: dict[str, Any]
    resources: dict[str, Any]

    @property
    def label(self) -> str:
        return f"{self.kind}-{self.name}"

    @property
    def cost(self) -> dict[str, float]:
        """CPUs and GPUs it holds while it runs."""
        r = self.resources
        if self.kind == "select":
            return {"CPU": 0.0, "GPU": 0.0}
        if self.kind == "train":
            workers = r["workers"]
            return {"CPU": workers * r["cpus_per_worker"], "GPU": workers * r["gpus_per_worker"]}
        return {"CPU": r["cpus"], "GPU": r["gpus"]}

    @cached_property
    def alike(self) -> Alike:
        """Equal for jobs that hold the same, spread over machines in the same way."""
        return (*self.cost.items(), self.resources.get("workers", 1))


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
        if scored.kind == "search":
            return scored
        return self.job(scored.needs[0]) if scored.needs else None

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


def build_study(experiment: Experiment, identity: DataIdentity, cells: dict[str, Any]) -> Study:
    """The jobs of an experiment.

    Args:
        identity: what a split's content is.
        cells: the genotype (as JSON) of every final whose cell is not searched, by its name.
    """
    jobs: dict[str, Job] = {}
    selections: dict[str, Job] = {}
    finals: dict[str, tuple[str, ...]] = {}
    measures: dict[str, str] = {}
    left_out: dict[str, str] = {}
    lookups: dict[str, tuple[str, ...]] = {}
    for name, search in experiment.searches.items():
        track = _track(name, search, identity)
        found = _lookups(search, track, identity)
        for job in [*track, *found]:
            jobs.setdefault(job.id, job)
        selections[name] = track[-1]
        lookups[name] = tuple(job.id for job in found)
    for name, final in experiment.finals.items():
        try:
            trainings = _final(name, final, identity, cells, selections)
        except InputError as missing:
            if final.without_data == "refuse":
                raise
            left_out[name] = str(missing)
            continue
        for job in trainings:
            jobs.setdefault(job.id, job)
        finals[name] = tuple(job.id for job in trainings)
    for name, measure in experiment.measures.items():
        job = _measure(name, measure, identity)
        jobs.setdefault(job.id, job)
        measures[name] = job.id
    chosen = {name: job.id for name, job in selections.items()}
    return Study(tuple(jobs.values()), chosen, finals, measures, left_out, lookups)


def _track(name: str, spec: SearchSpec, identity: DataIdentity) -> list[Job]:
    """The searches of one name (none for random cells), their proxies, and the selection last."""
    searches, proxies = [], []
    data = _identities(spec.recipe, identity, *SPACES[spec.recipe.task].splits)
    for seed in spec.seeds:
        config = dataclasses.replace(spec.recipe, seed=seed)
        if spec.cells == "random":
            assert spec.proxy is not None
            drawn = {
                "config": settings_of(spec.proxy),
                "search": settings_of(config),  # its halves of the data
                "genotype": SPACES[spec.recipe.task].random(spec.recipe, seed).to_json(),
                "data": data,
            }
            resources = dataclasses.asdict(spec.proxy_resources)
            proxies.append(_job("proxy", f"{name}-{seed}", drawn, resources))
            continue
        searches.append(
            _job(
                "search",
                f"{name}-seed{seed}",
                {"config": settings_of(config), "data": data},
                dataclasses.asdict(spec.resources),
            )
        )
        if spec.select_by == "proxy":
            assert spec.proxy is not None
            proxies.append(
                _job(
                    "proxy",
                    f"{name}-seed{seed}",
                    {
                        "config": settings_of(spec.proxy),
                        "search": settings_of(config),
                        "data": data,
                    },
                    dataclasses.asdict(spec.proxy_resources),
                    searches[-1],
                )
            )
    scored = proxies or searches
    recipe = {"track": name, "by": spec.select_by, "task": spec.recipe.task}
    select = _job("select", name, recipe, {}, *scored)
    return [*searches, *proxies, select]


def _lookups(spec: SearchSpec, track: list[Job], identity: DataIdentity) -> list[Job]:
    """What looks the searches' cells up, once each search has ended."""
    if spec.lookup is None:
        return []
    looked = {"lookup": dataclasses.asdict(spec.lookup), "table": identity(TableData(), "all")}
    return [
        _job("lookup", search.name, search.recipe | looked, search.resources, search)
        for search in track
        if search.kind == "search"
    ]


def _measure(name: str, spec: MeasureSpec, identity: DataIdentity) -> Job:
    recipe = {
        "config": settings_of(spec.recipe),
        "iterations": spec.iterations,
        "data": _identities(spec.recipe, identity, "train"),
    }
    return _job("measure", name, recipe, dataclasses.asdict(spec.resources))


def _final(
    name: str,
    spec: FinalSpec,
    identity: DataIdentity,
    cells: dict[str, Any],
    selections: dict[str, Job],
) -> list[Job]:
    """A final's trainings, one a seed."""
    data = _identities(spec.recipe, identity, *SPACES[spec.recipe.task].splits, "test")
    recipe: dict[str, Any] = {"data": data}
    needs = []
    if spec.cell.searched is not None:
        recipe["cell"] = {"source": "searched", "track": spec.cell.searched}
        needs = [selections[spec.cell.searched]]
    elif spec.cell.combined is not None:
        recipe["cell"] = {"source": "combined"} | dataclasses.asdict(spec.cell.combined)
        needs = [selections[track] for track in dict.fromkeys(spec.cell.tracks.values())]
    else:
        sources = {
            "published": spec.cell.published,
            "file": spec.cell.file,
            "random": spec.cell.random,
        }
        source = next(key for key, value in sources.items() if value is not None)
        recipe["cell"] = {"source": source, "genotype": cells[name]}
    resources = dataclasses.asdict(spec.resources)
    jobs = []
    for seed in spec.seeds:
        config = settings_of(dataclasses.replace(spec.recipe, seed=seed))
        label = name if len(spec.seeds) == 1 else f"{name}-seed{seed}"
        jobs.append(_job("train", label, recipe | {"config": config}, resources, *needs))
    return jobs


def settings_of(config: AnyConfig) -> dict[str, Any]:
    """A job's settings, as they are hashed into its id.

    Those of a text's data that are as they are for a known text are left out: jobs on known texts
    have the ids that they had before there were others.
    """
    settings = dataclasses.asdict(config)
    if isinstance(config.data, TextData):
        usual = dataclasses.asdict(TextData())
        settings["data"] = {
            key: value
            for key, value in settings["data"].items()
            if key == "name" or value != usual[key]
        }
    return settings


def _identities(config: AnyConfig, identity: DataIdentity, *splits: str) -> dict[str, str]:
    return {split: identity(config.data, split) for split in splits}


def _job(
    kind: Kind, name: str, recipe: dict[str, Any], resources: dict[str, Any], *needs: Job
) -> Job:
    needed = tuple(job.id for job in needs)
    recipe = json.loads(json.dumps(recipe))  # as it reads back from disk: lists, not tuples
    hashed = json.dumps(
        {
            "kind": kind,
            "recipe": recipe,
            "needs": needed,
            "algorithm": gdas.ALGORITHM_VERSION,
        },
        sort_keys=True,
    )
    job_id = hashlib.sha256(hashed.encode()).hexdigest()[:10]
    return Job(kind, name, job_id, needed, recipe, resources)


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted keys."""
    out: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = str(value)
    return out
