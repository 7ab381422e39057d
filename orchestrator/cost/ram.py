"""How much memory a job may need: rough, to warn before it is killed for it.

Counted: the process itself, the weights with their gradients and optimiser, and the outputs that a
step keeps for its backward pass (every layer's, of one sampled pass in a search). `PROCESS` (Python
and PyTorch) and `SLACK` (a step's peak over what it keeps) are rules of thumb.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from gdas.cnn.config import TrainConfig
from gdas.metrics import count_parameters
from gdas.presets import ImageSearchConfig
from gdas.rnn.config import TextSearchConfig
from orchestrator.cost.workload import (
    empty_images,
    empty_network,
    empty_supernet,
    every_operation_in_turn,
    image_side,
    operations_and_edges,
    text_of,
)
from orchestrator.experiment.decode import decode_search, decode_train
from orchestrator.experiment.study import Job

PROCESS = 0.6e9
SLACK = 1.5
FLOAT = 4


def estimated_bytes(job: Job) -> float:
    """Memory of one process of the job, on the host or (less `PROCESS`) on its GPU."""
    if job.kind == "select":
        return 0.0
    if job.recipe["config"]["task"] == "text":
        return PROCESS + SLACK * _text(job)
    side = image_side(job.recipe["config"]["data"])
    if job.kind in ("search", "lookup", "measure"):
        search = decode_search(job.recipe["config"])
        assert not isinstance(search, TextSearchConfig)
        weights, kept = _search(dataclasses.replace(search, seed=0), side)
        kept *= operations_and_edges(search)[0] if job.kind == "measure" else 1  # all, once
        return PROCESS + FLOAT * (3 * weights + SLACK * kept * search.batch_size)
    train = decode_train(job.recipe["config"])
    assert isinstance(train, TrainConfig)
    weights, kept = _training(dataclasses.replace(train, seed=0), side)
    share = _share(job, train.batch_size)
    return PROCESS + FLOAT * (3 * weights + SLACK * kept * share)


def _share(job: Job, batch: int) -> int:
    """A worker's part of a global batch."""
    return -(-batch // int(job.resources.get("workers", 1)))


def _text(job: Job) -> float:
    """Bytes of weights, of the words' scores, and of the states of every step and time."""
    config = job.recipe["config"]
    vocabulary = text_of(job).vocabulary
    n, tokens = config["hidden"], config["bptt"] * _share(job, config["batch_size"])
    edges = 36 if job.kind == "search" else 8
    weights = vocabulary * n + (2 * n) * (2 * n) + 8 * n * 2 * n
    return float(FLOAT * (3 * weights + tokens * (3 * vocabulary + 8 * n * edges)))


@cache
def _search(config: ImageSearchConfig, side: int) -> tuple[int, float]:
    """Weights, and the outputs of a sampled pass of one image: all operations' mean."""
    net = empty_supernet(config)
    kept = [_outputs(net, side, picks) for picks in every_operation_in_turn(config, net)]
    return count_parameters(net, without=None), statistics.mean(kept)


@cache
def _training(config: TrainConfig, side: int) -> tuple[int, float]:
    """Weights and one image's outputs."""
    net = empty_network(config)
    return count_parameters(net, without=None), _outputs(net, side)


def _outputs(net: nn.Module, side: int, *args: Sequence[object]) -> float:
    """Numbers that the layers put out, for one image."""
    total = 0

    def count(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        total += out.numel()

    for layer in net.modules():
        if not list(layer.children()) and not isinstance(layer, nn.Identity):
            layer.register_forward_hook(count)
    with torch.no_grad():
        net(empty_images(2, side), *args)
    return total / 2
