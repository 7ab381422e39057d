"""What a command is about to do: where every job stands, what changed, roughly how long. Pure."""

from __future__ import annotations

import sys

from gdas.errors import InputError
from orchestrator.console import clock
from orchestrator.estimate import estimated_seconds
from orchestrator.store import Store
from orchestrator.study import Job, Study, flat

DAY_S = 86_400.0


def print_plan(study: Study, store: Store | None) -> None:
    """Jobs, where they stand, what they hold, rough times, and what each waits for."""
    print(f"{'job':38} {'state':12} {'resources':16} {'rough time':>10}  waits for")
    for job in study:
        cost = ", ".join(f"{v:g} {k}" for k, v in job.cost.items() if v) or "-"
        waits = study.job(job.needs[0]).label if job.needs else ""
        if len(job.needs) > 1:
            waits += f" and {len(job.needs) - 1} more"
        state = standing(job, store) if store else "new"
        seconds = estimated_seconds(job)
        print(
            f"{job.label:38} {state:12} {cost:16} {clock(seconds) if seconds else '-':>10}  {waits}"
        )
    for name, reason in study.left_out.items():
        print(f"{f'train-{name}':38} left out: {reason}")


def standing(job: Job, store: Store) -> str:
    """done, goes on, new or changed."""
    if store.done(job):
        return "done"
    if job.kind == "select":
        return "new"
    positions = sorted(store.folder(job).checkpoints.glob("*/manifest.json"))
    if positions:
        position = int(positions[-1].parent.name)
        epoch = position / job.recipe["config"].get("segments_per_epoch", 1)
        return f"goes on after epoch {epoch:.4g}"
    return "changed" if store.other_versions(job) else "new"


def say_standings(study: Study, store: Store) -> None:
    """The first lines of a command: which jobs are done, go on, are new or changed, and how."""
    for name, reason in study.left_out.items():
        print(f"train-{name}: left out: {reason}", flush=True)
    for job in study:
        state = standing(job, store)
        extra = f": {_changes(job, store)}" if state == "changed" else ""
        print(f"{job.label}: {state}{extra}", flush=True)


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
    """Ask before more than a day of this hardware.

    Raises:
        InputError: the answer was no, or there is no terminal to ask on.
    """
    times = [(job, estimated_seconds(job)) for job in study if not store.done(job)]
    longest = max((seconds for _, seconds in times), default=0.0)
    shared = [
        sum(seconds * job.cost[resource] for job, seconds in times) / total
        for resource, total in budget.items()
        if total
    ]
    days = max(longest, *shared) / DAY_S
    if days < 1 or yes:
        return
    print_plan(study, store)
    line = f"this looks like {days:.0f} days on this hardware (a rough guess)"
    if not sys.stdin.isatty():
        raise InputError(f"{line}; add --yes to start it, or choose a smaller experiment")
    if input(f"{line}. Start? [y/N] ").strip().lower() not in ("y", "yes"):
        raise InputError("not started")
