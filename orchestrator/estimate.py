"""How long a job may take: rough, from its multiply-adds, to warn before days are spent.

Measured on two CPU cores: 5 to 13 GFLOP/s a thread on supernet steps; the authors' 22.4 hours for
one training on a 2018 GPU are 0.9 TFLOP/s. A backward pass costs two forward passes.
"""

from __future__ import annotations

from functools import cache

import torch

import gdas.genotype
from gdas.cnn.network import Network
from gdas.cnn.supernet import Supernet
from gdas.config import SearchConfig, TrainConfig
from gdas.data.images import known
from gdas.derive import edge_list
from gdas.genotype import OPERATIONS
from gdas.metrics import count_multiply_adds
from orchestrator.experiment import decode
from orchestrator.study import Job

CPU_FLOPS = 8e9  # a thread
GPU_FLOPS = 1e12
PASSES = 3  # forward and backward, in forward passes
FLOPS = 2  # of a multiply-add


def estimated_seconds(job: Job) -> float:
    """Wall-clock seconds of a job on the device of its settings; 0 for a selection."""
    if job.kind == "select":
        return 0.0
    data = known(job.recipe["config"]["data"]["name"])
    r = job.resources
    speed = GPU_FLOPS if r["device"] == "cuda" else CPU_FLOPS * r["threads"]
    workers = r.get("workers", 1)
    if job.kind == "search":
        config = decode(SearchConfig, job.recipe["config"], "recipe")
        images = config.train_images or data.counts["train"] // 2
        network = config.network
        per_image = _supernet_multiply_adds(
            network.channels,
            network.normals_per_block,
            network.nodes,
            network.reduction == "fixed",
            network.stem,
            data.size,
        )
        # One weight and one alpha pass an image.
        return float(images * config.epochs * per_image * FLOPS * PASSES * 2 / speed)
    train = decode(TrainConfig, job.recipe["config"], "recipe")
    images = train.train_images or data.counts["train"]
    if job.kind == "proxy":
        images = job.recipe["search"]["train_images"] or data.counts["train"] // 2
    per_image = _network_multiply_adds(
        train.channels, train.normals_per_block, train.stem, data.size
    )
    return float(images * train.epochs * per_image * FLOPS * PASSES / (speed * workers))


@cache
def _supernet_multiply_adds(
    channels: int, normals: int, nodes: int, fixed: bool, stem: str, size: int
) -> float:
    """Of one sampled pass: all operations' cost, an eighth of it on average, found by running
    every edge with each operation in turn."""
    with torch.device("meta"):
        net = Supernet(
            10,
            channels=channels,
            normals_per_block=normals,
            nodes=nodes,
            fixed_reduction=fixed,
            stem="imagenet" if stem == "imagenet" else "cifar",
        )
        image = torch.zeros(1, 3, size, size)
    edges = range(len(edge_list(nodes)))
    totals = [
        count_multiply_adds(net, image, [[(e, k) for e in edges]] * len(net.cells))
        for k in range(len(OPERATIONS))
    ]
    return sum(totals) / len(totals)


@cache
def _network_multiply_adds(channels: int, normals: int, stem: str, size: int) -> float:
    """Of GDAS_V1's cell, standing for any."""
    with torch.device("meta"):
        net = Network(
            gdas.genotype.PUBLISHED["GDAS_V1"],
            10,
            channels=channels,
            normals_per_block=normals,
            stem="imagenet" if stem == "imagenet" else "cifar",
        )
        return float(count_multiply_adds(net, torch.zeros(1, 3, size, size)))
