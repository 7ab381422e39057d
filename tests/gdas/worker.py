"""One of several workers of a training, as a process: what test_two_workers.py starts and reads.

`tests.gdas.team` forks both and calls `main`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import gdas.cnn.train
from gdas.checkpoint import Segment, State, digest
from gdas.cnn.config import TrainConfig
from gdas.cnn.fused import layers
from gdas.cnn.genotype import PUBLISHED
from gdas.cnn.norm import BatchNorm
from gdas.data.arrow import Images
from gdas.data.augment import Moves, augment
from gdas.data.images import open_images
from gdas.data.settings import ImageData
from tests.gdas.team import joined, restarted
from tests.gdas.tiny import CPU, train_config

TRAIN_ROWS, EVALUATION_ROWS = 50, 33

# Batches of 15, 15, 15 and 5 images: no share of two workers is even.
CONFIG = train_config(batch_size=15)
# A norm that always cuts shows whether it is taken of the averaged gradient; dropping begins in
# the second epoch.
WITHOUT_NORM = train_config(batch_size=15, epochs=2, clip=0.5, drop_path=0.5)


def tagged(images: Images) -> Images:
    """The first images, each with its own index in its first pixel."""
    count = TRAIN_ROWS + EVALUATION_ROWS
    images_NCHW = images.images_NCHW[:count].clone()
    images_NCHW[:, 0, 0, 0] = torch.arange(count, dtype=torch.uint8)
    return Images(images_NCHW, images.labels_N[:count], images.classes)


def training(
    config: TrainConfig, images: Images, checkpoint: State | None = None, rows: int = TRAIN_ROWS
) -> Iterator[Segment]:
    return gdas.cnn.train.train_image(
        config,
        PUBLISHED["GDAS_F1"],
        images,
        torch.arange(rows),
        images,
        torch.arange(TRAIN_ROWS, len(images)),
        evaluated_on="valid",
        device=CPU,
        checkpoint=checkpoint,
    )


@dataclasses.dataclass
class Watch:
    """What a training does that its segments do not show.

    Attributes:
        steps: for every step this worker's images, as [index, moves...] a row.
        networks: every network built.
    """

    steps: list[list[list[int]]]
    networks: list[nn.Module]

    def weights(self) -> str:
        return digest(self.networks[-1].state_dict())


@contextmanager
def watched() -> Iterator[Watch]:
    """Note the images and moves of every step, and the networks that are trained."""
    watch = Watch([], [])
    build = gdas.cnn.train.build_network

    def watching(images_BCHW: Tensor, data: ImageData, moves: Moves) -> Tensor:
        tags_B1 = images_BCHW[:, :1, 0, 0].long()
        watch.steps.append(torch.cat([tags_B1, moves.moves_B5], dim=1).tolist())
        return augment(images_BCHW, data, moves)

    def building(*args: Any) -> Any:
        watch.networks.append(build(*args))
        return watch.networks[-1]

    module = gdas.cnn.train
    with patch.object(module, "augment", watching), patch.object(module, "build_network", building):
        yield watch


@contextmanager
def no_batch_norm() -> Iterator[None]:
    """Batch norm alone depends on who shares a batch: leave of it only scale and shift."""
    forward = BatchNorm.forward

    def scale_and_shift(self: BatchNorm, x_BCHW: Tensor) -> Tensor:
        if not self.affine:
            return x_BCHW
        return x_BCHW * self.weight[:, None, None] + self.bias[:, None, None]

    BatchNorm.forward = scale_and_shift  # type: ignore[method-assign]
    try:
        with patch.object(layers, "norm_of", lambda _: None):  # no kernel covers such a norm
            yield
    finally:
        BatchNorm.forward = forward  # type: ignore[method-assign]


def note(segment: Segment, watch: Watch) -> dict[str, Any]:
    return {
        "position": segment.position,
        "metrics": segment.metrics,
        "state": None if segment.state is None else digest(segment.state),
        "weights": watch.weights(),
    }


def run_whole(images: Images) -> dict[str, Any]:
    with watched() as watch:
        epochs = [note(segment, watch) for segment in training(CONFIG, images)]
    return {"epochs": epochs, "steps": watch.steps}


def epoch(images: Images, state: State | None) -> tuple[Segment, dict[str, Any]]:
    with watched() as watch:
        segment = next(training(CONFIG, images, state))
        return segment, note(segment, watch)


def run_without_norm(images: Images) -> tuple[dict[str, Any], State | None]:
    with watched() as watch, no_batch_norm():
        *_, last = training(WITHOUT_NORM, images)
    return note(last, watch), last.state


def run_diverging(images: Images, rank: int) -> str:
    """The last worker's images alone are not numbers."""
    factor = float("nan") if rank > 0 else 1.0

    def diverging(*args: Any) -> Tensor:
        return augment(*args) * factor

    with patch.object(gdas.cnn.train, "augment", diverging):
        try:
            list(training(CONFIG, images, rows=10))
        except FloatingPointError as error:
            return str(error)
    return "did not diverge"


def main(rank: int, size: int, data_folder: Path, out: Path) -> None:
    with joined(rank, size, out):
        images = tagged(open_images("digits", "train", data_folder))
        without_norm, weights = run_without_norm(images)
        found = {
            "whole": run_whole(images),
            "interrupted": restarted(partial(epoch, images), CONFIG.epochs, out / "checkpoints"),
            "without norm": without_norm,
            "diverging": run_diverging(images, rank),
        }
        if weights is not None:
            torch.save(weights, out / "without_norm.pt")
        (out / f"worker{rank}.json").write_text(json.dumps(found))
