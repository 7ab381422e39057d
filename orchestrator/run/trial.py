"""One job in the cluster: a Tune trial, which starts a Ray Train run for several workers."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import cache
from typing import Any, Literal, TypedDict

import ray.train
from ray import tune

from orchestrator.experiment.config import SMALLEST_SHARE
from orchestrator.experiment.kinds import load
from orchestrator.experiment.study import Job
from orchestrator.run.machines import living_nodes, lost_a_node
from orchestrator.store.failure import MEMORY_ADVICE, read_failure, write_failure
from orchestrator.store.job_folder import NO_SPACE, JobFolder
from orchestrator.work.fork_server import ForkServer, ProcessDied

ENDING_S = 5.0
"""A process that is ended because its machine is lost kills what it has started a moment before.

Its job then seems to be killed for itself. If the process still lives after this time, it was.
"""
BODY = "orchestrator.work.body"
RUN_JOB = f"{BODY}:run_job"
"""What runs in a job's process; named as text, because this process needs no PyTorch."""
OPTIMISERS = "torch._dynamo"
"""What PyTorch imports when the first optimizer is made, which takes as long as all the rest."""


class TrialConfig(TypedDict):
    """A trial's config.

    Functions are named as text, so that the trial's process need not know the kinds of job.
    """

    folder: str
    label: str
    resources: dict[str, Any]
    runs_in: Literal["driver", "trial", "workers"]
    body: str
    before: str | None


def trial_config(job: Job, folder: JobFolder) -> TrialConfig:
    """Make the config of a job's trial."""
    return {
        "folder": folder.address,
        "label": job.label,
        "resources": job.resources,
        "runs_in": job.of.runs_in,
        "body": job.of.body,
        "before": job.of.before,
    }


def bundles(config: TrialConfig) -> Any:
    """The resources that Tune reserves for a trial; if a job has workers, Train reserves theirs."""
    r = config["resources"]
    if _in_a_team(config):
        return tune.PlacementGroupFactory([{"memory": 1 << 20}])
    cpus, gpus = (
        ("cpus", "gpus") if config["runs_in"] == "trial" else ("cpus_per_worker", "gpus_per_worker")
    )
    return tune.PlacementGroupFactory([_nonzero(CPU=r[cpus], GPU=r[gpus]) | _mark(r)])


def _in_a_team(config: TrialConfig) -> bool:
    """Whether several processes train together; a single worker needs no others, nor Ray Train."""
    return config["runs_in"] == "workers" and config["resources"]["workers"] > 1


def _mark(resources: dict[str, Any]) -> dict[str, float]:
    """The least share of the resource that a process's machine must have, if one is named."""
    named = resources.get("machines")
    return {named: SMALLEST_SHARE} if named else {}


def _nonzero(**resources: float) -> dict[str, float]:
    return {key: value for key, value in resources.items() if value}


@cache
def fork_server() -> ForkServer:
    """This process's fork server, which it keeps from one trial to the next."""
    return ForkServer()


def run_trial(config: TrialConfig) -> None:
    """Run a job; the only trainable, for every kind of job.

    It reports nothing to Tune, which would only keep it: records are in the job's folder.
    """
    if _in_a_team(config):
        _launch_workers(config)
        return
    arguments = config["folder"], config["body"], config["before"]
    modules = [BODY, OPTIMISERS, config["body"].partition(":")[0]]
    try:
        fork_server().call(RUN_JOB, *arguments, modules=modules)
    except ProcessDied:
        time.sleep(ENDING_S)
        raise


def _launch_workers(config: TrialConfig) -> None:
    """Start the workers of a job with Ray Train and wait for them."""
    from ray.train.torch import TorchConfig, TorchTrainer

    from orchestrator.work.body import prepare_job

    folder = JobFolder.open(config["folder"])
    if config["before"]:
        prepare_job(folder, config["before"])
    r, nodes = config["resources"], living_nodes()
    try:
        TorchTrainer(
            _train_loop,
            train_loop_config={
                "body": config["body"],
                "folder": config["folder"],
                "device": r["device"],
            },
            scaling_config=ray.train.ScalingConfig(
                num_workers=r["workers"],
                use_gpu=r["gpus_per_worker"] > 0,
                resources_per_worker=_nonzero(CPU=r["cpus_per_worker"], GPU=r["gpus_per_worker"])
                | _mark(r),
            ),
            torch_config=TorchConfig(backend=r["backend"]),
            run_config=ray.train.RunConfig(
                # A new name each time, so that Train never resumes from its own snapshots.
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
            if lost_a_node(nodes, said):
                write_failure(folder.place, "a worker's machine was lost", str(error), "node")
            elif said is None:  # the worker died without an error record
                write_failure(folder.place, _of_a_worker(error), str(error), "process")
        raise


def _of_a_worker(error: Exception) -> str:
    """Why a final failed, if its workers left no error record."""
    causes = getattr(error, "worker_failures", {}).values()
    for cause in causes:
        if "OutOfMemoryError" in type(cause).__name__ or "OutOfMemoryError" in str(cause)[:500]:
            return f"out of memory in a training worker; {MEMORY_ADVICE}"
        if "No space left on device" in str(cause):
            return NO_SPACE
    return f"a training worker died ({type(error).__name__})"


def _train_loop(config: dict[str, str]) -> None:
    """Run the job's body in every Train worker."""
    if config["device"] == "cuda":
        import torch
        from ray.train.torch import get_device

        torch.cuda.set_device(get_device())
    load(config["body"])(config["folder"], lambda record: None)
