"""From an experiment to its study: which jobs there are, and the id of each. Pure: no files.

A job's id is a hash of everything that can change its result: its recipe, its data, the ids of the
jobs it depends on and the algorithm's version. Jobs with equal ids are one job.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gdas
from gdas.cnn.config import TrainConfig
from gdas.cnn.genotype import OPERATIONS
from gdas.data.settings import AnyImageData, TableData, TextData
from gdas.errors import InputError
from gdas.outside import outside, source_checksum
from gdas.presets import AnySearchConfig
from gdas.rnn.config import TextTrainConfig
from orchestrator.experiment.config import Experiment, FinalSpec, MeasureSpec, SearchSpec
from orchestrator.experiment.spaces import SPACES
from orchestrator.experiment.study import Job, Study

AnyConfig = AnySearchConfig | TrainConfig | TextTrainConfig
DataIdentity = Callable[[AnyImageData | TextData | TableData, Any], str]
"""Maps data settings and a split to a checksum of the split; a table counts as one split."""


Code = Callable[[str], str]
"""Maps an operation from outside the package to the checksum of its source."""
Content = Callable[..., dict[str, Any]]
"""`_content` without its first two arguments."""


def build_study(
    experiment: Experiment,
    identity: DataIdentity,
    cells: dict[str, Any],
    code: Code = source_checksum,
) -> Study:
    """Make the jobs of an experiment.

    Args:
        identity: gives the checksum of a split.
        cells: the genotype (as JSON) of every final whose cell is not searched, by the final's
            name.
        code: gives the checksum of an operation that is from outside the package.
    """
    content = partial(_content, identity, code)
    jobs: dict[str, Job] = {}
    selections: dict[str, Job] = {}
    finals: dict[str, tuple[str, ...]] = {}
    measures: dict[str, str] = {}
    left_out: dict[str, str] = {}
    lookups: dict[str, tuple[str, ...]] = {}
    compared: dict[str, tuple[str, ...]] = {}
    for name, search in experiment.searches.items():
        searches, proxies, select = _track(name, search, content)
        found = _lookups(search, searches, identity)
        for job in [*searches, *proxies, select, *found]:
            jobs.setdefault(job.id, job)
        selections[name], compared[name] = select, select.needs
        lookups[name] = tuple(job.id for job in found)
    for name, final in experiment.finals.items():
        try:
            trainings = _final(name, final, content, cells, selections)
        except InputError as missing:
            if final.without_data == "refuse":
                raise
            left_out[name] = str(missing)
            continue
        for job in trainings:
            jobs.setdefault(job.id, job)
        finals[name] = tuple(job.id for job in trainings)
    for name, measure in experiment.measures.items():
        job = _measure(name, measure, content)
        jobs.setdefault(job.id, job)
        measures[name] = job.id
    chosen = {name: job.id for name, job in selections.items()}
    return Study(tuple(jobs.values()), chosen, finals, measures, left_out, lookups, compared)


def _track(name: str, spec: SearchSpec, content: Content) -> tuple[list[Job], list[Job], Job]:
    """The searches of a name (none for random cells), their proxy trainings and the selection."""
    searches: list[Job] = []
    proxies: list[Job] = []
    read = content(spec.recipe, *SPACES[spec.recipe.task].splits)
    for seed in spec.seeds:
        config = dataclasses.replace(spec.recipe, seed=seed)
        if spec.cells == "random":
            genotype = SPACES[spec.recipe.task].random(spec.recipe, seed).to_json()
            drawn = {"search": _however_computed(config), "genotype": genotype, **read}
            proxies += _proxies(spec, f"{name}-{seed}", drawn)
            continue
        searches.append(
            make_job(
                "search",
                f"{name}-seed{seed}",
                {"config": settings_of(config), **read},
                dataclasses.asdict(spec.resources),
            )
        )
        if spec.select_by == "proxy":
            recipe = {"search": _however_computed(config), **read}
            proxies += _proxies(spec, f"{name}-seed{seed}", recipe, searches[-1])
    scored = proxies or searches
    chosen = {"track": name, "by": spec.select_by, "task": spec.recipe.task}
    return searches, proxies, make_job("select", name, chosen, {}, *scored)


def _proxies(spec: SearchSpec, name: str, recipe: dict[str, Any], *needs: Job) -> list[Job]:
    """The proxy trainings of one cell, which differ in their seed alone.

    Args:
        recipe: what they have in common: the data and, as `search`, the settings of the search, by
            which D_T and D_V are known.
        needs: the cell's search; none for a random cell.
    """
    assert spec.proxy is not None, "cells of this space are not trained"
    resources = dataclasses.asdict(spec.proxy_resources)
    jobs = []
    for number in range(spec.proxy_trainings):
        config = dataclasses.replace(spec.proxy, seed=spec.proxy.seed + number)
        own = {"config": settings_of(config), **recipe}
        jobs.append(make_job("proxy", training_name(name, number + 1), own, resources, *needs))
    return jobs


def _lookups(spec: SearchSpec, searches: list[Job], identity: DataIdentity) -> list[Job]:
    """The jobs that look the searches' cells up in the table, one for each search."""
    if spec.lookup is None:
        return []
    looked = {"lookup": dataclasses.asdict(spec.lookup), "table": identity(TableData(), "all")}
    return [
        make_job("lookup", search.name, search.recipe | looked, search.resources, search)
        for search in searches
    ]


