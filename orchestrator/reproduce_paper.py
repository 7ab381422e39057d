"""The command line: `python -m orchestrator.reproduce_paper [EXPERIMENT] [key=value ...]`.

Everything that can be wrong is checked before anything starts. The same command again goes on
where the last one stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gdas.genotype
from gdas.cnn.space import search_split
from gdas.data.images import known, open_images, subset
from gdas.errors import InputError
from gdas.train_image import check_training
from orchestrator import paper
from orchestrator.console import Console, clock, error
from orchestrator.estimate import estimated_seconds
from orchestrator.experiment import Experiment, load_experiment
from orchestrator.process import repeatedly, terminate_as_interrupt
from orchestrator.report import write_report
from orchestrator.scheduler import Scheduler
from orchestrator.store import Store, lease
from orchestrator.study import Job, Study, build_study
from orchestrator.tracking import Tracker

DAY_S = 86_400.0

EPILOG = """examples:
  python -m orchestrator.reproduce_paper                       the smoke experiment, minutes
  python -m orchestrator.reproduce_paper laptop --data DIR     small, on the real CIFAR-10
  python -m orchestrator.reproduce_paper headline --dry-run    what the abstract's claim takes
  python -m orchestrator.reproduce_paper smoke search.recipe.epochs=4 --out runs/longer

The same command again goes on where the last one stopped. Exit code: 0 all done, 1 a job failed,
2 bad input, 130 interrupted (143 terminated)."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m orchestrator.reproduce_paper",
        description="Search, select, train, and report beside the paper's numbers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="EXPERIMENT or key=value",
        help="a name in experiments/ or a YAML file (default: smoke), and settings to change",
    )
    parser.add_argument("--out", type=Path, help="output folder (default: runs/EXPERIMENT)")
    parser.add_argument(
        "--data",
        type=Path,
        default=None,
        help="folder with the data sets, such as cifar-10-batches-py (default: data, made and "
        "filled by download as needed)",
    )
    parser.add_argument("--address", help="of a running Ray cluster (default: this machine)")
    parser.add_argument("--only", metavar="JOB,...", help="these jobs and what they need")
    parser.add_argument("--dry-run", action="store_true", help="show the jobs, start nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask before a run of days")
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(arguments)
    try:
        return _command(options)
    except InputError as problem:
        error(str(problem))
        return 2
    except KeyboardInterrupt:
        error("interrupted before anything started")
        return 130


def _command(options: argparse.Namespace) -> int:
    names = [word for word in options.words if "=" not in word]
    if len(names) > 1:
        raise InputError(f"one experiment at a time, got {' and '.join(names)}")
    name = names[0] if names else "smoke"
    experiment = load_experiment(name, [word for word in options.words if "=" in word])
    data = _data_folder(options.data)
    study = _study(experiment, options.only)
    _check(experiment)
    if options.dry_run:
        out = options.out or Path("runs") / experiment.name
        _print_plan(study, Store(out) if out.exists() else None)
        return 0
    store = Store(options.out or Path("runs") / experiment.name)
    with lease(store):
        return _drive(experiment, study, store, data, options)


def _data_folder(named: Path | None) -> Path:
    if named is not None and not named.is_dir():
        raise InputError(f"--data {named}: no such folder; make it, or name the one with the data")
    return (named or Path("data")).resolve()


def _study(experiment: Experiment, only: str | None) -> Study:
    cells: dict[str, Any] = {}
    for name, final in experiment.finals.items():
        source = final.cell
        if source.published is not None:
            cells[name] = gdas.genotype.PUBLISHED[source.published].to_json()
        elif source.file is not None:
            cells[name] = gdas.genotype.load(source.file).to_json()
        elif source.random is not None:
            cells[name] = gdas.genotype.random_genotype(
                source.random, fixed_reduction=source.fixed_reduction
            ).to_json()
    study = build_study(experiment, _identity, cells)
    if only is None:
        return study
    try:
        return study.only(only.split(","))
    except KeyError as missing:
        labels = ", ".join(job.label for job in study)
        raise InputError(f"--only {missing.args[0]}: no such job; there are {labels}") from None


