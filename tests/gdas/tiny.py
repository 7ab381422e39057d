"""Settings small enough to search and train in about a second, how to run them, small networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, nn

from gdas.checkpoint import Checkpoint, Segment, State, digest, newest, save
from gdas.cnn.cell import FixedReductionCell
from gdas.cnn.config import Derivation, SearchConfig, SupernetConfig, TrainConfig
from gdas.cnn.genotype import Genotype
from gdas.cnn.network import Network
from gdas.cnn.operations import Style
from gdas.cnn.space import ImageSpace
from gdas.config import AlphaUpdate, SamplerConfig, WeightUpdate
from gdas.data.arrow import Images
from gdas.data.settings import IMAGE_DATA
from gdas.search import search

CPU = torch.device("cpu")


def search_config(
    reduction: Literal["searched", "fixed"] = "searched",
    *,
    weights: WeightUpdate | None = None,
    alpha: AlphaUpdate | None = None,
    sampler: SamplerConfig | None = None,
    derivation: Derivation | None = None,
    nodes: int = 4,
    **changes: Any,
) -> SearchConfig:
    """Five cells of four channels on 64 + 64 digits, three epochs of two steps."""
    config = SearchConfig(
        data=IMAGE_DATA["digits"],
        epochs=3,
        batch_size=32,
        train_images=64,
        valid_images=64,
        network=SupernetConfig(channels=4, normals_per_block=1, nodes=nodes, reduction=reduction),
        # Quick enough that six steps leave their mark on the logits.
        alpha=alpha or AlphaUpdate(lr=0.05),
        weights=weights or WeightUpdate(),
        sampler=sampler or SamplerConfig(),
        derivation=derivation or Derivation(),
    )
    return dataclasses.replace(config, **changes)


def train_config(**changes: Any) -> TrainConfig:
    """Five cells of four channels with drop path, auxiliary head and cutout, three epochs."""
    config = TrainConfig(
        data=dataclasses.replace(IMAGE_DATA["digits"], cutout=8),
        epochs=3,
        batch_size=32,
        channels=4,
        normals_per_block=1,
        drop_path=0.3,
    )
    return dataclasses.replace(config, **changes)


def run_search(
    config: SearchConfig, images: Images, checkpoint: State | None = None
) -> Iterator[Segment]:
    """Search in a fresh space."""
    return search(config, ImageSpace(config, images, CPU), checkpoint=checkpoint)


Seen = tuple[int, dict[str, float], dict[str, Any], str]


def seen(segment: Segment) -> Seen:
    """What must be equal in an interrupted and an uninterrupted run."""
    return segment.position, segment.metrics, segment.details, digest(segment.state)


def until(segments: Iterator[Segment], stop: int, folder: Path) -> list[Seen]:
    """Run up to the end of epoch `stop`, saving every epoch, and abandon the run there."""
    passed: list[Seen] = []
    for segment in segments:
        passed.append(seen(segment))
        save(folder, segment, [])
        if segment.position == stop:
            break
    return passed


def latest(folder: Path) -> Checkpoint:
    """The newest checkpoint, which must be whole, with no damaged one before it."""
    checkpoint, damaged = newest(folder)
    assert checkpoint is not None
    assert damaged == []
    return checkpoint


SEARCH_STYLE = Style(affine=False)


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def stir(module: nn.Module, seed: int) -> None:
    """Give batch norms statistics that a forgotten or swapped one would betray."""
    draw = seeded(seed)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            assert m.running_mean is not None and m.running_var is not None
            m.running_mean.normal_(0, 0.3, generator=draw)
            m.running_var.uniform_(0.5, 2.0, generator=draw)


def fixed_cell(wiring: Any, *, affine: bool = True) -> FixedReductionCell:
    torch.manual_seed(0)
    return FixedReductionCell(6, 5, 8, Style(affine), last_reduced=False, wiring=wiring)


def tiny_network(genotype: Genotype, **changes: Any) -> Network:
    torch.manual_seed(0)
    return Network(genotype, 10, channels=4, normals_per_block=1, **changes)
