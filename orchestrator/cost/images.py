"""The cost of searches and trainings on images, from networks without data and from timed steps.

A guess counts multiply-adds, and the outputs that a step keeps for its backward pass: those of
every layer, in a search of one sampled pass. For a timing, the job's own network and batch size run
on random images (or its own, for photos); a forward pass counts as a third of a training step.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gdas.bench201.network import Network as Bench201Network
from gdas.cnn.config import SearchConfig, TrainConfig
from gdas.cnn.derive import edge_list
from gdas.cnn.genotype import OPERATIONS, PUBLISHED
from gdas.cnn.network import Network
from gdas.cnn.space import ImageSpace, build_supernet
from gdas.cnn.supernet import Supernet
from gdas.cnn.train import build_network, train_image
from gdas.data.arrow import Images
from gdas.data.images import known, open_images
from gdas.data.settings import AnyImageData, PhotoData
from gdas.data.shard_index import photos_in
from gdas.data.source import ImageSource
from gdas.metrics import count_multiply_adds, count_parameters
from gdas.sampler import Pick
from gdas.search import MEASURED_EVERY, SearchSpace, search
from orchestrator.cost.work import FLOAT, FLOPS, PASSES, SLACK, TIMED_STEPS, Cost, Work, timed
from orchestrator.experiment.decode import decode_search, decode_train
from orchestrator.experiment.study import Job

CLASSES = 10
CPU_FLOPS = 12e9
"""Of a thread without fused kernels."""
AnySupernet = Supernet | Bench201Network


@dataclasses.dataclass(frozen=True)
class ImageSearches:
    """What the cost of searches in a space of images depends on.

    Attributes:
        supernet: builds the shared weights from a search's settings and the number of classes.
        space: opens the space from its settings, images and a device.
        size: gives the numbers of operations and edges of its cells.
    """

    supernet: Callable[[Any, int], AnySupernet]
    space: Callable[[Any, ImageSource, torch.device], SearchSpace]
    size: Callable[[Any], tuple[int, int]]

    def cost(self) -> Cost:
        """The cost functions of these searches."""
        return Cost(
            examples=examples,
            operations=lambda job: self.size(decode_search(job.recipe["config"]))[0],
            flops=partial(_search_flops, self),
            cpu_flops=CPU_FLOPS,
            gpu_flops=(0.25e12, 1e12),
            seconds=partial(_search_seconds, self),
            bytes=partial(_search_bytes, self),
        )


def image_side(data: dict[str, Any]) -> int:
    """The side in pixels of the images that the network sees, from a job's data settings."""
    return int(data["size"]) if data["format"] == "photos" else known(data["name"]).size


def examples(job: Job, split: str) -> int:
    """How many images a job reads; searches and their proxies read halves of the training split."""
    config = job.recipe["config"]
    search = job.recipe.get("search", config)
    if "valid_images" not in search:
        asked = config["train_images"] if split == "train" else None
        return int(asked or _images_in(job, split))
    total = _images_in(job, "train")
    train = search["train_images"] or total // 2
    return int(train if split == "train" else search["valid_images"] or total - train)


def _images_in(job: Job, split: str) -> int:
    """How many images a split, "train" or "test", has."""
    data = job.recipe["config"]["data"]
    if data["format"] == "photos":
        return photos_in(job.recipe["data"][split])
    return known(data["name"]).counts["train" if split == "train" else "test"]


def _random_images(data: AnyImageData, folder: Path, count: int) -> ImageSource:
    """Random images in the format of a data set; photos themselves if they are converted."""
    if isinstance(data, PhotoData) and (folder / data.name).exists():
        return open_images(data, "train", folder)
    of: Any = data if isinstance(data, PhotoData) else known(data.name)
    draw = torch.Generator().manual_seed(0)
    images_NCHW = torch.randint(
        256, (count, 3, of.size, of.size), generator=draw, dtype=torch.uint8
    )
    return Images(images_NCHW, torch.arange(count) % of.classes, of.classes)