@cache
def _identity(name: str, split: str) -> str:
    return known(name).identity("train" if split == "train" else "test")


def _check(experiment: Experiment) -> None:
    """All that can be known to be wrong without opening data or starting Ray."""
    for name, search in experiment.searches.items():
        images = known(search.recipe.data.name)
        try:
            search_split(search.recipe, images.counts["train"])
            if search.select_by == "proxy":
                fixed = search.recipe.network.reduction == "fixed"
                some = gdas.genotype.PUBLISHED["GDAS_F1" if fixed else "GDAS_V1"]
                check_training(search.proxy, some, size=images.size)
        except InputError as problem:
            raise InputError(f"searches.{name}: {problem}") from None
    for name, final in experiment.finals.items():
        images = known(final.recipe.data.name)
        try:
            if final.row is not None:
                paper.find_row(final.row.table, final.row.method, final.row.column)
            subset(images.counts["train"], 0, final.recipe.train_images)
            genotype = None
            if final.cell.published is not None:
                genotype = gdas.genotype.PUBLISHED[final.cell.published]
            elif final.cell.file is not None:
                genotype = gdas.genotype.load(final.cell.file)
            elif final.cell.searched is not None:
                searched = experiment.searches[final.cell.searched].recipe.network.reduction
                genotype = gdas.genotype.PUBLISHED["GDAS_F1" if searched == "fixed" else "GDAS_V1"]
            elif final.cell.fixed_reduction:
                genotype = gdas.genotype.PUBLISHED["GDAS_F1"]
            check_training(final.recipe, genotype, size=images.size)
        except InputError as problem:
            raise InputError(f"finals.{name}: {problem}") from None


def _print_plan(study: Study, store: Store | None) -> None:
    seconds = {job.id: estimated_seconds(job) for job in study}
    print(f"{'job':38} {'state':12} {'resources':16} {'rough time':>10}  waits for")
    for job in study:
        cost = ", ".join(f"{v:g} {k}" for k, v in job.cost.items() if v) or "-"
        waits = ", ".join(study.job(need).label for need in job.needs)
        state = _standing(job, store) if store else "new"
        rough = clock(seconds[job.id]) if seconds[job.id] else "-"
        print(f"{job.label:38} {state:12} {cost:16} {rough:>10}  {waits}")


def _standing(job: Job, store: Store) -> str:
    """done, goes on, new or changed: what the first lines of a command say."""
    if store.done(job):
        return "done"
    if job.kind == "select":
        return "new"
    folder = store.folder(job)
    positions = sorted(folder.checkpoints.glob("*/manifest.json"))
    if positions:
        return f"goes on at {int(positions[-1].parent.name) + 1}"
    return "changed" if store.other_versions(job) else "new"


def _changes(job: Job, store: Store) -> str:
    """What differs from the newest folder of the same name, in words."""
    others = [
        folder for folder in store.other_versions(job) if (folder.path / "settings.json").exists()
    ]
    if not others:
        return ""
    newest = max(others, key=lambda folder: (folder.path / "settings.json").stat().st_mtime)
    from orchestrator.tracking import flat

    old, new = flat(newest.settings()["recipe"]), flat(job.recipe)
    keys = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    if not keys:
        return "what it depends on changed"
    shown = [f"{key.removeprefix('config.')} {old.get(key)} -> {new.get(key)}" for key in keys[:3]]
    return ", ".join(shown) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _say_standings(study: Study, store: Store) -> None:
    for job in study:
        standing = _standing(job, store)
        extra = f": {_changes(job, store)}" if standing == "changed" else ""
        print(f"{job.label}: {standing}{extra}", flush=True)


