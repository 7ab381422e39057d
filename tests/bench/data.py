"""Data: augmentation of arrays beside torchvision's, and reading photos beside ImageFolder.

Arrays: CIFAR's crop, flip and normalisation on images of noise. Ours takes and augments a batch in
this process with one thread; torchvision's transforms run image by image in two worker processes,
as trainings usually do it.

Photos: the built-in digits as JPEG files (gdas.data.digit_photos), read from Parquet shards by one
decoding thread, and from an ImageFolder of the same files in this process. They are small photos,
so that what is done once a photo weighs more, and pixels less, than with ImageNet's.

Every figure is images a second, of wall time and of CPU time ("a core"), workers' time included.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from gdas.data.arrow import Images
from gdas.data.augment import augment, draw_moves
from gdas.data.decode import decode
from gdas.data.digit_photos import make_digit_photos
from gdas.data.images import DIGIT_PHOTOS
from gdas.data.photos import Photos, open_photos
from gdas.data.settings import IMAGE_DATA, PHOTO_DATA, AnyImageData
from gdas.data.shard_index import read_index
from gdas.data.source import Wanted
from gdas.randomness import generator
from tests.bench.search_step import random_images

ARRAYS = IMAGE_DATA["cifar10"]
PHOTOS = PHOTO_DATA[DIGIT_PHOTOS]
BATCH = 64

Pass = Callable[[int], int]
"""One pass over the images; takes the repeat's number, returns how many images it gave."""


def ours_trains(images: Images | Photos, of: AnyImageData, size: int) -> Pass:
    """What a training does: a random order, moves drawn (of photos colours too), one thread.

    Args:
        size: of the images that come out, in pixels.
    """

    def run(repeat: int) -> int:
        count = 0
        rows_N = images.order(torch.arange(len(images)), 0, "order", repeat)
        for step, rows_B in enumerate(rows_N.split(BATCH)):
            draw = generator(0, "augmentation", repeat, step)
            moves = draw_moves(of, len(rows_B), size, draw)
            pixels_BCHW = images.take(Wanted(rows_B, moves)).pixels_BCHW
            count += len(augment(pixels_BCHW, of, moves))
        return count

    return run


# Arrays


class _Arrays(Dataset[Tensor]):
    """Image by image, as torchvision's CIFAR10 gives them, but as tensors."""

    def __init__(self, images: Images, transform: Callable[[Tensor], Tensor]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(self.images.images_NCHW[index])


def torchvision_augments(images: Images, workers: int) -> Pass:
    transform = v2.Compose(
        [
            v2.RandomCrop(images.size, padding=ARRAYS.crop_padding),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(ARRAYS.mean, ARRAYS.std),
        ]
    )
    data = _Arrays(images, transform)

    def run(repeat: int) -> int:
        return sum(len(b) for b in DataLoader(data, BATCH, shuffle=True, num_workers=workers))

    return run


# Photos


def write_folder(shards: Path, folder: Path) -> int:
    """The training photos of converted shards as an ImageFolder again; returns their number."""
    count = 0
    for shard in read_index(shards).splits["train"].shards:
        for row in pq.read_table(shard.path, columns=["image", "name"]).to_pylist():
            path = folder / row["name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(row["image"])
            count += 1
    return count


def _from_parquet(shards: Path) -> Iterator[Any]:
    for shard in read_index(shards).splits["train"].shards:
        with pq.ParquetFile(shard.path, memory_map=True, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group, columns=["image", "label"])["image"]


def ours_reads(shards: Path) -> Pass:
    """Parquet alone, without decoding."""
    return lambda repeat: sum(1 for image in _from_parquet(shards) if image.as_py())


def ours_decodes(shards: Path) -> Pass:
    return lambda repeat: sum(len(decode(i.as_py())) == 3 for i in _from_parquet(shards))


def folder_decodes(folder: Path) -> Pass:
    images = ImageFolder(str(folder), transform=v2.PILToTensor())
    return lambda repeat: sum(len(images[i][0]) == 3 for i in range(len(images)))


def folder_trains(folder: Path) -> Pass:
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(PHOTOS.size, PHOTOS.crop_scale, PHOTOS.crop_ratio),
            v2.ColorJitter(PHOTOS.brightness, PHOTOS.contrast, PHOTOS.saturation, PHOTOS.hue),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(PHOTOS.mean, PHOTOS.std),
        ]
    )
    images = ImageFolder(str(folder), transform=transform)

    def run(repeat: int) -> int:
        return sum(len(batch) for batch, _ in DataLoader(images, BATCH, shuffle=True))

    return run


# Measuring


def _cpu_seconds() -> float:
    """Of this process and of the worker processes that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def rates(passes: dict[str, Pass], repeats: int) -> dict[str, dict[str, Any]]:
    """Images a second of every pass, in turn; the first pass of each is not counted."""
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in passes}
    for repeat in range(repeats + 1):
        for name, run in passes.items():
            wall, cpu = time.perf_counter(), _cpu_seconds()
            count = run(repeat)
            figures = {
                "images_per_second": count / (time.perf_counter() - wall),
                "images_per_cpu_second": count / (_cpu_seconds() - cpu),
                "images": count,
            }
            if repeat:
                seen[name].append(figures)
    return {
        name: {key: statistics.median(one[key] for one in of) for key in of[0]} | {"repeats": of}
        for name, of in seen.items()
    }


def measure(*, arrays: int, repeats: int, workers: int = 2) -> dict[str, Any]:
    """Both comparisons, with one thread of PyTorch.

    Args:
        arrays: images of noise that are augmented.
    """
    torch.set_num_threads(1)
    images = random_images(arrays)
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The image decoding and encoding")
        shards, folder = Path(temporary) / DIGIT_PHOTOS, Path(temporary) / "folder"
        make_digit_photos(Path(temporary))
        count = write_folder(shards, folder)
        photos = open_photos(PHOTOS, "train", Path(temporary), verify=False)
        return {
            "repeats": repeats,
            "workers": workers,
            "arrays": arrays,
            "photos": count,
            "augmentation": rates(
                {
                    "ours, in the training's process": ours_trains(images, ARRAYS, images.size),
                    f"torchvision, {workers} workers": torchvision_augments(images, workers),
                },
                repeats,
            ),
            "reading": rates(
                {
                    "Parquet": ours_reads(shards),
                    "Parquet and decoding": ours_decodes(shards),
                    "ImageFolder (reads and decodes)": folder_decodes(folder),
                    "ours, crops and colours too": ours_trains(photos, PHOTOS, PHOTOS.size),
                    "ImageFolder, crops and colours too": folder_trains(folder),
                },
                repeats,
            ),
        }


def show(result: dict[str, Any]) -> None:
    for title in ("augmentation", "reading"):
        print(f"\n{title}; {result['repeats']} repeats, medians")
        print(f"{'':>36}{'images/s':>12}{'images/CPU s':>14}")
        for name, row in result[title].items():
            print(
                f"{name:>36}{row['images_per_second']:12.0f}{row['images_per_cpu_second']:14.0f}",
                flush=True,
            )
