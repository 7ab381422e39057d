"""A search step and a training step on images, beside the same written the obvious way.

A search step is one W step and one alpha step of Algorithm 1, with both cells searched; a training
step is one of the network of GDAS_V1. The plain baseline (tests.bench.plain) does what the authors
did in 2019: NCHW layout, plain modules, a gate on every edge and all gradients in both steps,
undrawn operations' gradients filled with zeros. Ours is the library's own step, untouched. Both
have the same weights, images, draws and drop-path masks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

import gdas.cnn.train
import gdas.distributed
from gdas.architecture import draw_architecture
from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.space import Bench201Space
from gdas.cnn.config import SearchConfig, SupernetConfig, TrainConfig
from gdas.cnn.fused.choice import chosen, use
from gdas.cnn.genotype import PUBLISHED
from gdas.cnn.network import draw_drop_path
from gdas.cnn.space import ImageSpace
from gdas.config import AlphaUpdate, Kernels
from gdas.data.arrow import Images
from gdas.data.augment import draw_moves
from gdas.data.settings import IMAGE_DATA, PHOTO_DATA, AnyImageData
from gdas.data.source import Wanted
from gdas.presets import AnySearchConfig
from gdas.randomness import generator
from gdas.search import SearchSpace, SearchSteps
from tests.bench.plain import PlainNetwork, PlainSupernet
from tests.bench.timing import Step

CPU = torch.device("cpu")
CLASSES = 10
TAU = 5.0


def random_images(count: int, size: int = 32) -> Images:
    """Noise: the time does not depend on what is on the images."""
    draw = torch.Generator().manual_seed(0)
    images_NCHW = torch.randint(256, (count, 3, size, size), generator=draw, dtype=torch.uint8)
    return Images(images_NCHW, torch.randint(CLASSES, (count,), generator=draw), CLASSES)


def search_settings(*, channels: int, normals: int, batch: int) -> SearchConfig:
    """The logits stand still (rate 0), so that both contenders' draws are the same throughout."""
    return SearchConfig(
        batch_size=batch,
        network=SupernetConfig(channels=channels, normals_per_block=normals),
        alpha=AlphaUpdate(lr=0.0),
    )


class PlainSearch:
    """Algorithm 1's two steps in the authors' manner.

    Args:
        plain: takes the place of the space's own network.
    """

    def __init__(self, config: AnySearchConfig, space: SearchSpace, plain: nn.Module) -> None:
        self.config = config
        self.space = space
        self.logits = space.initial_logits(generator(config.seed, "logits"))
        space.weights = plain
        w, a = config.weights, config.alpha
        self.weight_optimizer = torch.optim.SGD(
            space.weights.parameters(), lr=w.lr, momentum=w.momentum, weight_decay=w.weight_decay
        )
        self.alpha_optimizer = torch.optim.Adam(
            list(self.logits.values()), lr=a.lr, betas=a.betas, weight_decay=a.weight_decay
        )

    def weight_step(self, step: int) -> Tensor:
        loss = self._backward("weights", self.space.weight_loss, step)
        nn.utils.clip_grad_norm_(self.space.weights.parameters(), self.config.weights.clip)
        self.weight_optimizer.step()
        return loss

    def alpha_step(self, step: int) -> Tensor:
        loss = self._backward("alpha", self.space.alpha_loss, step)
        self.alpha_optimizer.step()
        return loss

    def _backward(self, stream: str, loss_of: Callable[..., Any], step: int) -> Tensor:
        architecture = draw_architecture(
            self.logits,
            self.space.cell_types,
            self.config.sampler,
            TAU,
            generator(self.config.seed, f"gumbel of {stream}", 0, step),
            gate_device=self.space.device,
        )
        self.weight_optimizer.zero_grad(set_to_none=False)
        self.alpha_optimizer.zero_grad(set_to_none=False)
        loss: Tensor = loss_of(architecture, 0, step).loss
        loss.backward()
        return loss.detach()


