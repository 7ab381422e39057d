"""A tiny ImageFolder of every kind of file, its conversion, and trainings on it."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gdas.checkpoint import Segment, State
from gdas.cnn.config import TrainConfig
from gdas.cnn.genotype import PUBLISHED
from gdas.cnn.train import train_image
from gdas.data.images import open_images
from gdas.data.settings import PhotoData
from gdas.data.shard_index import ShardIndex
from gdas.data.shards import convert
from gdas.data.source import ImageSource
from tests.gdas.tiny import CPU, train_config

CLASSES = ("apple", "bee", "cat", "dog", "elm", "fox", "gnu")

DATA = PhotoData(name="tiny", classes=len(CLASSES), size=32, resize=36, window=3)


def scene(seed: int, channels: int = 3) -> NDArray[np.uint8]:
    """Smooth colours, so that JPEG changes little; every seed has another size."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(34, 60, 2)
    y, x = np.mgrid[0:height, 0:width]
    slopes = rng.uniform(-2, 2, (channels, 2))
    planes = [128 + a * (y - height / 2) + b * (x - width / 2) for a, b in slopes]
    pixels: NDArray[np.uint8] = np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)
    return pixels


def encode(pixels: NDArray[np.uint8 | np.uint16], form: str = "JPEG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels) if mode != "CMYK" else Image.fromarray(pixels, "CMYK")
    (image.convert("L") if mode == "L" else image).save(buffer, form)
    return buffer.getvalue()


def make_folder(root: Path, train: int = 5, val: int = 2) -> Path:
    """Photos of every class; some grayscale, CMYK, or PNG by another name."""
    kinds = [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB")]
    for split, count in (("train", train), ("val", val)):
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                seed = 1000 * (split == "val") + 100 * label + i
                form, mode = kinds[seed % len(kinds)]
                pixels = scene(seed, 4 if mode == "CMYK" else 3)
                (root / split / name / f"{i}.JPEG").write_bytes(encode(pixels, form, mode))
    return root


def convert_tiny(source: Path, target: Path) -> ShardIndex:
    """35 training photos in 4 shards, 11 row groups; 14 to evaluate."""
    return convert(source, target, shard_rows=10, group_rows=4)


# 35 photos in batches of 9: three whole ones and 8.
CONFIG = dataclasses.replace(
    train_config(batch_size=9, epochs=2, drop_path=0.5), data=DATA, segments_per_epoch=2
)


def photo_training(
    folder: Path, config: TrainConfig = CONFIG, checkpoint: State | None = None
) -> Iterator[Segment]:
    train: ImageSource = open_images(DATA, "train", folder)
    test: ImageSource = open_images(DATA, "test", folder)
    return train_image(
        config,
        PUBLISHED["GDAS_F1"],
        train,
        torch.arange(len(train)),
        test,
        torch.arange(len(test)),
        evaluated_on="test",
        device=CPU,
        checkpoint=checkpoint,
    )


def contents(target: Path) -> dict[str, bytes]:
    files = [path for path in sorted(target.rglob("*")) if path.is_file()]
    return {str(path.relative_to(target)): path.read_bytes() for path in files}
