"""Small real images for the tests of the library: scikit-learn's digits, and photos made here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gdas.data.arrow import Images
from gdas.data.images import open_images
from gdas.data.photos import Photos
from tests.gdas.photo_folder import DATA, convert_tiny, make_folder

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws does not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def digits(data_folder: Path) -> Images:
    """The training split at its full 32 x 32."""
    return open_images("digits", "train", data_folder)


@pytest.fixture(scope="session")
def small_digits(digits: Images) -> Images:
    """Every second pixel: a quarter of the cost, where the size does not matter."""
    images_NCHW = digits.images_NCHW[:, :, ::2, ::2].contiguous()
    return Images(images_NCHW, digits.labels_N, digits.classes)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos in folders."""
    return make_folder(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the converted photos."""
    data = tmp_path_factory.mktemp("photos")
    convert_tiny(source, data / DATA.name)
    return data


@pytest.fixture
def photos(folder: Path) -> Photos:
    opened = open_images(DATA, "train", folder)
    assert isinstance(opened, Photos)
    return opened
