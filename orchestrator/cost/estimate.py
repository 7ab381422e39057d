"""How long a job may take: recorded, timed here, measured on a card, or guessed.

That is from records of similar jobs, from a few timed steps, from what was measured on a card of
the kind that `cards.yaml` names, or else from counts.

The guess counts multiply-adds and is rough; it is for a warning before days are spent. Measured on
a Xeon with AVX-512, per thread: on images 11 to 25 GFLOP/s without fused kernels, on text 20 to 40.
On a GPU of 2018, the authors' 22.4 hours for a training correspond to 0.9 TFLOP/s, and the paper's
4 hours for a search to 0.27; the speed on text is a guess. A backward pass counts as two forward
passes.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gdas.compute import open_device
from orchestrator.cost.cards import measured_seconds
from orchestrator.cost.work import cost_of, work_of
from orchestrator.experiment.study import Job, flat
from orchestrator.store.job_folder import JobFolder
from orchestrator.store.kernels import kernels_here
from orchestrator.store.store import Store

FUSED_FASTER = 2.0
"""How many times as fast fused kernels are; measured: 1.4 to 2.1 (tests/bench/RESULTS.md)."""
PROCESS = 0.6e9
"""Bytes of memory that Python and PyTorch take, by rule of thumb."""

_DESCENT = ("lr", "lr_min", "momentum", "nesterov", "weight_decay", "clip")
FREE = frozenset(
    (
        *("seed", "split_seed", "epochs", *_DESCENT, "lr_decay", "schedule", "warmup_epochs"),
        *(f"weights.{key}" for key in _DESCENT),
        *("alpha.lr", "alpha.betas", "alpha.weight_decay", "alpha.risk_seeking"),
        *("sampler.tau_start", "sampler.tau_end", "sampler.tau_reaches_end"),
    )
)
"""Settings that change what a step computes with, and not how much; `warmup_epochs` is that of a
training's rate. A search holds its logits in `alpha.warmup_epochs`, whose steps cost less."""

LAST_S = 1.0
"""Seconds left of a job that has all its segments and no result yet."""

RECORDED, TIMED, MEASURED, GUESSED = "recorded", "timed here", "on a card", "guess"


class Estimate(NamedTuple):
    """How much work a job still has.

    Attributes:
        seconds: the time it takes, without the start of its process.
        source: how this is known: RECORDED, TIMED, MEASURED or GUESSED.
    """

    seconds: float
    source: str


@dataclass
class Estimator:
    """Estimates the jobs of a study; jobs with equal settings are timed once.

    Args:
        store: the output folder whose records are used, if there is one.
        calibrate: the data folder, to time steps on this machine if there are no records; None:
            guess.
    """

    store: Store | None = None
    calibrate: Path | None = None
    _paces: dict[str, float] = field(default_factory=dict)
    _timed: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.store is not None:
            self._paces = recorded_paces(self.store)

    def estimate(self, job: Job) -> Estimate:
        """Estimate the remaining work of a job; none for a selection or a finished job."""
        if job.in_driver or (self.store is not None and self.store.done(job)):
            return Estimate(0.0, RECORDED)
        key = likeness(job.kind, job.recipe, job.resources)
        of, passed = self._segments(job)
        if passed >= of:
            return Estimate(LAST_S, RECORDED)
        if key in self._paces:
            return Estimate((of - passed) * self._paces[key], RECORDED)
        if self.calibrate is None or not _device_is_here(job):
            alone = measured_seconds(job, work_of(job))
            source = GUESSED if alone is None else MEASURED
            alone = estimated_seconds(job) if alone is None else alone
            return Estimate(alone * (of - passed) / of * sharing(job), source)
        own = f"{key} {job.recipe['config'].get('epochs')}"
        if own not in self._timed:
            self._timed[own] = timed_seconds(job, self.calibrate)
        return Estimate(self._timed[own] * sharing(job) * (of - passed) / of, TIMED)

    def _segments(self, job: Job) -> tuple[int, int]:
        """How many segments the job has, and how many are done."""
        config = job.recipe["config"]
        measures = "iterations" in job.recipe
        of = 1 if measures else config["epochs"] * config.get("segments_per_epoch", 1)
        passed = len(self.store.folder(job).records()) if self.store is not None else 0
        return of, min(passed, of)


def likeness(kind: str, recipe: dict[str, Any], resources: dict[str, Any]) -> str:
    """A key that is equal for two jobs whose segments take equally long."""
    as_read = json.loads(json.dumps(recipe["config"]))  # with lists, as in a job's settings.json
    config = {k: v for k, v in flat(as_read).items() if k not in FREE}
    held = {k: resources.get(k) for k in ("device", "threads", "workers", "gpus")}
    size = recipe.get("search", {}).get("train_images")  # of a proxy training
    return json.dumps([kind, config, size, held], sort_keys=True)


def recorded_paces(store: Store) -> dict[str, float]:
    """Seconds per segment of the jobs in an output folder, by `likeness`."""
    seconds: dict[str, list[float]] = {}
    for path in sorted((store.out / "jobs").iterdir()):
        folder = JobFolder.open(path)
        try:
            settings = folder.settings()
            key = likeness(settings["kind"], settings["recipe"], settings["resources"])
            seconds.setdefault(key, []).extend(r["seconds"] for r in folder.records())
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a damaged folder is skipped; the job itself will report it
    return {key: statistics.median(values) for key, values in seconds.items() if values}


def sharing(job: Job) -> float:
    """How many times as long a job takes on its share of a GPU as on a whole one.

    A half takes twice as long: jobs that share a card are not counted on to gain anything by it.
    """
    gpus = job.cost["GPU"]
    return 1 / gpus if 0 < gpus < 1 else 1.0


def _device_is_here(job: Job) -> bool:
    return bool(job.resources["device"] == "cpu" or torch.cuda.is_available())


def estimated_seconds(job: Job) -> float:
    """Guess the seconds of work of a job on the device of its settings; 0 for a selection."""
    if job.in_driver:
        return 0.0
    cost, work = cost_of(job), work_of(job)
    speed = cost.cpu_flops * float(job.resources["threads"])
    if kernels_here(job.recipe, job.resources) == "fused":
        speed *= FUSED_FASTER
    if job.resources["device"] == "cuda":
        speed = cost.gpu_flops[0 if work.epochs else 1]
    return cost.flops(job, work) / (speed * job.workers)


def timed_seconds(job: Job, data: Path) -> float:
    """Seconds of work of a whole job on this machine, from a few real steps of it.

    Args:
        job: any job but a selection, with a device that this machine has.
        data: the folder of the data sets.
    """
    device = open_device(job.resources["device"], threads=job.resources["threads"])
    return cost_of(job).seconds(job, work_of(job), data, device)


def estimated_bytes(job: Job) -> float:
    """Guess the memory of one process of the job, to warn before it is killed for it.

    That is host memory, or (less `PROCESS`) memory of its GPU.
    """
    return 0.0 if job.in_driver else PROCESS + cost_of(job).bytes(job, work_of(job))
