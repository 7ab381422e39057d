"""A last batch of one image, where maps have shrunk to 1 x 1, is refused before the search."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from gdas.cnn.smallest_map import smallest_map
from gdas.cnn.space import ImageSpace
from gdas.config import SamplerConfig
from gdas.data.arrow import Images
from gdas.errors import InputError
from gdas.search import search
from tests.gdas.tiny import CPU, search_config


def images(size: int, count: int = 18) -> Images:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, size, size), generator=draw, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 10, 10)


def run(size: int, stem: Any = "cifar", **settings: Any) -> None:
    config = search_config(**({"epochs": 1, "batch_size": 4, "valid_images": 8} | settings))
    config = dataclasses.replace(config, network=dataclasses.replace(config.network, stem=stem))
    for _ in search(config, ImageSpace(config, images(size), CPU)):
        pass


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"train_images": 9}, "9 images of D_T has one image.*train_images=8"),
        ({"train_images": 8, "valid_images": 5}, "5 images of D_V has one.*valid_images=4"),
        (
            {"train_images": 8, "sampler": SamplerConfig(scope="data_sample")},
            "sampler.scope=data_sample: .* maps of 1 x 1",
        ),
    ],
)
def test_one_image_with_maps_of_one_pixel_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        run(4, **settings)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=says.replace("4 x 4", "32 x 32")):
        run(32, "imagenet", **settings)


def test_what_is_advised_runs_and_larger_maps_may_have_one_image() -> None:
    run(4, train_images=8)
    run(5, train_images=9)


def test_the_side_is_that_of_the_last_maps() -> None:
    for stem, size in (("cifar", 4), ("cifar", 5), ("cifar", 32), ("imagenet", 33)):
        config = search_config(kernels="plain")  # fused ones do not call the layer that is watched
        config = dataclasses.replace(
            config,
            network=dataclasses.replace(config.network, stem=stem),  # type: ignore[arg-type]
        )
        space = ImageSpace(config, images(size, 200), CPU)
        seen: list[int] = []
        space.supernet.pool.register_forward_hook(
            lambda module, inputs, output, seen=seen: seen.append(inputs[0].shape[-1])
        )
        with torch.no_grad():
            picks = [[(0, 1)] for _ in space.supernet.cells]
            space.supernet(torch.zeros(2, 3, size, size), picks)
        assert seen == [smallest_map(config, size)]
