"""A study on Ray: one Tune experiment whose search algorithm hands out the study's jobs.

Every start builds a new Tune experiment over the jobs that are not done. The job folders are the
only memory; Ray starts the trials, and the scheduler decides about retries.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from gdas.errors import one_line
from orchestrator.experiment.study import Job
from orchestrator.run.machines import living_nodes, look_at_cluster, lost_a_node
from orchestrator.run.scheduler import WITHOUT_A_WORD, Scheduler
from orchestrator.run.trial import TrialConfig, bundles, run_trial, trial_config
from orchestrator.store.failure import MEMORY_ADVICE, clear_failure, read_failure
from orchestrator.store.job_folder import NO_SPACE
from orchestrator.store.results import Environment
from orchestrator.work.body import describe
from orchestrator.work.fork_server import ProcessDied, how_it_ended

BUDGET_EVERY_S = 5.0  # how often the cluster is checked for machines that came or went
KEPT_FOR_S = 15.0
"""How long a process that has ended a job, and its resources, are kept for another job."""
UNREACHABLE = "is unavailable"
"""In Ray's error if it cannot reach a process: the first sign that its machine is gone."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
KILLED = how_it_ended(-signal.SIGKILL)
"""In Ray's error if a job's process was killed, as the system does when memory is short."""
ADDRESS = re.compile(r"\bip=([0-9a-fA-F.:]+)")
"""The machine, in Ray's error."""
FULL_BYTES = 1 << 20
"""A disk with less room than this is full; it explains why a job died without an error record."""


class StudySearcher(Searcher):  # type: ignore[misc]  # Tune asks only a searcher for a trial
    """The study as a search algorithm: every trial that Tune asks for is a job.

    A failed job is handed out again, as another trial, as often as the scheduler decides.

    Args:
        scheduler: decides which job is next.
        environment: written into each job's settings.
    """

    def __init__(self, scheduler: Scheduler, environment: Environment) -> None:
        super().__init__()  # no metric is named: a report without it would end the experiment
        self.scheduler = scheduler
        self.environment = environment
        self.job_of_trial: dict[str, Job] = {}
        self.nodes_of_trial: dict[str, set[str]] = {}  # the cluster's nodes when the trial started
        self.unreachable: set[str] = set()  # trials whose connection broke
        self.begun: set[str] = set()  # trials whose process was there
        self.budget_of = time.monotonic()
        self.handed_or_ended = time.monotonic()  # when a job last was

    def suggest(self, trial_id: str) -> TrialConfig | str | None:
        """Tune's request for a trial: the next job's config, None to wait, or FINISHED."""
        if time.monotonic() - self.budget_of > BUDGET_EVERY_S:
            look_at_cluster(self.scheduler)
            for begun in self.job_of_trial.values():
                self.scheduler.say_damage(begun)
            self.budget_of = time.monotonic()
        while True:
            job = self.scheduler.next_job()
            if job is None:
                # If nothing runs, None would make Tune wait without noticing Ctrl-C.
                running = "running" in self.scheduler.board.states.values()
                return None if running else Searcher.FINISHED
            try:
                folder = self.scheduler.store.prepare(job, self.environment)
                clear_failure(folder.place)
            except OSError as error:  # a raise here would end the whole experiment
                self.scheduler.failed(job, describe(error))
                continue
            break
        self.handed_or_ended = time.monotonic()
        self.job_of_trial[trial_id] = job
        self.nodes_of_trial[trial_id] = living_nodes()
        return trial_config(job, folder)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tune's notice that a trial has ended: the scheduler records how the job went."""
        job = self.job_of_trial.pop(trial_id, None)
        if job is None:
            return
        self.handed_or_ended = time.monotonic()
        try:
            self.scheduler.store.refresh()
        except OSError as problem:  # a raise here would end the whole experiment
            self.scheduler.announce(f"{self.scheduler.store.address} does not answer ({problem})")
        before = self.nodes_of_trial.pop(trial_id)
        lost = error and bool(before - living_nodes())
        if error and not lost and trial_id in self.unreachable:
            lost = lost_a_node(before, read_failure(self.scheduler.store.folder(job).place))
        began = trial_id in self.begun
        self.begun.discard(trial_id)
        self.scheduler.finished(job, node_lost=lost, began=began)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher, but the state is in the job folders

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the state is in the job folders."""
        pass

    def restore(self, checkpoint_path: str) -> None:
        """Refuse: a study always starts anew over its job folders."""
        raise RuntimeError("a study is never restored: it starts anew over its job folders")


class Starts(tune.Callback):  # type: ignore[misc]
    """Notes which trials have begun."""

    def __init__(self, searcher: StudySearcher) -> None:
        self.searcher = searcher

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Note that the trial has a process that answers."""
        self.searcher.begun.add(trial.trial_id)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Queue(FIFOScheduler):  # type: ignore[misc]
    """Starts trials in their order, notes why they fail, and ends a process that nobody needs.

    Tune tells a scheduler of a failure before it tells the searcher, and callbacks only after it.

    Tune keeps one process for the next trial as long as it takes, with its CPUs and GPUs. In a long
    study this would hold a machine that an autoscaler could end. Tune has no public way to end it;
    without the method that is used here, the process is kept.
    """

    def __init__(self, searcher: StudySearcher) -> None:
        super().__init__()
        self.searcher = searcher

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Note Ray's reason, and whether the trial's process could not be reached."""
        job = self.searcher.job_of_trial.get(trial.trial_id)
        if job is not None:
            scheduler = self.searcher.scheduler
            text = _error_text(trial)
            if UNREACHABLE in text:
                self.searcher.unreachable.add(trial.trial_id)
            scheduler.board.notes[job.id] = word_of_ray(text, scheduler.store.out)
            scheduler.traces[job.id] = text

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The next trial, as Tune asks for it several times a second."""
        if time.monotonic() - self.searcher.handed_or_ended > KEPT_FOR_S:
            controller = getattr(tune_controller, "_tune_controller", None)
            if end := getattr(controller, "_cleanup_cached_actors", None):
                end(force_all=True)
        return None  # Tune then starts pending trials in their order

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Silence(TrialProgressCallback):  # type: ignore[misc]
    """Replaces Tune's own progress lines, some of which appear whatever its verbosity."""

    def _print(self, msg: str) -> None:
        pass


