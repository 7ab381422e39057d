"""What a command is about to do: the state of every job, what changed, and how long it takes."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Collection, Mapping

import torch

from gdas.errors import InputError
from orchestrator.cost.cards import said_of_card
from orchestrator.cost.estimate import (
    GUESSED,
    MEASURED,
    Estimate,
    Estimator,
    estimated_seconds,
    sharing,
)
from orchestrator.experiment.study import Job, Study, flat
from orchestrator.run.scheduler import head_that_fits
from orchestrator.store.failure import read_failure
from orchestrator.store.kernels import kernels_here, other_kernels
from orchestrator.store.store import Store
from orchestrator.terminal.arithmetic import say_arithmetic
from orchestrator.terminal.words import clock

DAY_S = 86_400.0
NOT_RUN = ("diverged", "blocked")
"""States of jobs that the command does not run, and that take no time."""
NO_WORK = Estimate(0.0, "")
TEAM_S = 14.0
"""CPU seconds in which Ray Train starts several workers, which import PyTorch and connect."""
COMMAND_S = 25.0
"""Seconds before the first job's start and after the last one's end, on two cores of 2024.

They go into imports, Ray, MLflow and the report.
"""


def print_plan(
    study: Study,
    store: Store | None,
    estimator: Estimator,
    price: float | None = None,
    anyway: Collection[str] = (),
) -> None:
    """Print the jobs, their states, resources and times, and what each waits for.

    Args:
        price: the price of an hour of a GPU if the study uses GPUs, else of a CPU core.
        anyway: ids of jobs that are tried even if they diverged in an earlier command.
    """
    states = standings(study, store, anyway)
    estimates = {
        job.id: NO_WORK if states[job.id] in NOT_RUN else estimator.estimate(job) for job in study
    }
    print(f"{'job':38} {'state':12} {'resources':16} {'work':>10} {'known by':10}  waits for")
    for job in study:
        cost = ", ".join(f"{v:g} {k}" for k, v in job.cost.items() if v) or "-"
        waits = study.job(job.needs[0]).label if job.needs else ""
        if len(job.needs) > 1:
            waits += f" and {len(job.needs) - 1} more"
        seconds, source = estimates[job.id]
        work, known = (clock(seconds), source) if seconds else ("-", "")
        print(f"{job.label:38} {states[job.id]:12} {cost:16} {work:>10} {known:10}  {waits}")
    for name, reason in study.left_out.items():
        print(f"{f'train-{name}':38} left out: {reason}")
    say_arithmetic(job for job in study if estimates[job.id].seconds)
    for line in totals(study, estimates, _resources_here(study), price):
        print(line)


def totals(
    study: Study, estimates: Mapping[str, Estimate], budget: dict[str, float], price: float | None
) -> list[str]:
    """Time, device-hours and price of what is left, and how they are known."""
    open_jobs = [job for job in study if estimates[job.id].seconds]
    if not open_jobs:
        return ["nothing is left to do"]
    spans = {job.id: duration(job, estimates[job.id].seconds) for job in study}
    wall = COMMAND_S + makespan(study, spans, budget)
    device = "GPU" if any(job.cost["GPU"] for job in open_jobs) else "CPU"
    hours = sum(spans[job.id] * job.cost[device] for job in open_jobs) / 3600
    held = " and ".join(f"{v:g} {k}" for k, v in budget.items() if v)
    line = f"in all: about {clock(wall)} with {held}; {hours:.2f} {device}-hours"
    if price is not None:
        line += f", at {price:g} an hour {hours * price:.2f}"
    sources = Counter(estimates[job.id].source for job in open_jobs)
    known = ", ".join(f"{count} {source}" for source, count in sources.most_common())
    lines = [line, f"how the work is known, jobs: {known}"]
    if sources[MEASURED]:
        lines.append(said_of_card())
    if sources[GUESSED]:
        lines.append(
            "a guess may be wrong by several times; --calibrate times a few real steps of every "
            "kind of job whose device is here"
        )
    return lines


def duration(job: Job, work: float) -> float:
    """Wall-clock seconds from a job's start to its end; 0 if nothing is left."""
    if not work:
        return 0.0
    r = job.resources
    cores = r.get("cpus_per_worker", r.get("cpus", 1.0))
    crowded = 1.0 if job.cost["GPU"] else max(1.0, r["threads"] / cores)
    start = job.of.start_s + (TEAM_S if job.workers > 1 else 0.0)
    return (start + work) * crowded


