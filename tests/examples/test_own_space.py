"""The example searches on a folder of pictures, and an operation of its own takes part."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from gdas.data.settings import ImageData
from gdas.errors import InputError
from gdas.search import SearchSettings, search
from tests.examples.own_space import (
    OPERATIONS,
    ChainConfig,
    ChainSpace,
    SqueezeAndExcite,
    read_folder,
)

PICTURES = ImageData(name="pictures", mean=(0.5,) * 3, std=(0.25,) * 3, crop_padding=1, flip=True)


def pictures(folder: Path) -> Path:
    """Two classes: reddish and bluish noise."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("red", "blue")):
        (folder / name).mkdir(parents=True)
        for i in range(24):
            noise = rng.integers(0, 100, (20, 20, 3), dtype=np.uint8)
            noise[:, :, 2 * label] += 120
            Image.fromarray(noise).save(folder / name / f"{i}.png")
    return folder


def test_a_search_in_an_own_space_on_a_folder_of_pictures(tmp_path: Path) -> None:
    images = read_folder(pictures(tmp_path / "pictures"), size=16)
    assert images.images_NCHW.shape == (48, 3, 16, 16) and images.classes == 2
    config = ChainConfig(data=PICTURES)
    torch.manual_seed(0)
    space = ChainSpace(config, images)
    own = [m for m in space.weights.modules() if isinstance(m, SqueezeAndExcite)]
    before = [m.weigh[1].weight.detach().clone() for m in own]  # type: ignore[operator]
    segments = list(search(config, space))
    assert len(segments) == 3
    assert len(segments[-1].details["chain"]) == 3
    assert set(segments[-1].details["chain"]) <= set(OPERATIONS)
    logits_EK = segments[-1].state["logits"]["chain"]  # type: ignore[index]
    assert logits_EK.shape == (3, 3) and logits_EK.std() > 0.02, "the logits have learned"
    moved = [not torch.equal(m.weigh[1].weight, b) for m, b in zip(own, before, strict=True)]  # type: ignore[arg-type]
    assert any(moved), "the own operation was drawn and learned"


class Watched:
    """Settings that note which of their fields are read."""

    def __init__(self, config: ChainConfig) -> None:
        self.config = config
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self.config, name)


def test_algorithm_1_reads_the_fields_of_its_protocol_and_no_other(tmp_path: Path) -> None:
    images = read_folder(pictures(tmp_path / "pictures"), size=8)
    config = ChainConfig(data=PICTURES, epochs=1)
    watched = Watched(config)
    list(search(cast(Any, watched), ChainSpace(config, images)))
    protocol = {name for name, value in vars(SearchSettings).items() if isinstance(value, property)}
    assert watched.read == protocol


def test_settings_of_ones_own_are_refused_out_of_their_ranges_like_all_others() -> None:
    with pytest.raises(InputError, match="edges=0: must be 1 or more"):
        ChainConfig(data=PICTURES, edges=0)