def _error_text(trial: Any) -> str:
    """Ray's error of a failed trial, as text."""
    try:
        return str(trial.get_error() or "")
    except Exception:  # Ray's error file may be torn or missing
        return ""


def word_of_ray(text: str, folder: Path) -> str:
    """Why a trial failed, if its process could write no error record.

    Args:
        text: Ray's error.
        folder: the output folder.
    """
    if "OutOfMemoryError" in text:
        return f"out of memory on its machine (Ray ended its process); {MEMORY_ADVICE}"
    if "No space left on device" in text or _full(folder):
        return NO_SPACE
    plain = COLOUR.sub("", text).strip()
    if "Traceback (most recent call last)" not in plain:
        return WITHOUT_A_WORD
    last = one_line(plain.splitlines()[-1], 300).rpartition(f"{ProcessDied.__name__}: ")[2]
    if last == KILLED:
        return WITHOUT_A_WORD
    found = ADDRESS.search(plain)
    machine = found[1] if found else "its machine"
    if "No such file or directory" in last and str(folder) in last:
        return f"--out is not the same folder on {machine}: {last}"
    if last.startswith(("ModuleNotFoundError", "ImportError")):
        return f"{last} on {machine}; python -m orchestrator.nodes says what differs there"
    return f"{last} (on {machine}, outside the job's own code)"


def _full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < FULL_BYTES


def run_study(scheduler: Scheduler, environment: Environment) -> None:
    """Run all open jobs on the connected Ray cluster; returns when none is left.

    Args:
        environment: what trials need to know beside their recipe ("data", "selections").

    Raises:
        KeyboardInterrupt: Ctrl-C; the board still has jobs as running, which end with Ray.
        OSError: the disk is full, so that Tune could not write its own files.
    """
    study, store, board = scheduler.study, scheduler.store, scheduler.board
    # Tune's "Trials did not complete" and its tracebacks on a full disk say less than our lines.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    open_jobs = sum(board.states[job.id] == "waiting" for job in study.in_cluster)
    scheduler.settle()
    if not open_jobs:
        return
    look_at_cluster(scheduler)
    searcher = StudySearcher(scheduler, environment)
    tuner = tune.Tuner(
        tune.with_resources(run_trial, bundles),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=Queue(searcher),
            reuse_actors=True,
            num_samples=-1,  # until the searcher returns FINISHED: retries are trials too
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=f"study-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}",
            storage_path=str(store.out / "ray"),
            verbose=0,
            callbacks=[Starts(searcher), Silence()],
            failure_config=tune.FailureConfig(max_failures=0),  # the scheduler retries
        ),
    )
    try:
        tuner.fit()
    except Exception:
        if _full(store.out):  # Tune read back its own files, which are torn
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(store.out)) from None
        raise


def _trial_name(trial: Any) -> str:
    return f"{trial.config['label']}-{trial.trial_id}"