def makespan(study: Study, spans: dict[str, float], budget: dict[str, float]) -> float:
    """When the last job ends, in seconds, if jobs are handed out as the scheduler does."""
    ends: dict[str, float] = {}
    done = {job.id for job in study if not spans[job.id] and not job.in_driver}
    now = 0.0
    while True:
        for job in study:  # selections take no time
            if job.in_driver and done.issuperset(job.needs):
                done.add(job.id)
        waiting = [j for j in study.in_cluster if j.id not in done and j.id not in ends]
        ready = [job for job in waiting if done.issuperset(job.needs)]
        head = head_that_fits(ready, [study.job(job_id) for job_id in ends], budget)
        if head is not None:
            ends[head.id] = now + spans[head.id]
            continue
        if not ends:
            return now
        first = min(ends, key=lambda job_id: ends[job_id])
        now = ends.pop(first)
        done.add(first)


def _resources_here(study: Study) -> dict[str, float]:
    """This machine's CPUs and GPUs, or as many as the widest job needs if there are fewer."""
    here = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    widest = {key: max((job.cost[key] for job in study), default=0.0) for key in here}
    return {key: max(here[key], widest[key]) for key in here}


def standings(study: Study, store: Store | None, anyway: Collection[str]) -> dict[str, str]:
    """The state of every job before the command, by id.

    Those of `standing`; `tried again` for what diverged and is in `anyway`; `blocked` for what
    needs a job that diverged and is not tried again.
    """
    states: dict[str, str] = {}
    for job in study:
        state = standing(job, store) if store else "new"
        if state == "diverged" and job.id in anyway:
            state = "tried again"
        elif state != "done" and any(states[need] in NOT_RUN for need in job.needs):
            state = "blocked"
        states[job.id] = state
    return states


def standing(job: Job, store: Store) -> str:
    """A job's state before the command: done, goes on, new, changed or diverged."""
    if store.done(job):
        return "done"
    if job.in_driver:
        return "new"
    failure = read_failure(store.folder(job).place)
    if failure is not None and failure.settled:
        return "diverged"
    positions = sorted(store.folder(job).checkpoints.glob("*/manifest.json"))
    if positions:
        position = int(positions[-1].parent.name)
        epoch = position / job.recipe["config"].get("segments_per_epoch", 1)
        return f"goes on after epoch {epoch:.4g}"
    return "changed" if store.other_versions(job) else "new"


def say_standings(study: Study, store: Store) -> None:
    """Print a command's first lines: which jobs are done, go on, are new or changed, and how."""
    for name, reason in study.left_out.items():
        print(f"train-{name}: left out: {reason}", flush=True)
    say_arithmetic(job for job in study.in_cluster if not store.done(job))
    for job in study:
        state = standing(job, store)
        extra = f": {_changes(job, store)}" if state == "changed" else ""
        if state.startswith("goes on") and (line := _other_kernels(job, store)):
            extra = f": {line}"
        print(f"{job.label}: {state}{extra}", flush=True)


def _other_kernels(job: Job, store: Store) -> str | None:
    """A warning if this machine goes on with other kernels than the job ran with so far."""
    return other_kernels(store.folder(job).records(), kernels_here(job.recipe, job.resources))


def _changes(job: Job, store: Store) -> str:
    """What differs from the newest folder of the same name, in words."""
    others = store.other_versions(job)
    newest = max(others, key=lambda other: (other.path / "settings.json").stat().st_mtime)
    old, new = flat(newest.settings()["recipe"]), flat(job.recipe)
    keys = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    if not keys:
        return "what it depends on changed"
    shown = [f"{key.removeprefix('config.')} {old.get(key)} -> {new.get(key)}" for key in keys[:3]]
    return ", ".join(shown) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def confirm(study: Study, store: Store, budget: dict[str, float], *, yes: bool) -> None:
    """Ask before starting what takes more than a day of this hardware.

    Raises:
        InputError: the answer was no, or there is no terminal to ask on.
    """
    if yes:
        return
    open_jobs = [job for job in study if not store.done(job)]
    times = [(job, estimated_seconds(job) * sharing(job)) for job in open_jobs]
    longest = max((seconds for _, seconds in times), default=0.0)
    shared = [
        sum(seconds * job.cost[resource] for job, seconds in times) / total
        for resource, total in budget.items()
        if total
    ]
    days = max(longest, *shared) / DAY_S
    if days < 1:
        return
    print_plan(study, store, Estimator(store))
    line = f"this looks like {days:.0f} days on this hardware (a rough guess)"
    if not sys.stdin.isatty():
        raise InputError(f"{line}; add --yes to start it, or choose a smaller experiment")
    if input(f"{line}. Start? [y/N] ").strip().lower() not in ("y", "yes"):
        raise InputError("not started")