def _measure(name: str, spec: MeasureSpec, content: Content) -> Job:
    recipe = {
        "config": _however_computed(spec.recipe),
        "iterations": spec.iterations,
        **content(spec.recipe, "train"),
    }
    return make_job("measure", name, recipe, dataclasses.asdict(spec.resources))


def _final(
    name: str,
    spec: FinalSpec,
    content: Content,
    cells: dict[str, Any],
    selections: dict[str, Job],
) -> list[Job]:
    """A final's trainings, one per seed."""
    recipe = content(spec.recipe, *SPACES[spec.recipe.task].splits, "test")
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
    for seed, label in zip(spec.seeds, final_names(name, spec.seeds), strict=True):
        config = settings_of(dataclasses.replace(spec.recipe, seed=seed))
        jobs.append(make_job("train", label, recipe | {"config": config}, resources, *needs))
    return jobs


def search_names(name: str, seeds: Sequence[int]) -> list[str]:
    """The names of a search's jobs, and of their lookups, one per seed."""
    return [f"{name}-seed{seed}" for seed in seeds]


def training_name(name: str, number: int) -> str:
    """The name of a cell's proxy training of this number, from 1; the first has the cell's own."""
    return name if number == 1 else f"{name}-training{number}"


def final_names(name: str, seeds: Sequence[int]) -> list[str]:
    """The names of a final's jobs, one per seed."""
    return [name] if len(seeds) == 1 else search_names(name, seeds)


def _content(identity: DataIdentity, code: Code, config: AnyConfig, *splits: str) -> dict[str, Any]:
    """What a job reads besides its settings: the splits and, if it has any, the user's functions.

    Each is named by its checksum.
    """
    read = {"data": {split: identity(config.data, split) for split in splits}}
    sampler = getattr(config, "sampler", None)  # of a search
    method = sampler.method if sampler is not None else None
    own = outside([*getattr(config, "operations", ()), *([method] if method else [])])
    return read | ({"code": {name: code(name) for name in own}} if own else {})


# Settings that were added after jobs had ids, each with the values that change nothing: with one of
# them a setting is left out of what is hashed, so that the jobs keep the ids that they had before.
CHANGES_NOTHING: dict[tuple[str, ...], tuple[Any, ...]] = {
    ("execution",): ("eager",),
    ("operations",): ((), OPERATIONS),
    ("sampler", "method"): (None,),
    ("alpha", "risk_seeking"): (0,),
}


def settings_of(config: AnyConfig) -> dict[str, Any]:
    """A job's settings as they are hashed into its id.

    Left out are those of `CHANGES_NOTHING` and, for the same reason, settings of text data that are
    the known texts' own.
    """
    settings = dataclasses.asdict(config)
    for (*sections, key), values in CHANGES_NOTHING.items():
        section = settings
        for name in sections:
            section = section.get(name, {})
        if key in section and section[key] in values:
            del section[key]
    if isinstance(config.data, TextData):
        usual = dataclasses.asdict(TextData())
        settings["data"] = {
            key: value
            for key, value in settings["data"].items()
            if key == "name" or value != usual[key]
        }
    return settings


def _however_computed(config: AnySearchConfig) -> dict[str, Any]:
    """A search's settings without `execution` and `kernels`.

    They are for jobs that take none of a search's steps, or always take them in the same way.
    """
    how = ("execution", "kernels")
    return {key: value for key, value in settings_of(config).items() if key not in how}


def make_job(
    kind: str, name: str, recipe: dict[str, Any], resources: dict[str, Any], *needs: Job
) -> Job:
    """Make a job, with its id: a hash of everything that can change its result.

    Args:
        kind: a key of `orchestrator.experiment.kinds.KINDS`.
        recipe: everything that is hashed besides `needs`, ready for JSON.
        resources: recorded, but not hashed.
        needs: the jobs that must be done first.
    """
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