# Searches


def _search_flops(searches: ImageSearches, job: Job, work: Work) -> float:
    """One weight and one alpha pass per image; scoring cells takes little beside them.

    While the logits are held, one step in MEASURED_EVERY has an alpha pass, forwards only. With
    `alpha.gates=all` an alpha pass runs all operations forwards, and the drawn ones backwards.
    """
    config: Any = decode_search(job.recipe["config"])
    side = image_side(job.recipe["config"]["data"])
    per_image = _sampled_multiply_adds(searches, dataclasses.replace(config, seed=0), side)
    if not work.epochs:
        return work.passes * per_image * FLOPS
    operations, alpha = searches.size(config)[0], PASSES
    if config.sampler.relaxation != "hard" or not config.sampler.acceleration:
        per_image *= operations
    elif config.alpha.gates == "all":
        alpha += operations - 1
    held = config.alpha.warmup_epochs if work.at_once == 1 else 0  # a measurement holds none
    forwards = work.epochs * PASSES + (work.epochs - held) * alpha + held / MEASURED_EVERY
    return float(work.examples * per_image * FLOPS * forwards)


def _search_seconds(
    searches: ImageSearches, job: Job, work: Work, data: Path, device: torch.device
) -> float:
    config: Any = decode_search(job.recipe["config"])
    batch, few = config.batch_size, TIMED_STEPS * config.batch_size
    images = _random_images(config.data, data, 2 * few)
    held = config.alpha.warmup_epochs if work.epochs else 0

    def step_with(warmup_epochs: int) -> float:
        alpha = dataclasses.replace(config.alpha, warmup_epochs=warmup_epochs)
        few_epochs = {"epochs": warmup_epochs + 2, "alpha": alpha}
        short = dataclasses.replace(config, train_images=few, valid_images=few, **few_epochs)
        return timed(search(short, searches.space(short, images, device))) / TIMED_STEPS

    step = step_with(0)
    forward = step / (2 * PASSES)  # one W and one alpha step
    steps = (work.epochs - held) * step + (held * step_with(2) if held else 0.0)
    return float(-(-work.examples // batch) * steps + work.passes / batch * forward)


def _search_bytes(searches: ImageSearches, job: Job, work: Work) -> float:
    config: Any = decode_search(job.recipe["config"])
    side = image_side(job.recipe["config"]["data"])
    weights, kept = _supernet_size(searches, dataclasses.replace(config, seed=0), side)
    return float(FLOAT * (3 * weights + SLACK * kept * work.at_once * config.batch_size))


def _empty_supernet(searches: ImageSearches, config: Any) -> AnySupernet:
    """The supernet of a search's settings, on the meta device."""
    with torch.device("meta"):
        return searches.supernet(config, CLASSES)


def every_operation_in_turn(operations: int, edges: int, cells: int) -> list[list[list[Pick]]]:
    """K architectures, each with one operation on all edges; their mean is that of a draw."""
    return [[[(e, k) for e in range(edges)]] * cells for k in range(operations)]


@cache
def _supernet_size(searches: ImageSearches, config: Any, side: int) -> tuple[int, float]:
    """The numbers of weights and of one image's outputs in a sampled pass (a mean)."""
    net = _empty_supernet(searches, config)
    turns = every_operation_in_turn(*searches.size(config), len(net.cells))
    kept = [_outputs(net, side, picks) for picks in turns]
    return count_parameters(net, without=None), statistics.mean(kept)


@cache
def _sampled_multiply_adds(searches: ImageSearches, config: Any, side: int) -> float:
    """Multiply-adds of one sampled pass of an image, roughly."""
    net = _empty_supernet(searches, config)
    _without_norms(net)
    operations, edges = searches.size(config)
    # Every operation is picked about equally often, over the edges and cells.
    picks = [[(e, (e + cell) % operations) for e in range(edges)] for cell in range(len(net.cells))]
    return float(count_multiply_adds(net, _empty_images(1, side), picks))


# Trainings


def _training_flops(job: Job, work: Work) -> float:
    config = decode_train(job.recipe["config"])
    assert isinstance(config, TrainConfig)
    side = image_side(job.recipe["config"]["data"])
    per_image = _multiply_adds(dataclasses.replace(config, seed=0), side)
    return work.epochs * work.examples * per_image * FLOPS * PASSES


def _training_seconds(job: Job, work: Work, data: Path, device: torch.device) -> float:
    config = decode_train(job.recipe["config"])
    assert isinstance(config, TrainConfig)
    batch = config.batch_size
    short = dataclasses.replace(
        config, epochs=2, train_images=None, evaluate_every=2, segments_per_epoch=1
    )
    images = _random_images(config.data, data, TIMED_STEPS * batch)
    rows = torch.arange(TIMED_STEPS * batch)
    genotype = PUBLISHED["GDAS_F1" if _fixed(job) else "GDAS_V1"]
    segments = train_image(
        short, genotype, images, rows, images, rows[:batch], evaluated_on="valid", device=device
    )
    step = timed(segments) / (TIMED_STEPS + 1 / PASSES)
    steps = -(-work.examples // batch) * work.epochs
    return (steps * step + work.passes / batch * step / PASSES) / job.workers


def _training_bytes(job: Job, work: Work) -> float:
    config = decode_train(job.recipe["config"])
    assert isinstance(config, TrainConfig)
    side = image_side(job.recipe["config"]["data"])
    weights, kept = _network_size(dataclasses.replace(config, seed=0), side)
    share = -(-config.batch_size // job.workers)
    return FLOAT * (3 * weights + SLACK * kept * share)


def _fixed(job: Job) -> bool:
    """Whether its cell has the fixed reduction cell; False if that is not known yet."""
    genotype = job.recipe.get("genotype") or job.recipe.get("cell", {}).get("genotype")
    return genotype is not None and genotype.get("reduce") is None


def _empty_network(config: TrainConfig) -> Network:
    """The network of a training's settings without its auxiliary head, on the meta device.

    It has GDAS_V1's cell, in place of any other.
    """
    plain = dataclasses.replace(config, auxiliary_weight=0.0)
    with torch.device("meta"):
        return build_network(plain, PUBLISHED["GDAS_V1"], CLASSES)


@cache
def _network_size(config: TrainConfig, side: int) -> tuple[int, float]:
    """The numbers of weights and of one image's outputs."""
    net = _empty_network(config)
    return count_parameters(net, without=None), _outputs(net, side)


@cache
def _multiply_adds(config: TrainConfig, side: int) -> float:
    """Multiply-adds of one pass of an image."""
    net = _empty_network(config)
    _without_norms(net)
    return float(count_multiply_adds(net, _empty_images(1, side)))


# Networks


def _empty_images(count: int, side: int) -> Tensor:
    """Images on the meta device."""
    return torch.zeros(count, 3, side, side, device="meta")


def _without_norms(net: nn.Module) -> None:
    """Remove batch norms, which add no multiply-adds and take most of the time."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())


def _outputs(net: nn.Module, side: int, *args: Sequence[object]) -> float:
    """How many numbers the layers put out for one image."""
    total = 0

    def count(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        total += out.numel()

    for layer in net.modules():
        if not list(layer.children()) and not isinstance(layer, nn.Identity):
            layer.register_forward_hook(count)
    with torch.no_grad():
        net(_empty_images(2, side), *args)
    return total / 2


def cell_size(config: SearchConfig) -> tuple[int, int]:
    """The numbers of operations and edges of a search's cells."""
    return len(config.operations), len(edge_list(config.network.nodes))


SEARCH = ImageSearches(build_supernet, ImageSpace, cell_size).cost()
TRAINING = Cost(
    examples=examples,
    operations=lambda job: len(OPERATIONS),
    flops=_training_flops,
    cpu_flops=CPU_FLOPS,
    gpu_flops=(1e12, 1e12),
    seconds=_training_seconds,
    bytes=_training_bytes,
)
