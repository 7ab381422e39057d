"""Small real images for the tests of the library: scikit-learn's digits, no download."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gdas.data.arrow import Images
from gdas.data.images import open_images

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits(data_folder: Path) -> Images:
    """The training split at its full 32 x 32."""
    return open_images("digits", "train", data_folder)


@pytest.fixture(scope="session")
def small_digits(digits: Images) -> Images:
    """Every second pixel: a quarter of the cost, where the size does not matter."""
    images_NCHW = digits.images_NCHW[:, :, ::2, ::2].contiguous()
    return Images(images_NCHW, digits.labels_N, digits.classes)
