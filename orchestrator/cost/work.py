"""How much a job has to compute, by its kind, and what a step of it costs, by its search space.

A kind of job names its function here (`orchestrator.experiment.kinds`), a search space its costs in
`orchestrator.cost.images` or `orchestrator.cost.text` (`orchestrator.experiment.spaces`). An
example is an image, or a token of a text.
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
"""A forward and a backward pass, in forward passes."""
FLOPS = 2  # of a multiply-add
FLOAT = 4  # bytes
TIMED_STEPS = 2
"""Of each of two epochs when a job is timed; the second epoch counts."""
SLACK = 1.5
"""A step's peak of memory over what it keeps, by rule of thumb."""


class Work(NamedTuple):
    """What a job has to compute.

    Attributes:
        epochs, examples: steps over so many examples an epoch.
        passes: examples that go through forward passes beside the steps.
        at_once: operations of an edge whose outputs a step keeps.
    """

    epochs: float
    examples: float
    passes: float = 0.0
    at_once: int = 1


class Cost(NamedTuple):
    """What the steps of the searches of a space, or of the trainings of its cells, cost.

    Attributes:
        examples: of a split that the job reads, "train", "valid" or "test".
        operations: of an edge of its cells.
        flops: of a job's work, guessed from multiply-adds.
        gpu_flops: a second, of a GPU of 2018: of steps, and of forward passes.
        seconds: of a job's work on this machine, from a few steps of it (data folder, device).
        bytes: of memory that one process needs beside Python and PyTorch, guessed.
    """

    examples: Callable[[Job, str], int]
    operations: Callable[[Job], int]
    flops: Callable[[Job, Work], float]
    gpu_flops: tuple[float, float]
    seconds: Callable[[Job, Work, Path, torch.device], float]
    bytes: Callable[[Job, Work], float]


def cost_of(job: Job) -> Cost:
    """The costs of a job that runs in the cluster."""
    space = SPACES[job.recipe["config"]["task"]]
    cost: Cost = load(space.search_cost if job.of.config == "search" else space.training_cost)
    return cost


def work_of(job: Job) -> Work:
    """The work of a job that runs in the cluster."""
    work: Work = load(job.of.work)(job, cost_of(job))
    return work


def of_search(job: Job, cost: Cost) -> Work:
    """W and alpha steps over D_T, then what scores the derived cell and compares drawn ones."""
    config, valid = job.recipe["config"], cost.examples(job, "valid")
    compared = 2 * config.get("compared_cells", 0)
    seen = valid + compared * min(config.get("compared_images", 0), valid)
    collected = (1 + compared) * config.get("recalibration_batches", 0) * config["batch_size"]
    return Work(config["epochs"], cost.examples(job, "train"), seen + collected)


def of_lookup(job: Job, cost: Cost) -> Work:
    """Uniform cells scored by the search's shared weights."""
    config, lookup = job.recipe["config"], job.recipe["lookup"]
    collected = config["recalibration_batches"] * config["batch_size"]
    return Work(0, 0, lookup["cells"] * (lookup["images"] + collected))


def of_measure(job: Job, cost: Cost) -> Work:
    """Iterations of a search, each accelerated and with all operations, and one of each before."""
    operations = cost.operations(job)
    batch = job.recipe["config"]["batch_size"]
    return Work(job.recipe["iterations"] + 1, batch * (1 + operations), at_once=operations)


def of_proxy(job: Job, cost: Cost) -> Work:
    """Steps over D_T, looks at D_V."""
    return _training(job, cost, "valid")


def of_final(job: Job, cost: Cost) -> Work:
    """Steps over the training split; looks at the validation text, or else at the test images."""
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
