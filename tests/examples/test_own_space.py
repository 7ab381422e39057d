"""The example searches on a folder of pictures, and an operation of its own takes part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gdas.cnn.config import SearchConfig, SupernetConfig
from gdas.config import AlphaUpdate
from gdas.data.settings import ImageData
from gdas.search import search
from tests.examples.own_space import OPERATIONS, ChainSpace, SqueezeAndExcite, read_folder


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
    config = SearchConfig(
        data=ImageData(
            name="pictures", mean=(0.5,) * 3, std=(0.25,) * 3, crop_padding=1, flip=True
        ),
        epochs=3,
        batch_size=8,
        network=SupernetConfig(channels=4),
        alpha=AlphaUpdate(lr=0.05),
    )
    torch.manual_seed(0)
    space = ChainSpace(config, images, edges=3)
    own = [m for m in space.weights.modules() if isinstance(m, SqueezeAndExcite)]
    before = [m.weigh[1].weight.detach().clone() for m in own]  # type: ignore[union-attr,operator]
    segments = list(search(config, space))
    assert len(segments) == 3
    assert len(segments[-1].details["chain"]) == 3
    assert set(segments[-1].details["chain"]) <= set(OPERATIONS)
    logits_EK = segments[-1].state["logits"]["chain"]  # type: ignore[index]
    assert logits_EK.shape == (3, 3) and logits_EK.std() > 0.02, "the logits have learned"
    moved = [not torch.equal(m.weigh[1].weight, b) for m, b in zip(own, before, strict=True)]  # type: ignore[union-attr,operator,arg-type]
    assert any(moved), "the own operation was drawn and learned"
