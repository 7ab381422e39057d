"""A study on Ray: one Tune experiment whose search algorithm hands out the study's jobs.

Every start builds a fresh Tune experiment over the jobs that are not done; the job folders are the
only memory, and Ray schedules and retries.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon Train notices that workers are done
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Its own handler waits up to 15 s for trials; what they wrote is safe, so they are just ended.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "64",  # or trials of a custom searcher start one by one
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""Ray settings that keep its own output off and its scheduling prompt."""

BUDGET_EVERY_S = 5.0  # machines come and go
NOTICED_AFTER_S = 75.0  # five health checks of up to 13 s each, and some
BROKEN = ("RuntimeError", "DistBackendError", "DistNetworkError", "ConnectionError")
"""How failures begin that may be a lost partner's."""
UNREACHABLE = "is unavailable"
"""What Ray says of a process that it cannot reach: the first sign that its machine is gone."""

os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})

import ray  # noqa: E402  (Ray reads some of these when it is imported)
import ray.train  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.progress_reporter import TrialProgressCallback  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from gdas.errors import InputError, one_line  # noqa: E402
from orchestrator.experiment.study import Job, Study  # noqa: E402
from orchestrator.run.scheduler import WITHOUT_A_WORD, ClusterLost, Scheduler, missing  # noqa: E402
from orchestrator.store.failure import (  # noqa: E402
    Failure,
    clear_failure,
    read_failure,
    write_failure,
)
from orchestrator.store.job_folder import NO_SPACE, JobFolder  # noqa: E402
from orchestrator.store.results import Environment  # noqa: E402
from orchestrator.store.store import Store, selection_records  # noqa: E402
from orchestrator.work.body import MEMORY_ADVICE, describe  # noqa: E402

FULL_BYTES = 1 << 20
"""A disk with less room than this is full: a job that died without a word died of that."""


