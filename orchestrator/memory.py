"""How much memory a job may need: rough, to warn before it is killed for it.

Counted: the process itself, the weights with their gradients and optimiser, and the outputs that a
step keeps for its backward pass (every layer's, of one sampled pass in a search). `PROCESS` (Python
and PyTorch) and `SLACK` (a step's peak over what it keeps) are rules of thumb.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

import gdas.genotype
from gdas.cnn.network import Network
from gdas.cnn.supernet import Supernet
from gdas.config import SearchConfig, TrainConfig
from gdas.data.images import known
from gdas.derive import edge_list
from gdas.genotype import OPERATIONS
from orchestrator.estimate import TEXT_SIZES
from orchestrator.experiment import decode
from orchestrator.study import Job

PROCESS = 0.6e9
SLACK = 1.5
FLOAT = 4


def estimated_bytes(job: Job) -> float:
    """Memory of one process of the job, on the host or (less `PROCESS`) on its GPU."""
    if job.kind == "select":
        return 0.0
    config = job.recipe["config"]
    if config["task"] == "text":
        return PROCESS + SLACK * _text(job)
    size = _image_size(job)
    if job.kind in ("search", "measure"):
        search = decode(SearchConfig, config, "recipe")
        n = search.network
        weights, kept = _supernet(
            n.channels, n.normals_per_block, n.nodes, n.reduction == "fixed", n.stem, size
        )
        kept *= len(OPERATIONS) if job.kind == "measure" else 1  # once with all operations
        return PROCESS + FLOAT * (3 * weights + SLACK * kept * search.batch_size)
    train = decode(TrainConfig, config, "recipe")
    weights, kept = _network(train.channels, train.normals_per_block, train.stem, size)
    share = -(-train.batch_size // int(job.resources.get("workers", 1)))
    return PROCESS + FLOAT * (3 * weights + SLACK * kept * share)


def _image_size(job: Job) -> int:
    data = job.recipe["config"]["data"]
    return int(data["size"]) if data["format"] == "photos" else known(data["name"]).size


def _text(job: Job) -> float:
    """Bytes of weights, of the words' scores, and of the states of every step and time."""
    config = job.recipe["config"]
    _, vocabulary = TEXT_SIZES[config["data"]["name"]]
    n, tokens = config["hidden"], config["bptt"] * config["batch_size"]
    edges = 36 if job.kind == "search" else 8
    weights = vocabulary * n + (2 * n) * (2 * n) + 8 * n * 2 * n
    return float(FLOAT * (3 * weights + tokens * (3 * vocabulary + 8 * n * edges)))


@cache
def _supernet(
    channels: int, normals: int, nodes: int, fixed: bool, stem: str, size: int
) -> tuple[int, float]:
    """Weights, and the outputs of a sampled pass of one image: all operations' mean."""
    with torch.device("meta"):
        net = Supernet(
            10,
            channels=channels,
            normals_per_block=normals,
            nodes=nodes,
            fixed_reduction=fixed,
            stem="imagenet" if stem == "imagenet" else "cifar",
        )
        image = torch.zeros(2, 3, size, size)
    edges = range(len(edge_list(nodes)))
    kept = [
        _outputs(net, image, [[(e, k) for e in edges]] * len(net.cells))
        for k in range(len(OPERATIONS))
    ]
    return sum(p.numel() for p in net.parameters()), sum(kept) / len(kept)


@cache
def _network(channels: int, normals: int, stem: str, size: int) -> tuple[int, float]:
    """Weights and one image's outputs, of GDAS_V1's cell, standing for any."""
    with torch.device("meta"):
        net = Network(
            gdas.genotype.PUBLISHED["GDAS_V1"],
            10,
            channels=channels,
            normals_per_block=normals,
            stem="imagenet" if stem == "imagenet" else "cifar",
        )
        image = torch.zeros(2, 3, size, size)
    return sum(p.numel() for p in net.parameters()), _outputs(net, image)


def _outputs(net: nn.Module, image_2CHW: Tensor, *args: Sequence[object]) -> float:
    """Numbers that the layers put out, for one image."""
    total = 0

    def count(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        total += out.numel()

    for layer in net.modules():
        if not list(layer.children()) and not isinstance(layer, nn.Identity):
            layer.register_forward_hook(count)
    with torch.no_grad():
        net(image_2CHW, *args)
    return total / len(image_2CHW)
