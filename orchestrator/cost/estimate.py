"""How long a job may take: from records of its like, from a few steps timed here, or a guess.

The guess is rough, from multiply-adds, to warn before days are spent. Measured on two CPU cores: 5
to 13 GFLOP/s a thread. On a GPU of 2018, the authors' 22.4 hours for a training are 0.9 TFLOP/s and
the paper's 4 hours for a search 0.27; text is a guess. A backward pass costs two forward passes.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from gdas.cnn.config import TrainConfig
from gdas.metrics import count_multiply_adds
from gdas.presets import ImageSearchConfig
from gdas.rnn.config import TextSearchConfig
from orchestrator.cost.calibrate import timed_seconds
from orchestrator.cost.workload import (
    PASSES,
    empty_images,
    empty_network,
    empty_supernet,
    halves,
    image_side,
    images_in,
    operations_and_edges,
    text_of,
    training_tokens,
)
from orchestrator.experiment.decode import decode_search, decode_train
from orchestrator.experiment.study import Job
from orchestrator.store.job_folder import JobFolder
from orchestrator.store.store import Store

CPU_FLOPS = 8e9  # a thread
GPU_FLOPS = {"search": 0.25e12, "train": 1e12, "text": 3e12}
FLOPS = 2  # of a multiply-add

RECORDED, TIMED, GUESSED = "recorded", "timed here", "guess"


class Estimate(NamedTuple):
    """Seconds of work that a job still has, without its start; and how that is known."""

    seconds: float
    source: str


@dataclass
class Estimator:
    """Estimates the jobs of a study; every kind of job is timed once.

    Args:
        store: whose jobs' records may tell, where there is one.
        calibrate: the data folder, to time steps here where no record tells; None: guess.
    """

    store: Store | None = None
    calibrate: Path | None = None
    _paces: dict[str, float] = field(default_factory=dict)
    _timed: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.store is not None:
            self._paces = recorded_paces(self.store)

    def estimate(self, job: Job) -> Estimate:
        if job.kind == "select" or (self.store is not None and self.store.done(job)):
            return Estimate(0.0, RECORDED)
        key = likeness(job.kind, job.recipe, job.resources)
        of, passed = self._segments(job)
        if key in self._paces:
            return Estimate((of - passed) * self._paces[key], RECORDED)
        if self.calibrate is None or not _device_is_here(job):
            return Estimate(estimated_seconds(job) * (of - passed) / of, GUESSED)
        own = f"{key} {job.recipe['config'].get('epochs')}"
        if own not in self._timed:
            self._timed[own] = timed_seconds(job, self.calibrate)
        return Estimate(self._timed[own] * (of - passed) / of, TIMED)

    def _segments(self, job: Job) -> tuple[int, int]:
        """How many segments the job has, and how many are behind it."""
        config = job.recipe["config"]
        of = 1 if job.kind == "measure" else config["epochs"] * config.get("segments_per_epoch", 1)
        passed = len(self.store.folder(job).records()) if self.store is not None else 0
        return of, min(passed, of)


def likeness(kind: str, recipe: dict[str, Any], resources: dict[str, Any]) -> str:
    """What two jobs share whose segments take equally long."""
    config = {k: v for k, v in recipe["config"].items() if k not in ("seed", "epochs")}
    held = {k: resources.get(k) for k in ("device", "threads", "workers")}
    size = recipe.get("search", {}).get("train_images")  # of a proxy training
    return json.dumps([kind, config, size, held], sort_keys=True)


def recorded_paces(store: Store) -> dict[str, float]:
    """Seconds a segment, by likeness, of the jobs in an output folder."""
    seconds: dict[str, list[float]] = {}
    for path in sorted((store.out / "jobs").iterdir()):
        folder = JobFolder.open(path)
        try:
            settings = folder.settings()
            key = likeness(settings["kind"], settings["recipe"], settings["resources"])
            seconds.setdefault(key, []).extend(r["seconds"] for r in folder.records())
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a damaged folder tells nothing; the job itself will say so
    return {key: statistics.median(values) for key, values in seconds.items() if values}


def _device_is_here(job: Job) -> bool:
    return bool(job.resources["device"] == "cpu" or torch.cuda.is_available())


def estimated_seconds(job: Job) -> float:
    """Seconds of work of a job on the device of its settings, guessed; 0 for a selection."""
    if job.kind == "select":
        return 0.0
    r = job.resources
    text = job.recipe["config"]["task"] == "text"
    if r["device"] == "cuda":
        speed = GPU_FLOPS["text" if text else "search" if job.kind == "search" else "train"]
    else:
        speed = CPU_FLOPS * r["threads"]
    workers = int(r.get("workers", 1))
    if text:
        return _text_flops(job) / (speed * workers)
    side = image_side(job.recipe["config"]["data"])
    if job.kind in ("search", "lookup", "measure"):
        config = decode_search(job.recipe["config"])
        assert not isinstance(config, TextSearchConfig)
        images, _ = halves(job)
        per_image = _sampled_multiply_adds(dataclasses.replace(config, seed=0), side)
        operations, _ = operations_and_edges(config)
        if job.kind == "lookup":  # forward passes only
            lookup = job.recipe["lookup"]
            scored = lookup["images"] + config.recalibration_batches * config.batch_size
            return float(lookup["cells"] * scored * per_image * FLOPS / speed)
        if config.sampler.relaxation != "hard" or not config.sampler.acceleration:
            per_image *= operations
        # One weight and one alpha pass an image.
        per_image *= FLOPS * PASSES * 2
        if job.kind == "measure":  # accelerated, and with all operations
            iterations = job.recipe["iterations"] + 1
            return float(iterations * config.batch_size * per_image * (1 + operations) / speed)
        return float(images * config.epochs * per_image / speed)
    train = decode_train(job.recipe["config"])
    assert isinstance(train, TrainConfig)
    images = train.train_images or images_in(job, "train")
    if job.kind == "proxy":
        images, _ = halves(job)
    per_image = _multiply_adds(dataclasses.replace(train, seed=0), side)
    return float(images * train.epochs * per_image * FLOPS * PASSES / (speed * workers))


def _text_flops(job: Job) -> float:
    """Products with W0, the step matrices and the decoder, for every token of every epoch."""
    config = job.recipe["config"]
    n, vocabulary = config["hidden"], text_of(job).vocabulary
    products = 8 if job.kind != "search" else 8 * 9 / 2  # one for each earlier state
    per_token = 2 * n * 2 * n + products * n * 2 * n + vocabulary * n
    passes = 2 if job.kind == "search" else 1
    return float(training_tokens(job) * config["epochs"] * per_token * FLOPS * PASSES * passes)


@cache
def _sampled_multiply_adds(config: ImageSearchConfig, side: int) -> float:
    """Of one sampled pass of an image, roughly."""
    net = empty_supernet(config)
    _without_norms(net)
    operations, edges = operations_and_edges(config)
    # Every operation about as often as every other, over the edges and cells.
    picks = [[(e, (e + cell) % operations) for e in range(edges)] for cell in range(len(net.cells))]
    return float(count_multiply_adds(net, empty_images(1, side), picks))


@cache
def _multiply_adds(config: TrainConfig, side: int) -> float:
    """Of one pass of an image."""
    net = empty_network(config)
    _without_norms(net)
    return float(count_multiply_adds(net, empty_images(1, side)))


def _without_norms(net: nn.Module) -> None:
    """They count nothing and take most of the time."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
