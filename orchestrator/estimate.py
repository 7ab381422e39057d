"""How long a job may take: rough, from its multiply-adds, to warn before days are spent.

Measured on two CPU cores: 5 to 13 GFLOP/s a thread. On a GPU of 2018, the authors' 22.4 hours for a
training are 0.9 TFLOP/s and the paper's 4 hours for a search 0.27; text is a guess. A backward pass
costs two forward passes.
"""

from __future__ import annotations

from functools import cache

import torch

import gdas.genotype
from gdas.bench201.genotype import CELL_OPERATIONS, EDGES
from gdas.bench201.network import Network as Bench201Network
from gdas.cnn.network import Network
from gdas.cnn.supernet import Supernet
from gdas.config import Bench201SearchConfig, SearchConfig, TextSearchConfig, TrainConfig
from gdas.data.images import known
from gdas.data.shard_index import photos_in
from gdas.derive import edge_list
from gdas.genotype import OPERATIONS
from gdas.metrics import count_multiply_adds
from orchestrator.experiment import decode_search, decode_train
from orchestrator.study import Job

CPU_FLOPS = 8e9  # a thread
GPU_FLOPS = {"search": 0.25e12, "train": 1e12, "text": 3e12}
TEXT_SIZES = {"ptb": (929_589, 10_000), "wikitext2": (2_088_628, 33_278), "prose": (90_000, 5_000)}
"""Training tokens and vocabulary (prose: roughly)."""
PASSES = 3  # forward and backward, in forward passes
FLOPS = 2  # of a multiply-add


def estimated_seconds(job: Job) -> float:
    """Wall-clock seconds of a job on the device of its settings; 0 for a selection."""
    if job.kind == "select":
        return 0.0
    r = job.resources
    text = job.recipe["config"]["task"] == "text"
    if r["device"] == "cuda":
        speed = GPU_FLOPS["text" if text else "search" if job.kind == "search" else "train"]
    else:
        speed = CPU_FLOPS * r["threads"]
    if text:
        return _text_flops(job) / speed
    count, size = _training_images(job)
    workers = r.get("workers", 1)
    if job.kind in ("search", "lookup", "measure"):
        config = decode_search(job.recipe["config"])
        assert not isinstance(config, TextSearchConfig)
        images = config.train_images or count // 2
        per_image, operations = _sampled_pass(config, size)
        if job.kind == "lookup":  # forward passes only
            lookup = job.recipe["lookup"]
            scored = lookup["images"] + config.recalibration_batches * config.batch_size
            return float(lookup["cells"] * scored * per_image * FLOPS / speed)
        if config.sampler.relaxation != "hard":
            per_image *= operations
        # One weight and one alpha pass an image.
        per_image *= FLOPS * PASSES * 2
        if job.kind == "measure":  # accelerated, and with all operations
            iterations = job.recipe["iterations"] + 1
            return float(iterations * config.batch_size * per_image * (1 + operations) / speed)
        return float(images * config.epochs * per_image / speed)
    train = decode_train(job.recipe["config"])
    assert isinstance(train, TrainConfig)
    images = train.train_images or count
    if job.kind == "proxy":
        images = job.recipe["search"]["train_images"] or count // 2
    per_image = _network_multiply_adds(train.channels, train.normals_per_block, train.stem, size)
    return float(images * train.epochs * per_image * FLOPS * PASSES / (speed * workers))


def _training_images(job: Job) -> tuple[int, int]:
    """How many there are, and their side."""
    data = job.recipe["config"]["data"]
    if data["format"] == "photos":
        return photos_in(job.recipe["data"]["train"]), data["size"]
    images = known(data["name"])
    return images.counts["train"], images.size


def _text_flops(job: Job) -> float:
    """Products with W0, the step matrices and the decoder, for every token of every epoch."""
    config = job.recipe["config"]
    tokens, vocabulary = TEXT_SIZES[config["data"]["name"]]
    if job.kind == "proxy":
        tokens = job.recipe["search"]["train_tokens"] or tokens
    tokens = config.get("train_tokens") or tokens
    n = config["hidden"]
    products = 8 if job.kind != "search" else 8 * 9 / 2  # one for each earlier state
    per_token = 2 * n * 2 * n + products * n * 2 * n + vocabulary * n
    passes = 2 if job.kind == "search" else 1
    return float(tokens * config["epochs"] * per_token * FLOPS * PASSES * passes)


def _sampled_pass(config: SearchConfig | Bench201SearchConfig, size: int) -> tuple[float, int]:
    """Multiply-adds of one sampled pass of an image, and the number of operations of an edge."""
    if isinstance(config, Bench201SearchConfig):
        adds = _bench201_multiply_adds(config.channels, config.normals_per_block, size)
        return adds, len(CELL_OPERATIONS)
    n = config.network
    adds = _supernet_multiply_adds(
        n.channels, n.normals_per_block, n.nodes, n.reduction == "fixed", n.stem, size
    )
    return adds, len(OPERATIONS)


@cache
def _bench201_multiply_adds(channels: int, normals: int, size: int) -> float:
    """Of one sampled pass, as `_supernet_multiply_adds`."""
    with torch.device("meta"):
        net = Bench201Network(10, channels=channels, normals_per_block=normals)
        image = torch.zeros(1, 3, size, size)
    totals = [
        count_multiply_adds(net, image, [[(e, k) for e in range(len(EDGES))]] * len(net.cells))
        for k in range(len(CELL_OPERATIONS))
    ]
    return sum(totals) / len(totals)


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