def _confirm(study: Study, store: Store, budget: dict[str, float], yes: bool) -> None:
    """Ask before more than a day of this hardware."""
    open_jobs = [job for job in study if not store.done(job)]
    busy = sum(estimated_seconds(job) * max(job.cost["CPU"], 0.0) for job in open_jobs)
    longest = max([estimated_seconds(job) for job in open_jobs], default=0.0)
    seconds = max(busy / max(budget["CPU"], 1.0), longest)
    if seconds < DAY_S or yes:
        return
    _print_plan(study, store)
    line = f"this looks like {seconds / DAY_S:.0f} days on this hardware (a rough guess)"
    if not sys.stdin.isatty():
        raise InputError(f"{line}; add --yes to start it, or choose a smaller experiment")
    if input(f"{line}. Start? [y/N] ").strip().lower() not in ("y", "yes"):
        raise InputError("not started")


def _prepare_data(study: Study, store: Store, data: Path) -> None:
    """Convert and verify once what open jobs read; the test split only where a final is open."""
    needed = set()
    for job in study:
        if job.kind == "select" or store.done(job):
            continue
        name = job.recipe["config"]["data"]["name"]
        needed.add((name, "train"))
        if job.kind == "train":
            needed.add((name, "test"))
    for name, split in sorted(needed, key=lambda pair: (pair[1] == "test", pair)):
        open_images(name, "train" if split == "train" else "test", data, verify=True)


def _drive(
    experiment: Experiment, study: Study, store: Store, data: Path, options: argparse.Namespace
) -> int:
    started = time.time()
    _prepare_data(study, store, data)
    settings = json.loads(json.dumps(dataclasses.asdict(experiment)))
    store.write_study(study, settings, _versions())
    _say_standings(study, store)
    console = Console(study, store)
    with terminate_as_interrupt() as seen:
        interrupted = False
        scheduler = Scheduler(study, store, {"CPU": 0.0, "GPU": 0.0}, console.say)
        tracker = None
        try:
            if any(job.kind != "select" and not store.done(job) for job in study):
                from orchestrator.runner import ray_cluster, refuse_impossible, run_study

                with ray_cluster(options.address) as budget:
                    refuse_impossible(study, store, budget)
                    _confirm(study, store, budget, options.yes)
                    tracker = Tracker(study, store, experiment)
                    scheduler.budget = budget
                    console.start(scheduler.board)
                    with (
                        repeatedly(console.update, 1.0, "console"),
                        repeatedly(tracker.sync, 2.0, "tracking"),
                    ):
                        run_study(
                            scheduler,
                            environment={
                                "data": str(data),
                                "selections": str(store.out / "selections"),
                            },
                            retries=experiment.retries,
                        )
            scheduler.settle()
            interrupted = scheduler.board.open()
        except KeyboardInterrupt:
            interrupted = True
        finally:
            console.stop()
        report = write_report(experiment, study, store)
        states = scheduler.board.states
        failed = [job for job in study if states[job.id] == "failed"]
        blocked = [job for job in study if states[job.id] == "blocked"]
        if tracker is None:
            tracker = Tracker(study, store, experiment)
        tracker.sync()
        tracker.finish(failed, complete=not (failed or blocked or interrupted))
        for job in [*failed, *blocked]:
            word = "failed" if job in failed else "could not run"
            print(f"{job.label}: {word}: {scheduler.board.notes.get(job.id, '')}")
        print(f"report: {report}")
        print(f"MLflow: mlflow ui --backend-store-uri {tracker.uri}")
        if interrupted:
            done = sum(state == "done" for state in states.values())
            print(f"interrupted; {done} of {len(states)} jobs done, the others go on from their "
                  "last epoch with the same command")  # fmt: skip
            return 143 if seen["terminated"] else 130
        print(f"{'some jobs failed' if failed or blocked else 'all done'} "
              f"in {clock(time.time() - started)}")  # fmt: skip
        return 1 if failed or blocked else 0


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "ray", "mlflow", "pyarrow", "numpy")
    return {"python": sys.version.split()[0]} | {name: version(name) for name in packages}


if __name__ == "__main__":
    sys.exit(main())
