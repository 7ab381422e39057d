"""Both sides of the data benchmarks read the same photos, all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from gdas.data.decode import decode
from gdas.data.digit_photos import make_digit_photos
from gdas.data.images import DIGIT_PHOTOS
from tests.bench import data
from tests.bench.search_step import random_images

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding")


def test_every_pass_gives_every_image() -> None:
    threads = torch.get_num_threads()
    try:
        result = data.measure(arrays=100, repeats=1)
    finally:
        torch.set_num_threads(threads)
    for key, count in (("augmentation", 100), ("reading", result["photos"])):
        assert len(result[key]) >= 2
        for row in result[key].values():
            assert row["images"] == count
            assert row["images_per_second"] > 0 and row["images_per_cpu_second"] > 0


def test_the_folder_holds_the_photos_of_the_shards(tmp_path: Path) -> None:
    make_digit_photos(tmp_path)
    shards = tmp_path / DIGIT_PHOTOS
    count = data.write_folder(shards, tmp_path / "folder")
    folder = ImageFolder(str(tmp_path / "folder"), transform=v2.PILToTensor())
    assert count == len(folder) > 1000 and len(folder.classes) == 10
    ours = sorted(int(decode(i.as_py()).sum()) for i in data._from_parquet(shards))
    assert ours == sorted(int(pixels.sum()) for pixels, _ in folder)


def test_workers_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds that worker processes spend are CPU seconds too."""
    slow = data.torchvision_augments(random_images(200), 2)
    before = data._cpu_seconds()
    assert slow(0) == 200
    alone = torch.multiprocessing.active_children()
    assert alone == [] and data._cpu_seconds() - before > 0.01
