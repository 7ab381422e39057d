"""How much a job has to do: its images or words, and its network without numbers in it. Pure.

What the estimates of time (orchestrator.cost.estimate, orchestrator.cost.calibrate) and of memory
(orchestrator.cost.ram) both count.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import torch
from torch import Tensor

import gdas.cnn.genotype
from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.genotype import CELL_OPERATIONS, EDGES
from gdas.bench201.network import Network as Bench201Network
from gdas.bench201.space import build_bench201_supernet
from gdas.cnn.config import TrainConfig
from gdas.cnn.derive import edge_list
from gdas.cnn.genotype import OPERATIONS
from gdas.cnn.network import Network
from gdas.cnn.space import build_supernet
from gdas.cnn.supernet import Supernet
from gdas.cnn.train import build_network
from gdas.data.images import known
from gdas.data.settings import TextData
from gdas.data.shard_index import photos_in
from gdas.data.text import TextCounts, text_counts
from gdas.presets import ImageSearchConfig
from gdas.sampler import Pick
from orchestrator.experiment.study import Job

PASSES = 3
"""A forward and a backward pass, in forward passes."""
CLASSES = 10

AnySupernet = Supernet | Bench201Network


def image_side(data: dict[str, Any]) -> int:
    """Side of the images that the network sees, in pixels, from a job's data settings."""
    return int(data["size"]) if data["format"] == "photos" else known(data["name"]).size


def images_in(job: Job, split: str) -> int:
    """Images of a split that the job reads, "train" or "test"."""
    data = job.recipe["config"]["data"]
    if data["format"] == "photos":
        return photos_in(job.recipe["data"][split])
    return known(data["name"]).counts["train" if split == "train" else "test"]


def halves(job: Job) -> tuple[int, int]:
    """Images in D_T and D_V of a search, or of the search that a proxy training follows."""
    search = job.recipe.get("search", job.recipe["config"])
    total = images_in(job, "train")
    train = search["train_images"] or total // 2
    return train, search["valid_images"] or total - train


def text_of(job: Job) -> TextCounts:
    """The sizes of the text that a job reads."""
    data = TextData(**job.recipe["config"]["data"])
    return _counted(data, tuple(sorted(job.recipe["data"].items())))


@cache
def _counted(data: TextData, identities: tuple[tuple[str, str], ...]) -> TextCounts:
    """Looked up once: counting the prose takes a moment."""
    return text_counts(data, dict(identities))


def training_tokens(job: Job) -> int:
    """Tokens of an epoch of a job on text."""
    config = job.recipe["config"]
    search = job.recipe.get("search", {})  # a proxy training's
    whole = text_of(job).counts["train"]
    return int(config["train_tokens"] or search.get("train_tokens") or whole)


def empty_supernet(config: ImageSearchConfig) -> AnySupernet:
    """The supernet of a search's settings, on the meta device."""
    with torch.device("meta"):
        if isinstance(config, Bench201SearchConfig):
            return build_bench201_supernet(config, CLASSES)
        return build_supernet(config, CLASSES)


def empty_network(config: TrainConfig) -> Network:
    """The network of a training's settings without its auxiliary head, on the meta device.

    Of GDAS_V1's cell, standing for any.
    """
    plain = dataclasses.replace(config, auxiliary_weight=0.0)
    with torch.device("meta"):
        return build_network(plain, gdas.cnn.genotype.PUBLISHED["GDAS_V1"], CLASSES)


def empty_images(count: int, side: int) -> Tensor:
    """Images on the meta device."""
    return torch.zeros(count, 3, side, side, device="meta")


def operations_and_edges(config: ImageSearchConfig) -> tuple[int, int]:
    """K and E of a search's cells."""
    if isinstance(config, Bench201SearchConfig):
        return len(CELL_OPERATIONS), len(EDGES)
    return len(OPERATIONS), len(edge_list(config.network.nodes))


def every_operation_in_turn(config: ImageSearchConfig, net: AnySupernet) -> list[list[list[Pick]]]:
    """K architectures: with each operation on all edges of all cells. Their mean is a draw's."""
    operations, edges = operations_and_edges(config)
    return [[[(e, k) for e in range(edges)]] * len(net.cells) for k in range(operations)]