def search_contenders(
    *,
    channels: int,
    normals: int,
    batch: int,
    steps: int,
    of: Sequence[str] = ("plain", "ours"),
) -> dict[str, tuple[Step, Step]]:
    """For each contender its steps, of W and of alpha, to be taken `steps` times at the most.

    Args:
        of: whom to build. "unfused" is ours in PyTorch's operators alone. "every operation" is that
            with the paper's acceleration undone: all operations of every edge run and all keep
            what their backward pass needs.
    """
    images = random_images(2 * steps * batch)
    config = search_settings(channels=channels, normals=normals, batch=batch)
    contenders: dict[str, tuple[Step, Step]] = {}
    if "plain" in of:
        own = dataclasses.replace(config, channels_last=False)
        space = ImageSpace(own, images, CPU)
        plain = PlainSupernet(CLASSES, channels=channels, normals_per_block=normals)
        plain.load_state_dict(space.weights.state_dict())
        contenders["plain"] = steps_of(PlainSearch(own, space, plain))
    for name in ("ours", "unfused", "every operation"):
        if name in of:
            sampler = dataclasses.replace(config.sampler, acceleration=name != "every operation")
            kernels: Kernels = "fused" if name == "ours" else "plain"
            own = dataclasses.replace(config, sampler=sampler, kernels=kernels)
            run = SearchSteps(own, ImageSpace(own, images, CPU))
            contenders[name] = steps_of_search(run)
    return contenders


def steps_of(run: PlainSearch) -> tuple[Step, Step]:
    run.space.weights.train()
    return run.weight_step, run.alpha_step


def steps_of_search(run: SearchSteps) -> tuple[Step, Step]:
    run.space.weights.train()
    return (
        lambda step: run.weight_step(0, step, TAU),
        lambda step: run.alpha_step(0, step, TAU),
    )


def bench201_contenders(
    *, channels: int, normals: int, batch: int, steps: int
) -> dict[str, tuple[Step, Step]]:
    """The steps of a search in NAS-Bench-201, with fused kernels and without."""
    images = random_images(2 * steps * batch)
    contenders = {}
    for name, kernels in (("unfused", "plain"), ("ours", "fused")):
        own = Bench201SearchConfig(
            batch_size=batch,
            channels=channels,
            normals_per_block=normals,
            alpha=AlphaUpdate(lr=0.0, images="replacement"),
            kernels=cast(Kernels, kernels),
        )
        contenders[name] = steps_of_search(SearchSteps(own, Bench201Space(own, images, CPU)))
    return contenders


DEFAULT = ("ours", "plain")


def train_contenders(
    of: Sequence[str] = DEFAULT, /, *, channels: int, normals: int, batch: int
) -> dict[str, tuple[Step]]:
    """For each contender its training step on CIFAR's images."""
    return _train_contenders(IMAGE_DATA["cifar10"], 32, channels, normals, batch, of)


def imagenet_contenders(
    of: Sequence[str] = DEFAULT, /, *, channels: int, normals: int, batch: int, side: int = 224
) -> dict[str, tuple[Step]]:
    """For each contender its training step on ImageNet's, which are crops of `side` pixels."""
    return _train_contenders(PHOTO_DATA["imagenet"], side, channels, normals, batch, of)


def _train_contenders(
    data: AnyImageData, side: int, channels: int, normals: int, batch: int, of: Sequence[str]
) -> dict[str, tuple[Step]]:
    images = random_images(2 * batch, side)
    genotype = PUBLISHED["GDAS_V1"]
    contenders: dict[str, tuple[Step]] = {}
    weights: dict[str, Tensor] = {}
    for name in of:
        config = TrainConfig(
            data=data,
            batch_size=batch,
            channels=channels,
            normals_per_block=normals,
            stem="cifar" if data.format == "arrays" else "imagenet",
            auxiliary_weight=0.0,
            channels_last=name != "plain",
        )
        ours = gdas.cnn.train.build_network(config, genotype, CLASSES)
        network: nn.Module = ours.to(memory_format=torch.channels_last)
        use(network, chosen("fused" if name == "ours" else "plain", "cpu", "float32"))
        if name == "plain":
            network = PlainNetwork(
                genotype,
                CLASSES,
                channels=channels,
                normals_per_block=normals,
                stem=config.stem,
                drop_sites=ours.drop_sites,
            )
        weights = weights or {k: v.clone() for k, v in network.state_dict().items()}
        network.load_state_dict(weights)
        contenders[name] = (training_step(config, network.train(), images),)
    return contenders


def training_step(config: TrainConfig, network: Any, images: Images) -> Step:
    """The library's step on either network."""
    rows_T = torch.arange(len(images))
    run = gdas.cnn.train._Run(config, network, images, rows_T, gdas.distributed.workers())
    batches = rows_T.split(config.batch_size)

    def step(index: int) -> object:
        rows_B = batches[index % len(batches)]
        moves = draw_moves(
            config.data, len(rows_B), images.size, generator(config.seed, "augmentation", index)
        )
        wanted = Wanted(rows_B, moves)
        keep_DB = draw_drop_path(
            network, len(rows_B), 0.1, generator(config.seed, "drop path", index)
        )
        return run.step(wanted, images.take(wanted), keep_DB, len(rows_B))

    return step