class StudySearcher(Searcher):  # type: ignore[misc]  # Tune has no other way to be asked for the next trial
    """The study as a search algorithm: every trial that Tune asks for is a job.

    A job that failed is handed out again, as another trial, as often as the scheduler says.

    Args:
        scheduler: decides which.
        environment: written into each job's settings.
    """

    def __init__(self, scheduler: Scheduler, environment: Environment) -> None:
        super().__init__()  # no metric: a report that lacks it would end the experiment
        self.scheduler = scheduler
        self.environment = environment
        self.job_of_trial: dict[str, Job] = {}
        self.nodes_of_trial: dict[str, set[str]] = {}  # the cluster's when it started
        self.unreachable: set[str] = set()  # trials whose connection broke
        self.budget_of = time.monotonic()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if time.monotonic() - self.budget_of > BUDGET_EVERY_S:
            look_at_cluster(self.scheduler)
            self.budget_of = time.monotonic()
        while True:
            job = self.scheduler.next_job()
            if job is None:
                # None while nothing runs would block Tune without looking at Ctrl-C.
                running = "running" in self.scheduler.board.states.values()
                return None if running else Searcher.FINISHED
            try:
                folder = self.scheduler.store.prepare(job, self.environment)
                clear_failure(folder.place)
            except OSError as error:  # a raise here would end the whole experiment
                self.scheduler.failed(job, describe(error))
                continue
            break
        self.job_of_trial[trial_id] = job
        self.nodes_of_trial[trial_id] = living_nodes()
        return {
            "folder": folder.address,
            "kind": job.kind,
            "label": job.label,
            "resources": job.resources,
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        job = self.job_of_trial.pop(trial_id, None)
        if job is None:
            return
        try:
            self.scheduler.store.refresh()
        except OSError as problem:  # a raise here would end the whole experiment
            self.scheduler.announce(f"{self.scheduler.store.address} does not answer ({problem})")
        before = self.nodes_of_trial.pop(trial_id)
        lost = error and bool(before - living_nodes())
        if error and not lost and trial_id in self.unreachable:
            lost = _lost_a_node(before, read_failure(self.scheduler.store.folder(job).place))
        self.scheduler.finished(job, node_lost=lost)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher; the job folders are the memory

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("a study is never restored: it starts anew over its job folders")


class LastWords(tune.Callback):  # type: ignore[misc]
    """Notes what Ray knows of a failed trial, for the scheduler, which Tune asks after this."""

    def __init__(self, searcher: StudySearcher) -> None:
        self.searcher = searcher

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        job = self.searcher.job_of_trial.get(trial.trial_id)
        if job is not None:
            scheduler = self.searcher.scheduler
            text = _error_text(trial)
            if UNREACHABLE in text:
                self.searcher.unreachable.add(trial.trial_id)
            scheduler.board.notes[job.id] = _word_of_ray(text, scheduler.store.out)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Silence(TrialProgressCallback):  # type: ignore[misc]
    """Takes the place of Tune's own lines, some of which come whatever its verbosity."""

    def _print(self, msg: str) -> None:
        pass


def _error_text(trial: Any) -> str:
    """What Ray says of a failed trial."""
    try:
        return str(trial.get_error() or "")
    except Exception:  # Ray's file of it may be torn or missing
        return ""


def _word_of_ray(text: str, folder: Path) -> str:
    """Why a trial failed that could leave no word of its own."""
    if "OutOfMemoryError" in text:
        return f"out of memory on its machine (Ray ended its process); {MEMORY_ADVICE}"
    if "No space left on device" in text or _full(folder):
        return NO_SPACE
    return WITHOUT_A_WORD


def _full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < FULL_BYTES


def run_study(scheduler: Scheduler, environment: Environment) -> None:
    """Run all open jobs on the Ray cluster that is connected; returns when none is left.

    Args:
        environment: what trials need to know beside their recipe ("data", "selections").

    Raises:
        KeyboardInterrupt: Ctrl-C; jobs still run on the scheduler's board, and end with Ray.
        OSError: the disk is full, and Tune could not go on without files of its own.
    """
    study, store, board = scheduler.study, scheduler.store, scheduler.board
    # Its "Trials did not complete", and its tracebacks of a full disk, say less than our lines.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    open_jobs = sum(job.kind != "select" and board.states[job.id] == "waiting" for job in study)
    scheduler.settle()
    if not open_jobs:
        return
    look_at_cluster(scheduler)
    searcher = StudySearcher(scheduler, environment)
    tuner = tune.Tuner(
        tune.with_resources(run_trial, _bundles),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,  # until the study says that it is finished: retries are trials too
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=f"study-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}",
            storage_path=str(store.out / "ray"),
            verbose=0,
            callbacks=[LastWords(searcher), Silence()],
            failure_config=tune.FailureConfig(max_failures=0),  # the scheduler tries again
        ),
    )
    try:
        tuner.fit()
    except Exception:
        if _full(store.out):  # what Tune reads back of its own files is torn
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(store.out)) from None
        raise


def _trial_name(trial: Any) -> str:
    return f"{trial.config['label']}-{trial.trial_id}"


def _bundles(config: dict[str, Any]) -> Any:
    """What Tune reserves for a trial; a final's own process takes nothing, its workers do."""
    if config["kind"] == "train":
        return tune.PlacementGroupFactory([{"memory": 1 << 20}])
    r = config["resources"]
    return tune.PlacementGroupFactory([_nonzero(CPU=r["cpus"], GPU=r["gpus"])])


def _nonzero(**resources: float) -> dict[str, float]:
    return {key: value for key, value in resources.items() if value}


def run_trial(config: dict[str, Any]) -> None:
    """The one trainable, for every kind of job."""
    from orchestrator.work.search import run_measure, run_proxy, run_search

    match config["kind"]:
        case "search":
            run_search(config["folder"], lambda record: tune.report(record["metrics"]))
        case "proxy":
            run_proxy(config["folder"], lambda record: tune.report(record["metrics"]))
        case "lookup":
            from orchestrator.work.lookup import run_lookup  # a search never brings it along

            run_lookup(config["folder"], lambda record: tune.report(record["metrics"]))
        case "measure":
            tune.report(run_measure(config["folder"])["metrics"])
        case "train":
            _launch_training(config)


