"""What is run: the library's own steps and the plain baseline's, on any device.

Images and words are noise, of which nothing here depends but `real`. The logits' rate is 0, so
that all contenders draw the same architectures throughout.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import nn

import gdas.cnn.train
import gdas.rnn.train
from gdas.cnn.config import SearchConfig, SupernetConfig, TrainConfig
from gdas.cnn.genotype import PUBLISHED
from gdas.cnn.space import ImageSpace
from gdas.config import AlphaUpdate
from gdas.data.arrow import Images
from gdas.data.settings import IMAGE_DATA, PHOTO_DATA
from gdas.data.text import Tokens, batch_tokens
from gdas.distributed import workers
from gdas.rnn.config import TextSearchConfig, TextTrainConfig
from gdas.rnn.genotype import PUBLISHED_RECURRENT
from gdas.rnn.space import TextSpace
from gdas.search import SearchSteps
from tests.bench.plain import PlainNetwork, PlainSupernet
from tests.bench.plain_text import PlainDerivedCell, PlainSearchCell
from tests.bench.search_step import PlainSearch, random_images, training_step
from tests.bench.text_step import random_text
from tests.bench.timing import Step
from tests.gpu.sizes import PAPER, Sizes

CLASSES = 10
TAU = 5.0
SEQUENCES = 3
"""Sequences of the text that a language model's step goes through."""

Contender = tuple[Step, ...]
"""The steps of one repeat: W and alpha, or one."""


def search_config(
    sizes: Sizes, batch: int, reduction: Literal["searched", "fixed"], **changes: Any
) -> SearchConfig:
    network = SupernetConfig(
        channels=sizes.channels, normals_per_block=sizes.normals, reduction=reduction
    )
    config = SearchConfig(batch_size=batch, network=network, alpha=AlphaUpdate(lr=0.0))
    acceleration = changes.pop("acceleration", True)
    sampler = dataclasses.replace(config.sampler, acceleration=acceleration)
    return dataclasses.replace(config, sampler=sampler, **changes)


def real_search(sizes: Sizes, batch: int, epochs: int) -> SearchConfig:
    """A search on real images, with the fixed reduction cell; short of images in a trial."""
    trial = sizes is not PAPER
    return SearchConfig(
        epochs=epochs,
        batch_size=batch,
        train_images=2 * batch if trial else None,
        valid_images=2 * batch if trial else None,
        recalibration_batches=2 if trial else 20,
        network=SupernetConfig(
            channels=sizes.channels, normals_per_block=sizes.normals, reduction="fixed"
        ),
    )


def search_images(sizes: Sizes, batch: int) -> Images:
    """As many as the steps of a measurement need, each half."""
    return random_images(2 * batch * min(40, 4 * sizes.repeats))


def search_steps(config: SearchConfig, images: Images, device: torch.device) -> Contender:
    """The library's W step and alpha step."""
    run = SearchSteps(config, ImageSpace(config, images, device))
    run.space.weights.train()
    steps = run.space.steps(0)
    return (
        lambda step: run.weight_step(0, step % steps, TAU),
        lambda step: run.alpha_step(0, step % steps, TAU),
    )


def plain_search_steps(config: SearchConfig, images: Images, device: torch.device) -> Contender:
    """The same in the authors' manner of 2019; both cells are searched."""
    own = dataclasses.replace(config, channels_last=False)
    space = ImageSpace(own, images, device)
    n = config.network
    plain = PlainSupernet(
        CLASSES, channels=n.channels, normals_per_block=n.normals_per_block, nodes=n.nodes
    ).to(device)
    plain.load_state_dict(space.weights.state_dict())
    run = PlainSearch(own, space, plain.train())
    steps = space.steps(0)
    return lambda step: run.weight_step(step % steps), lambda step: run.alpha_step(step % steps)


def training_steps(
    sizes: Sizes, device: torch.device, *, photos: bool, plain: bool, **changes: Any
) -> Contender:
    """A training step of GDAS_V1's network on CIFAR's or ImageNet's images."""
    channels, normals, batch, side = sizes.imagenet if photos else (*sizes.final, 32)
    config = dataclasses.replace(
        TrainConfig(
            data=PHOTO_DATA["imagenet"] if photos else IMAGE_DATA["cifar10"],
            batch_size=batch,
            channels=channels,
            normals_per_block=normals,
            stem="imagenet" if photos else "cifar",
            auxiliary_weight=0.0,
            channels_last=not plain,
        ),
        **changes,
    )
    genotype = PUBLISHED["GDAS_V1"]
    network = gdas.cnn.train.build_network(config, genotype, CLASSES)
    if plain:
        network = PlainNetwork(  # type: ignore[assignment]
            genotype,
            CLASSES,
            channels=channels,
            normals_per_block=normals,
            stem=config.stem,
            drop_sites=network.drop_sites,
        )
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    placed: nn.Module = network.to(memory_format=layout).to(device).train()
    return (training_step(config, placed, random_images(2 * batch, side).to(device)),)


def language_steps(
    sizes: Sizes, device: torch.device, *, plain: bool, **changes: Any
) -> tuple[Contender, int]:
    """A language model's training on a short text, and how many tokens that has."""
    hidden, vocabulary, batch, bptt = sizes.language
    config = TextTrainConfig(hidden=hidden, batch_size=batch, bptt=bptt, **changes)
    text = random_text((bptt * SEQUENCES + 1) * batch, vocabulary)
    text_TB = batch_tokens(text.ids_N, batch).to(device)
    genotype = PUBLISHED_RECURRENT["RNN_GDAS"]
    run = gdas.rnn.train._Run(config, genotype, vocabulary, device, workers())
    if plain:
        run.model.cell = PlainDerivedCell(run.model.cell)  # type: ignore[assignment]
    return (lambda step: run.train(text_TB, step),), (len(text_TB) - 1) * batch


def recurrent_steps(
    sizes: Sizes, device: torch.device, *, plain: bool, **changes: Any
) -> Contender:
    """A recurrent search's W step and alpha step."""
    hidden, vocabulary, batch, bptt = sizes.recurrent
    alpha = AlphaUpdate(lr=0.0, betas=(0.9, 0.999))
    config = TextSearchConfig(hidden=hidden, batch_size=batch, bptt=bptt, alpha=alpha, **changes)
    text: Tokens = random_text((bptt * 20 + 1) * batch, vocabulary)
    space = TextSpace(config, text, text, device)
    if plain:
        space.supernet.cell = PlainSearchCell(space.supernet.cell).to(device)  # type: ignore[assignment]
        old = PlainSearch(config, space, space.weights)
        space.weights.train()
        count = space.steps(0)
        return lambda step: old.weight_step(step % count), lambda step: old.alpha_step(step % count)
    run = SearchSteps(config, space)
    run.space.weights.train()
    count = space.steps(0)
    return (
        lambda step: run.weight_step(0, step % count, TAU),
        lambda step: run.alpha_step(0, step % count, TAU),
    )
