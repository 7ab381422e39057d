"""How much a job computes, by its kind, and what a step of it costs, by its search space.

A kind of job names its function in this module (`orchestrator.experiment.kinds`); a search space
names its costs in `orchestrator.cost.images` or `orchestrator.cost.text`
(`orchestrator.experiment.spaces`). An "example" is an image, or a token of a text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from gdas.checkpoint import Segment
from orchestrator.experiment.kinds import load
from orchestrator.experiment.spaces import SPACES
from orchestrator.experiment.study import Job

PASSES = 3
"""The cost of a forward and a backward pass, in forward passes."""
FLOPS = 2  # per multiply-add
FLOAT = 4  # bytes
TIMED_STEPS = 2
"""Steps in each of the two epochs by which a job is timed; only the second one counts."""
SLACK = 1.5
"""A step's peak of memory, relative to what it keeps, by rule of thumb."""


class Work(NamedTuple):
    """What a job has to compute.

    Attributes:
        epochs: epochs of training steps.
        examples: examples per epoch.
        passes: examples that go through a forward pass only, in all.
        at_once: for how many operations of an edge a step keeps the outputs.
    """

    epochs: float
    examples: float
    passes: float = 0.0
    at_once: int = 1


class Cost(NamedTuple):
    """The cost of a space's searches, or of trainings of its cells.

    Attributes:
        examples: how many examples of a split ("train", "valid" or "test") a job reads.
        operations: how many operations an edge of its cells has.
        flops: floating point operations of a job's work, guessed from multiply-adds.
        cpu_flops: floating point operations per second of a thread.
        gpu_flops: floating point operations per second of a GPU of 2018: in steps, in forward
            passes.
        seconds: seconds of a job's work on this machine, from a few steps (data folder, device).
        bytes: bytes of memory that one process needs beside Python and PyTorch, guessed.
    """

    examples: Callable[[Job, str], int]
    operations: Callable[[Job], int]
    flops: Callable[[Job, Work], float]
    cpu_flops: float
    gpu_flops: tuple[float, float]
    seconds: Callable[[Job, Work, Path, torch.device], float]
    bytes: Callable[[Job, Work], float]


def cost_of(job: Job) -> Cost:
    """The cost functions for a job that runs in the cluster."""
    space = SPACES[job.recipe["config"]["task"]]
    cost: Cost = load(space.search_cost if job.of.config == "search" else space.training_cost)
    return cost


def work_of(job: Job) -> Work:
    """The work of a job that runs in the cluster."""
    work: Work = load(job.of.work)(job, cost_of(job))
    return work


def of_search(job: Job, cost: Cost) -> Work:
    """W and alpha steps over D_T, then scoring the derived cell and comparing drawn ones."""
    config, valid = job.recipe["config"], cost.examples(job, "valid")
    compared = 2 * config.get("compared_cells", 0)
    seen = valid + compared * min(config.get("compared_images", 0), valid)
    collected = (1 + compared) * config.get("recalibration_batches", 0) * config["batch_size"]
    return Work(config["epochs"], cost.examples(job, "train"), seen + collected)


def of_lookup(job: Job, cost: Cost) -> Work:
    """Scoring uniformly drawn cells with the search's shared weights."""
    config, lookup = job.recipe["config"], job.recipe["lookup"]
    collected = config["recalibration_batches"] * config["batch_size"]
    return Work(0, 0, lookup["cells"] * (lookup["images"] + collected))


def of_measure(job: Job, cost: Cost) -> Work:
    """Iterations of a search, accelerated and with all operations, and a first one of each."""
    operations = cost.operations(job)
    batch = job.recipe["config"]["batch_size"]
    return Work(job.recipe["iterations"] + 1, batch * (1 + operations), at_once=operations)


def of_proxy(job: Job, cost: Cost) -> Work:
    """Steps over D_T, evaluations on D_V."""
    return _training(job, cost, "valid")


def of_final(job: Job, cost: Cost) -> Work:
    """Steps over the training split; evaluations on the validation text or the test images."""
    return _training(job, cost, "valid" if "valid" in job.recipe["data"] else "test")


def _training(job: Job, cost: Cost, evaluated_on: str) -> Work:
    config = job.recipe["config"]
    evaluations = -(-config["epochs"] // config.get("evaluate_every", 1))
    seen = evaluations * cost.examples(job, evaluated_on)
    return Work(config["epochs"], cost.examples(job, "train"), seen)


def timed(segments: Iterator[Segment]) -> float:
    """Seconds from a loop's first segment to its second."""
    next(segments)
    started = time.perf_counter()
    next(segments)
    return time.perf_counter() - started
