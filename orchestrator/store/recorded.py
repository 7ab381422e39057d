"""A study as its output folder records it: jobs, states and errors. Pure.

This is for commands that read a folder while a study runs or afterwards. Nothing is written.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gdas.errors import InputError
from orchestrator.experiment.build import final_names, search_names
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.study import Job, Study
from orchestrator.store.board import Board
from orchestrator.store.failure import FAILURE, read_failure
from orchestrator.store.holder import DEAD_AFTER_S, NO_LIFE_AFTER_S, changes, holder_of, lives
from orchestrator.store.results import JobEntry
from orchestrator.store.storage import is_address
from orchestrator.store.store import Store, job_of

WATCHED_S = 12.0
"""The heartbeats of a living driver are closer than this, in seconds."""


@dataclass(frozen=True)
class Driver:
    """The process that drives a study now."""

    host: str
    pid: int


def open_recorded(out: str) -> tuple[Store, Study]:
    """Open the study in an output folder, or at an address on an object store.

    Raises:
        InputError: there is no study, or the store does not answer.
    """
    there = is_address(out) or (Path(out) / "study.json").is_file()  # `Store` would make the folder
    store = Store(out) if there else None
    if store is None or not store.study():
        raise InputError(f"{out}: no study there (no study.json); name the --out of a study")
    return store, recorded_study(store)


def recorded_study(store: Store) -> Study:
    """The study that the folder was last started with; jobs that never began have no recipe.

    After `--only` these are the jobs of that part, and those that were done before.

    Raises:
        InputError: study.json is damaged.
    """
    found = store.study()
    settings = found.get("settings", {})
    try:
        jobs = tuple(_job(store, entry) for entry in [*found.get("before", []), *found["jobs"]])
        study = Study(jobs, {}, {}, {}, {})
        finals = _by_seed(study.of_kind("train"), settings.get("finals", {}), final_names)
        lookups = _by_seed(study.of_kind("lookup"), settings.get("searches", {}), search_names)
        looked_up = {
            name: tuple(need for job in jobs if job.id in ids for need in job.needs)
            for name, ids in lookups.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(
            f"{store.address_of('study.json')}: damaged (its jobs cannot be read); delete it, and "
            "start the study again: finished jobs are kept"
        ) from None
    return dataclasses.replace(
        study,
        selections={job.name: job.id for job in study.of_kind("select")},
        finals=finals,
        measures={job.name: job.id for job in study.of_kind("measure")},
        lookups=lookups,
        compared=looked_up | {job.name: job.needs for job in study.of_kind("select")},
    )


def with_done(part: Study, whole: Study, store: Store) -> Study:
    """What `--only` selects, and all else that is done: it limits what starts, not what is known.

    Left out are done jobs of which a job that they need is not done.
    """
    kept = {job.id for job in part}
    for job in whole:
        if store.done(job) and kept.issuperset(job.needs):
            kept.add(job.id)
    return dataclasses.replace(whole, jobs=tuple(job for job in whole if job.id in kept))


def _by_seed(
    jobs: Sequence[Job],
    specs: dict[str, dict[str, Any]],
    names: Callable[[str, Sequence[int]], list[str]],
) -> dict[str, tuple[str, ...]]:
    """The ids of the jobs of every search or final, one per seed, keyed as `build_study` does.

    Two finals that do the same computation share one job, under the name of the first.
    """
    ids = {job.name: job.id for job in jobs}
    return {
        name: tuple(ids[seed] for seed in names(name, spec["seeds"]) if seed in ids)
        for name, spec in specs.items()
    }


def _job(store: Store, entry: JobEntry) -> Job:
    job = job_of(entry)
    try:
        settings = store.folder(job).settings()
        return Job(job.kind, job.name, job.id, job.needs, settings["recipe"], settings["resources"])
    except (OSError, ValueError, KeyError):
        return job


def recorded_experiment(store: Store) -> Experiment:
    """The experiment that the folder was last started with.

    Raises:
        InputError: study.json is damaged, or another version of this project wrote it.
    """
    try:
        settings = json.dumps(store.study()["settings"])
        return TypeAdapter(Experiment).validate_json(settings)
    except (KeyError, ValidationError):
        raise InputError(
            f"{store.address_of('study.json')}: its settings are not ones that this version knows; "
            "run the study's command again: finished jobs are kept"
        ) from None


def driver(store: Store) -> Driver | None:
    """The process that drives the study now; None if it is dead.

    If that cannot be told from this machine and the heartbeat seems old, it is watched for as long
    as two heartbeats may be apart.
    """
    try:
        text = store.lease_text()
        holder = holder_of(text.encode())
        found = Driver(str(holder["host"]), int(holder["pid"]))
        age = abs(time.time() - float(holder["heartbeat"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    known = lives(holder)
    if known is None:
        known = age < DEAD_AFTER_S or (
            age < NO_LIFE_AFTER_S
            and changes(lambda: store.lease_text().encode(), text.encode(), WATCHED_S, 1.0)
        )
    return found if known else None


def recorded_board(store: Store, study: Study, *, driven: bool) -> Board:
    """The state of every job: done, running, stopped, failed, blocked or waiting.

    Args:
        driven: whether a process drives the study. If so, a failed job waits for its retry, unless
            that process has given it up. If not, a job that was begun is stopped, or has failed.
    """
    states: dict[str, str] = {}
    notes: dict[str, str] = {}
    failures: dict[str, int] = {}
    written = store.out / "study.json"
    began = written.stat().st_mtime if written.exists() else 0.0
    for job in study:
        folder = store.folder(job)
        if store.done(job):
            states[job.id] = "done"
        elif any(states[need] in ("failed", "blocked") for need in job.needs):
            states[job.id] = "blocked"
        elif job.in_driver:
            states[job.id] = "waiting"
        elif (failure := read_failure(folder.place)) and (
            failure.settled or _is_last(folder.path, driven, began)
        ):
            failures[job.id], notes[job.id] = failure.times, failure.error
            states[job.id] = "failed" if failure.given_up or not driven else "waiting"
        elif driven and started_at(store, job) >= began:
            states[job.id] = "running"
        else:
            states[job.id] = "stopped" if folder.records() else "waiting"
    return Board(states, notes, failures)


def _is_last(folder: Path, driven: bool, began: float) -> bool:
    """Whether the last thing that happened to a job is its failure.

    Args:
        driven: whether a command drives the study; it retries what failed before it started.
        began: when that command started.
    """
    records = folder / "records.jsonl"
    try:
        failed = (folder / FAILURE).stat().st_mtime
    except OSError:  # the job was started again just now
        return False
    after = not records.exists() or failed >= records.stat().st_mtime
    return after and not (driven and failed < began)


def started_at(store: Store, job: Job) -> float:
    """When the job was last started, in seconds since 1970; 0 if never."""
    try:
        return (store.folder(job).path / "settings.json").stat().st_mtime
    except OSError:
        return 0.0


def damaged_results(study: Study, store: Store) -> list[str]:
    """A line for each job that counts as not done since its result is damaged; reads only."""
    return [
        f"{job.label}: damaged result.json, so it counts as not done; the study's command goes on "
        "from its last checkpoint"
        for job in study.in_cluster
        if store.folder(job).result() is None and (store.folder(job).path / "result.json").exists()
    ]
