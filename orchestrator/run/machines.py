"""The machines of a Ray cluster: connect, list them, notice losses, refuse what cannot run."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import ray
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import Config  # type: ignore[attr-defined]

from gdas.errors import InputError, one_line
from orchestrator.experiment.study import Study
from orchestrator.run import FOR_JOBS
from orchestrator.run.address import MODE, Unreachable, probe
from orchestrator.run.footing import faults
from orchestrator.run.scheduler import ClusterLost, Scheduler, missing
from orchestrator.store.failure import Failure
from orchestrator.store.store import Store

NOTICED_AFTER_S = 75.0  # five health checks of up to 13 s each, and a margin
BROKEN = ("RuntimeError", "DistBackendError", "DistNetworkError", "ConnectionError")
"""How errors begin that a worker may raise if another worker was lost."""


@contextmanager
def ray_cluster(address: str | None) -> Iterator[dict[str, float]]:
    """Connect to a cluster, or start one on this machine; yields its CPUs and GPUs.

    Raises:
        InputError: there is no cluster at `address`, or none started here.
    """
    if address is not None:
        address = _reached(address)
    else:
        for what, fix in faults():
            raise InputError(f"Ray cannot start on this machine: {what}; {fix}")
    for last in (address is not None, True):
        before = set(psutil.Process().children(recursive=True))
        try:
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level="ERROR",
                include_dashboard=None,  # started if it can be; nothing depends on it
                runtime_env={"env_vars": {key: os.environ[key] for key in FOR_JOBS}}
                if address
                else None,
            )
            break
        except Exception as error:  # Ray raises bare ones
            text = one_line(error, 300)
            if not last:  # Ray's limit of half a minute is too short on a busy machine
                ray.shutdown()
                _end_all_since(before)
                print(f"Ray did not start ({text}); once more", file=sys.stderr, flush=True)
                continue
            if address is None:
                raise InputError(
                    f"Ray did not start on this machine ({text}); where much else runs here, run "
                    "the same command again later"
                ) from None
            raise InputError(
                f"--address {address}: a head answers there, and this machine cannot join it "
                f"({text}); run this on a machine of the cluster (ray start --address={address})"
            ) from None
    try:
        yield cluster_budget()
    finally:
        _leave_ray()


def _end_all_since(before: set[psutil.Process]) -> None:
    """End the processes that a start of Ray which failed has left.

    `ray.shutdown` does not know them: a head and a dashboard would run beside those of the next
    start for as long as this process does.
    """
    left = [p for p in psutil.Process().children(recursive=True) if p not in before]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=5)


def _reached(address: str) -> str:
    """The address of a cluster whose head answers; this process sends its token if it wants one.

    Raises:
        InputError: it does not answer within seconds, or refuses this process.
    """
    if address == "local" or address.startswith("ray://"):
        return address
    named = address
    if address == "auto":
        try:
            address = str(canonicalize_bootstrap_address("auto"))
        except (ConnectionError, ValueError):
            raise InputError(
                "--address auto: no Ray cluster runs on this machine; start one (ray start "
                "--head), name one as HOST:6379, or leave --address out"
            ) from None
        named = f"auto ({address})"
    try:
        wants_token = probe(address, ray.__version__)
    except Unreachable as why:
        raise InputError(f"--address {named}: {why}") from None
    if wants_token and MODE not in os.environ:
        os.environ[MODE] = "token"
        Config.initialize("")  # Ray has read its environment when it was imported
    return address


def _leave_ray() -> None:
    """Disconnect, and end the cluster if it was started here; no error here fails the study.

    While Ray's core shuts down, dropping an object reference ends the whole process at once, with
    code 1. Tune leaves references in cycles, which any thread's garbage collection may find. So
    they are collected first, and the collector is off during the shutdown.
    """
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    except Exception as error:  # Ray raises bare ones
        print(f"Ray did not end cleanly ({one_line(error, 200)})", file=sys.stderr)
    finally:
        gc.enable()


def cluster_budget() -> dict[str, float]:
    """CPUs and GPUs that jobs may use: those there are, or those an autoscaler may reach."""
    reachable = _reachable()
    return {key: reachable.get(key, 0.0) for key in ("CPU", "GPU")}


def _reachable() -> dict[str, float]:
    """All resources that there are, or that an autoscaler may reach."""
    total, largest = ray.cluster_resources(), _largest()
    return {k: max(total.get(k, 0.0), float(largest.get(k, 0))) for k in {*total, *largest}}


def _largest() -> dict[str, float]:
    """The largest resources that an autoscaling cluster may reach; empty for any other."""
    from ray._private.state import state  # there is no public way; Ray Train does the same

    return state.get_max_resources_from_cluster_config() or {}


def living_machines() -> list[dict[str, float]]:
    """The resources of every living machine."""
    return [node["Resources"] for node in _living()]


def living_nodes() -> set[str]:
    """The node ids of the living machines."""
    return {str(node["NodeID"]) for node in _living()}


def _living() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def lost_a_node(before: set[str], said: Failure | None) -> bool:
    """Whether a training failed because a machine was lost.

    The other workers notice it within a second, as a broken connection; Ray notices it only after
    missed health checks, which this waits for.

    Args:
        before: the nodes when the training started.
        said: the job's error record.
    """
    if len(before) < 2:
        return False  # the only machine is this one
    end = time.monotonic() + NOTICED_AFTER_S
    while not before - living_nodes():
        if (said and not said.error.startswith(BROKEN)) or time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def look_at_cluster(scheduler: Scheduler) -> None:
    """Give the scheduler the cluster's current machines and budget.

    Raises:
        ClusterLost: this command's own cluster has no machine any more.
    """
    scheduler.nodes = living_machines()
    if scheduler.private and not scheduler.nodes:
        raise ClusterLost("Ray lost its hold of this machine (too busy, or a process of it killed)")
    scheduler.budget = cluster_budget()
    scheduler.grows = bool(_largest())


def refuse_impossible(study: Study, store: Store) -> None:
    """Raise InputError if an open job can never run on the connected cluster.

    For machines that an autoscaler may still start, only their sum is known, so only that is
    checked.
    """
    nodes = [_reachable()] if _largest() else living_machines()
    for job in study.in_cluster:
        if store.done(job):
            continue
        if lack := missing(job, nodes):
            keys = "cpus or gpus"
            if "workers" in job.resources:
                keys = "workers, cpus_per_worker or gpus_per_worker"
            keys += ", or machines" if job.machines else ""
            raise InputError(
                f"{job.label} {lack}: give it less ({job.of.section}.<name>.resources: {keys}; "
                "device=cpu where there is no GPU), or name a larger cluster with --address"
            )


def on_every_node(
    look: Callable[..., Any], arguments: tuple[Any, ...], patience_s: float
) -> list[tuple[dict[str, Any], Any]]:
    """Call a function on every living machine.

    Args:
        look: the function, which Ray pickles.
        patience_s: how long to wait for answers, in seconds.

    Returns:
        For every machine, the calling one first, Ray's description of it and what `look` returned
        there, or the reason why it did not.
    """
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
        except Exception as error:  # whatever the machine, its packages or Ray raise
            answer = one_line(error, 300)
        answers.append((node, answer))
    here = ray.get_runtime_context().get_node_id()
    return sorted(answers, key=lambda found: found[0]["NodeID"] != here)