def _launch_training(config: dict[str, Any]) -> None:
    """Start the workers of a final training with Ray Train and wait for them."""
    from ray.train.torch import TorchConfig, TorchTrainer

    from orchestrator.work.body import failure_recorded
    from orchestrator.work.final import settle_provenance

    folder = JobFolder.open(config["folder"])
    settings = folder.settings()
    with failure_recorded(folder):
        selections = selection_records(settings["environment"]["selections"])
        settle_provenance(folder, settings, selections)
    r, nodes = config["resources"], living_nodes()
    try:
        TorchTrainer(
            _train_loop,
            train_loop_config={"folder": config["folder"], "device": r["device"]},
            scaling_config=ray.train.ScalingConfig(
                num_workers=r["workers"],
                use_gpu=r["gpus_per_worker"] > 0,
                resources_per_worker=_nonzero(CPU=r["cpus_per_worker"], GPU=r["gpus_per_worker"]),
            ),
            torch_config=TorchConfig(backend=r["backend"]),
            run_config=ray.train.RunConfig(
                # A new name each time: Train's own snapshots are never resumed from.
                name=f"{config['label']}-{os.getpid()}-{time.time_ns()}",
                storage_path=str(folder.path.parent.parent / "ray"),
                failure_config=ray.train.FailureConfig(max_failures=0),
                logging_config=ray.train.LoggingConfig(log_level="ERROR"),
            ),
        ).fit()
    except Exception as error:
        folder.refresh()
        said = read_failure(folder.place)
        with suppress(OSError):
            if _lost_a_node(nodes, said):
                write_failure(folder.place, "a worker's machine was lost", str(error), "node")
            elif said is None:  # a worker that died left no word
                write_failure(folder.place, _of_a_worker(error), str(error), "process")
        raise
    folder.refresh()
    result = folder.result()
    assert result is not None, "workers that ended well have left a result"
    tune.report(result["metrics"])


def _lost_a_node(before: set[str], said: Failure | None) -> bool:
    """Whether a machine is why a training failed. Its partners notice a lost one within a second,
    as a broken connection; Ray only when it misses its health checks."""
    if len(before) < 2:
        return False  # the only one is this one
    end = time.monotonic() + NOTICED_AFTER_S
    while not before - living_nodes():
        if (said and not said.error.startswith(BROKEN)) or time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def living_nodes() -> set[str]:
    """The ids of the cluster's machines that answer."""
    return {str(node["NodeID"]) for node in _living()}


def _living() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _of_a_worker(error: Exception) -> str:
    """Why a final failed whose workers left no word of their own."""
    causes = getattr(error, "worker_failures", {}).values()
    for cause in causes:
        if "OutOfMemoryError" in type(cause).__name__ or "OutOfMemoryError" in str(cause)[:500]:
            return f"out of memory in a training worker; {MEMORY_ADVICE}"
        if "No space left on device" in str(cause):
            return NO_SPACE
    return f"a training worker died ({type(error).__name__})"


def _train_loop(config: dict[str, Any]) -> None:
    """Runs in every Train worker."""
    from orchestrator.work.final import train_worker

    if config["device"] == "cuda":
        import torch
        from ray.train.torch import get_device

        torch.cuda.set_device(get_device())
    train_worker(config["folder"])


