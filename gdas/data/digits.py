"""scikit-learn's handwritten digits: small and real, without a download."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from gdas.data.arrow import Arrays, content_digest
from gdas.data.settings import Checksum
from gdas.data.source import Split

DIGITS_TEST = 360
"""How many of the last digits are the test split; other people wrote them than the first ones."""


@cache
def digits(split: Split) -> Arrays:
    """The handwritten digits at 32 x 32: images_NCHW with three equal channels, and labels_N."""
    table = _table()
    small = torch.from_numpy(table[:, :-1]).float().view(-1, 1, 8, 8) * (255.0 / 16.0)
    large = torch.nn.functional.interpolate(small, size=32, mode="bilinear", align_corners=False)
    images = large.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous().numpy()
    labels = table[:, -1].astype(np.int64)
    rows = slice(None, -DIGITS_TEST) if split == "train" else slice(-DIGITS_TEST, None)
    return images[rows], labels[rows]


def _table() -> npt.NDArray[np.float64]:
    """A row an image: 64 brightnesses from 0 to 16, and the digit.

    The file is read without its package, whose import takes seconds, wherever it lies there.
    """
    spec = find_spec("sklearn")
    for place in (spec.submodule_search_locations or []) if spec else []:
        file = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return np.column_stack([loaded.data, loaded.target])


def read_digits(split: Split, folder: Path, checksum: Checksum) -> Arrays:
    """The digits of a split; the other arguments, which downloads need, have no effect."""
    return digits(split)


def digits_identity(split: Split) -> str:
    """A checksum of a split's images and labels."""
    return "digits-" + content_digest(*digits(split))[:16]
