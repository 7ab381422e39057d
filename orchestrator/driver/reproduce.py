"""What the command `reproduce_paper` does with its options: plan, report, or run the study.

The command itself only parses them, so that its help needs no PyTorch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gdas.data.settings import TableData
from gdas.errors import InputError, one_line, suggestion
from orchestrator.cost.clusters import print_clusters, whole_study
from orchestrator.cost.estimate import Estimator
from orchestrator.cost.left import Remaining
from orchestrator.cost.plan import confirm, print_plan, say_standings
from orchestrator.driver.settled import settle, settled
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.load import experiment_of
from orchestrator.experiment.study import Study
from orchestrator.run.checks import checked_study, prepare_data, recorded_data_study
from orchestrator.run.lease import lease
from orchestrator.run.process import Signals, interruptible, meanwhile, repeatedly
from orchestrator.run.scheduler import ClusterLost, Scheduler
from orchestrator.store.data import data_sets, fetched, publish, refuse_unchecked
from orchestrator.store.mending import mend
from orchestrator.store.recorded import damaged_results, recorded_study, with_done
from orchestrator.store.results import Environment
from orchestrator.store.storage import cache_folder, is_address, open_storage
from orchestrator.store.store import Store
from orchestrator.terminal.command import say_next
from orchestrator.terminal.console import Console
from orchestrator.terminal.line import without
from orchestrator.terminal.progress import (
    command_after,
    failure_lines,
    saved_lines,
    unfinished_line,
)
from orchestrator.terminal.words import clock
from orchestrator.tracking.connection import import_mlflow
from orchestrator.tracking.tracker import Tracker
from orchestrator.tracking.words import where_to_look


def reproduce(options: argparse.Namespace) -> int:
    """Do what the options ask for; returns the exit code."""
    experiment = experiment_of(options.words)
    out = options.out or f"runs/{experiment.name}"
    if options.report:
        return _report(experiment, out, options)
    data = _data_folder(options, experiment)
    # A plan for clusters needs no data.
    whole = whole_study(experiment, data) if options.gpus else checked_study(experiment, data)
    study = _only(whole, options)
    if is_address(out) or is_address(options.data or ""):
        refuse_unchecked(study)
    if options.dry_run:
        return _plan(study, out, data, options)
    store = Store(out)
    with lease(store):
        return _reproduce(experiment, with_done(study, whole, store), store, data, options)


def _report_of(experiment: Experiment, study: Study, store: Store) -> list[str]:
    """Write the report; returns its headline figures as lines."""
    # Imported here, so that a command with nothing to do imports nothing that draws.
    from orchestrator.report.first_screen import headline
    from orchestrator.report.report import write_report
    from orchestrator.report.view import Results

    results = Results(experiment, study, store)
    write_report(results)
    return headline(results)


def _plan(study: Study, out: str, data: Path, options: argparse.Namespace) -> int:
    """Print what would be done and how long it takes, here or on clusters of several sizes."""
    found = Store(out) if is_address(out) or Path(out).exists() else None
    estimator = Estimator(found, data if options.calibrate else None)
    if options.gpus:
        faster = 1.0 if options.faster is None else options.faster
        print_clusters(study, estimator, options.gpus, faster=faster, price=options.price)
        say_next(without(options.command, "--gpus", "--faster"))
    else:
        print_plan(study, found, estimator, options.price, _named(study, options.only))
        say_next(without(options.command, "--dry-run", "--calibrate", "--price"))
    return 0


def _named(study: Study, only: str | None) -> set[str]:
    """The ids of the jobs that `--only` names itself, not those that they need."""
    return {job.id for name in (only or "").split(",") if name for job in study.named(name)}


def _report(experiment: Experiment, out: str, options: argparse.Namespace) -> int:
    """Write the report of what is done so far; returns the exit code. No data are read."""
    there = is_address(out) or (Path(out) / "study.json").is_file()  # or a folder would be made
    store = Store(out) if there else None
    if store is None or not store.study():
        raise InputError(f"{out}: no study there yet (no study.json); start it first")
    recorded = recorded_study(store)
    whole = recorded_data_study(experiment, recorded, Path(options.data or "data"))
    study = with_done(_only(whole, options), whole, store)
    _report_of(experiment, study, store)
    for line in damaged_results(study, store):
        print(line)
    print(f"report: {store.address_of('report/report.html')}")
    say_next(f"python -m orchestrator.status {shlex.quote(store.address)}")
    return 0


def _data_folder(options: argparse.Namespace, experiment: Experiment) -> Path:
    """The data folder on this machine; if it is on an object store, its data are downloaded."""
    named: str | None = options.data
    if named is not None and is_address(named):
        try:
            return fetched(named, _data_sets(experiment))
        except OSError as problem:
            text = one_line(problem, 200)
            raise InputError(f"--data {named}: cannot be read ({text}); name another") from None
    if named is not None and not Path(named).is_dir():
        raise InputError(f"--data {named}: no such folder; make it, or name the one with the data")
    if named is None and is_address(options.out or ""):
        return cache_folder() / "data" / "downloaded"  # a cluster's job may start in any folder
    return Path(named or "data").resolve()


def _data_sets(experiment: Experiment) -> list[str]:
    tables = {TableData().name for search in experiment.searches.values() if search.lookup}
    recipes = [
        *(search.recipe for search in experiment.searches.values()),
        *(search.proxy for search in experiment.searches.values()),
        *(final.recipe for final in experiment.finals.values()),
        *(measure.recipe for measure in experiment.measures.values()),
    ]
    return sorted({recipe.data.name for recipe in recipes if recipe is not None} | tables)


def _only(study: Study, options: argparse.Namespace) -> Study:
    """The jobs that `--only` names, with those they need."""
    if options.only is None:
        return study
    try:
        return study.only(options.only.split(","))
    except KeyError as missing:
        close = suggestion(missing.args[0], study.beginnings())
        raise InputError(f"--only {missing.args[0]}: no such job{close}") from None


def _reproduce(
    experiment: Experiment, study: Study, store: Store, data: Path, options: argparse.Namespace
) -> int:
    """Do everything that is not done yet, and print the outcome; returns the exit code."""
    started = time.time()
    mended = mend(study, store)  # repairs what faults left behind
    for line in mended:
        print(line, flush=True)
    settings = _as_json(experiment)
    lines = None if mended else settled(study, store, settings)
    if lines is not None:
        say_standings(study, store)
        return _nothing_to_do(store, lines)
    prepare_data(study, store, data)
    environment: Environment = {
        "data": _published_data(study, store, data, options),
        "selections": store.selections_address,
    }
    store.write_study(study, settings, _versions(), options.command)
    say_standings(study, store)
    console, signals, found = Console(study, store), Signals(), list[str]()
    anyway = _named(study, options.only)
    scheduler = Scheduler(study, store, {}, console.say, experiment.retries, anyway)
    scheduler.private = options.address is None
    with interruptible(signals):
        tracker, stopped = _run(scheduler, console, environment, experiment, options, signals)
        interrupted = stopped is not None or scheduler.board.open()
        if not interrupted:  # the figures take seconds, for which nobody should wait after Ctrl-C
            found = _report_of(experiment, study, store)
        sent = tracker is not None and tracker.finish(
            scheduler.board, 3.0 if interrupted else 300.0
        )
        _conclude(scheduler, tracker, interrupted=interrupted)
        done = not interrupted and scheduler.board.all_done()
        if done and sent:
            settle(study, store, settings, found)
        if done:
            print("\n".join(found))
            print(f"all done in {clock(time.time() - started)}")
        say_next(command_after(study, store, scheduler.board, options.command))
        if interrupted and not isinstance(stopped, ClusterLost):
            return 143 if signals.terminated else 130
        return 0 if done else 1


def _nothing_to_do(store: Store, found: list[str]) -> int:
    """Say what was found, and where the report is; returns the exit code."""
    print("nothing is left to do: every job is done, reported and in MLflow")
    print("\n".join(found))
    print(f"report: {store.address_of('report/report.html')}")
    say_next(f"python -m orchestrator.status {shlex.quote(store.address)}")
    return 0


def _run(
    scheduler: Scheduler,
    console: Console,
    environment: Environment,
    experiment: Experiment,
    options: argparse.Namespace,
    signals: Signals,
) -> tuple[Tracker | None, KeyboardInterrupt | None]:
    """Run the open jobs on a Ray cluster, and selections here.

    Returns:
        The tracker that keeps MLflow up to date, and what interrupted this; None if nothing did.
    """
    study, store, tracker = scheduler.study, scheduler.store, None
    try:
        if not scheduler.may_run():
            tracker = Tracker(study, store, experiment)
        else:
            from orchestrator.run.machines import ray_cluster, refuse_impossible
            from orchestrator.run.ray_study import run_study

            where = f"connecting to Ray at {options.address}" if options.address else "starting Ray"
            meanwhile(import_mlflow, "imports")  # Ray's own processes take as long to start
            console.say(f"{where}; the first job starts in some seconds")
            # Entered again, because connecting to Ray replaces our signal handler by its own.
            with ray_cluster(options.address) as scheduler.budget, interruptible(signals):
                refuse_impossible(study, store)
                confirm(study, store, scheduler.budget, yes=options.yes)
                tracker = Tracker(study, store, experiment)
                tracker.start(scheduler.board)
                console.left = Remaining(study, store, scheduler.board, lambda: scheduler.budget)
                console.start(scheduler.board)
                with (
                    repeatedly(
                        lambda: store.refresh_quietly(console.say), 2.0, "store", rests=10.0
                    ),
                    repeatedly(console.update, 1.0, "console"),
                ):
                    run_study(scheduler, environment)
        scheduler.settle()
    except KeyboardInterrupt as why:
        if isinstance(why, ClusterLost):
            console.say(str(why))
        return tracker, why
    finally:
        console.stop()
    return tracker, None


def _published_data(study: Study, store: Store, folder: Path, options: argparse.Namespace) -> str:
    """Where jobs find their data on any node: a folder, or an address that they are uploaded to."""
    named, own = options.data or "", store.address_of("data")
    there = named if is_address(named) else own
    if not is_address(there):
        return str(folder)
    open_jobs = [job for job in study.in_cluster if not store.done(job)]
    names = sorted({name for job in open_jobs for name in data_sets(job.recipe)})
    try:
        return _published(folder, there, names)
    except OSError as problem:
        text = f"{there}: cannot be written to ({one_line(problem, 200)})"
    if there == own:
        raise InputError(f"{text}; name another")
    if is_address(own):
        print(f"note: {text}; what it lacks goes to {own}", flush=True)
        try:
            return _published(folder, own, names)
        except OSError as problem:
            raise InputError(f"{own}: cannot be written to ({one_line(problem, 200)})") from None
    if options.address is None:  # all jobs run on this machine
        print(f"note: {text}; jobs read the copy in {folder}", flush=True)
        return str(folder)
    raise InputError(
        f"{text}, and lacks what was converted here; name an --out on an object store, where it "
        "goes then, or a --data that can be written to"
    )


def _published(folder: Path, address: str, names: list[str]) -> str:
    """Upload data sets unless they are there; returns the address."""
    publish(folder, open_storage(address, option="--data"), names)
    return address


def _conclude(scheduler: Scheduler, tracker: Tracker | None, *, interrupted: bool) -> None:
    """Print which jobs did not finish and why, where the results are, and how to go on.

    Args:
        interrupted: whether the study was interrupted, so that no report was written.
    """
    study, store, board = scheduler.study, scheduler.store, scheduler.board
    for line in failure_lines(study, store, board):
        print(line)
    if interrupted:
        for line in saved_lines(study, store, board):
            print(line)
    where = store.address_of("report/report.html")
    if interrupted:
        where = "not written now; --report writes it of what is there"
    print(f"report: {where}")
    if tracker is not None:
        print(f"MLflow: {where_to_look(tracker.uri, tracker.experiment_id)}")
    if interrupted:
        done = sum(state == "done" for state in board.states.values())
        print(
            f"interrupted; {done} of {len(board.states)} jobs done, the others go on from their "
            "last epoch with the same command"
        )
    elif not board.all_done():
        print(unfinished_line(study, store, board))


def _as_json(experiment: Experiment) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(experiment)))
    return settings


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "ray", "mlflow", "pyarrow", "numpy")
    return {"python": sys.version.split()[0]} | {name: version(name) for name in packages}