def on_every_node(
    look: Callable[..., Any], arguments: tuple[Any, ...], patience_s: float
) -> list[tuple[dict[str, Any], Any]]:
    """Every living machine as Ray describes it, the one called from first, and what `look` returned
    there, or why it did not."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(look)
    asked = [
        (
            node,
            task.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(*arguments),
        )
        for node in _living()
    ]
    ended, _ = ray.wait([ref for _, ref in asked], num_returns=len(asked), timeout=patience_s)
    answers = []
    for node, ref in asked:
        try:
            answer = ray.get(ref) if ref in ended else f"none within {patience_s:g} s"
        except Exception as error:  # of the machine, of its packages, or of Ray
            answer = one_line(error, 300)
        answers.append((node, answer))
    here = ray.get_runtime_context().get_node_id()
    return sorted(answers, key=lambda found: found[0]["NodeID"] != here)


def look_at_cluster(scheduler: Scheduler) -> None:
    """Tell the scheduler what the cluster is now.

    Raises:
        ClusterLost: this command's own has no machine any more.
    """
    scheduler.nodes = living_machines()
    if scheduler.private and not scheduler.nodes:
        raise ClusterLost("Ray lost its hold of this machine (too busy, or a process of it killed)")
    scheduler.budget = cluster_budget()
    scheduler.grows = bool(_largest())


def living_machines() -> list[dict[str, float]]:
    """The resources of every machine that answers."""
    return [node["Resources"] for node in _living()]


def _largest() -> dict[str, float]:
    """What an autoscaling cluster may be; nothing where none scales."""
    from ray._private.state import state  # no public way; Ray Train asks the same

    return state.get_max_resources_from_cluster_config() or {}


def cluster_budget() -> dict[str, float]:
    """CPUs and GPUs that jobs may hold: what there is, or what an autoscaling cluster may be."""
    total, largest = ray.cluster_resources(), _largest()
    return {key: max(total.get(key, 0.0), float(largest.get(key, 0))) for key in ("CPU", "GPU")}


@contextmanager
def ray_cluster(address: str | None) -> Iterator[dict[str, float]]:
    """Connect to a cluster, or start one on this machine; yields its CPUs and GPUs.

    Raises:
        InputError: there is no cluster at `address`, or none started here.
    """
    for last in (address is not None, True):
        try:
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level="ERROR",
                include_dashboard=None,  # there where it starts; nothing depends on it
                runtime_env={"env_vars": QUIET} if address else None,
            )
            break
        except Exception as error:  # Ray raises bare ones
            text = one_line(error, 300)
            if not last:  # it gives itself half a minute, too little on a machine that is busy
                ray.shutdown()
                print(f"Ray did not start ({text}); once more", file=sys.stderr, flush=True)
                continue
            if address is None:
                raise InputError(
                    f"Ray did not start on this machine ({text}); where much else runs here, run "
                    "the same command again later"
                ) from None
            raise InputError(
                f"--address {address}: no Ray cluster answers there ({text})"
            ) from None
    try:
        yield cluster_budget()
    finally:
        _leave_ray()


def _leave_ray() -> None:
    """Disconnect, and end what was started here; what goes wrong in this undoes no study.

    While Ray's core shuts down, letting go of an object reference ends the whole process, at once
    and with code 1. Tune leaves references in cycles, and any thread's garbage collection may come
    upon them. So they are collected before, and nothing is collected meanwhile.
    """
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    except Exception as error:  # Ray raises bare ones
        print(f"Ray did not end cleanly ({one_line(error, 200)})", file=sys.stderr)
    finally:
        gc.enable()


def refuse_impossible(study: Study, store: Store) -> None:
    """Raise InputError where an open job can never run on the cluster that is connected.

    Of machines that an autoscaler may still start only the sum is known, and only that is checked.
    """
    nodes = [cluster_budget()] if _largest() else living_machines()
    for job in study:
        if job.kind == "select" or store.done(job):
            continue
        if lack := missing(job, nodes):
            where = "finals" if job.kind == "train" else "searches"
            keys = (
                "workers, cpus_per_worker or gpus_per_worker"
                if job.kind == "train"
                else "cpus or gpus"
            )
            raise InputError(
                f"{job.label} {lack}: give it less ({where}.<name>.resources: {keys}; "
                "device=cpu where there is no GPU), or name a larger cluster with --address"
            )
