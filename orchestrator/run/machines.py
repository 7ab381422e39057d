"""The machines of a Ray cluster: connecting, what there is, what left, and what can never run."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from gdas.errors import InputError, one_line
from orchestrator.experiment.study import Study
from orchestrator.run import QUIET
from orchestrator.run.scheduler import ClusterLost, Scheduler, missing
from orchestrator.store.failure import Failure
from orchestrator.store.store import Store

NOTICED_AFTER_S = 75.0  # five health checks of up to 13 s each, and some
BROKEN = ("RuntimeError", "DistBackendError", "DistNetworkError", "ConnectionError")
"""How failures begin that may be a lost partner's."""


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
                f"--address {address}: no Ray cluster answers there ({text}); start one (ray start "
                "--head), or leave --address out"
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


def cluster_budget() -> dict[str, float]:
    """CPUs and GPUs that jobs may hold: what there is, or what an autoscaling cluster may be."""
    total, largest = ray.cluster_resources(), _largest()
    return {key: max(total.get(key, 0.0), float(largest.get(key, 0))) for key in ("CPU", "GPU")}


def _largest() -> dict[str, float]:
    """What an autoscaling cluster may be; nothing where none scales."""
    from ray._private.state import state  # no public way; Ray Train asks the same

    return state.get_max_resources_from_cluster_config() or {}


def living_machines() -> list[dict[str, float]]:
    """The resources of every machine that answers."""
    return [node["Resources"] for node in _living()]


def living_nodes() -> set[str]:
    """The ids of the cluster's machines that answer."""
    return {str(node["NodeID"]) for node in _living()}


def _living() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def lost_a_node(before: set[str], said: Failure | None) -> bool:
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


def refuse_impossible(study: Study, store: Store) -> None:
    """Raise InputError where an open job can never run on the cluster that is connected.

    Of machines that an autoscaler may still start only the sum is known, and only that is checked.
    """
    nodes = [cluster_budget()] if _largest() else living_machines()
    for job in study.in_cluster:
        if store.done(job):
            continue
        if lack := missing(job, nodes):
            keys = "cpus or gpus"
            if "workers" in job.resources:
                keys = "workers, cpus_per_worker or gpus_per_worker"
            raise InputError(
                f"{job.label} {lack}: give it less ({job.of.section}.<name>.resources: {keys}; "
                "device=cpu where there is no GPU), or name a larger cluster with --address"
            )


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
