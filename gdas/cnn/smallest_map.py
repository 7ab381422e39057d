"""Refuse batches that batch norm cannot normalise: one image, if maps have shrunk to 1 x 1."""

from __future__ import annotations

from gdas.cnn.config import SearchConfig
from gdas.cnn.halves import ImageSearchSettings
from gdas.errors import InputError


def smallest_map(config: ImageSearchSettings, size: int) -> int:
    """The side of the last cells' maps in pixels, for images of `size` x `size`.

    Two reductions halve the maps, and the ImageNet stem three times before them; odd sides round
    up.
    """
    imagenet = isinstance(config, SearchConfig) and config.network.stem == "imagenet"
    for _ in range(5 if imagenet else 2):
        size = -(-size // 2)
    return size


def check_smallest_map(config: ImageSearchSettings, size: int, train: int, valid: int) -> None:
    """Refuse a search in which batch norm would get a single value per channel.

    Args:
        size: side of the images, in pixels.
        train, valid: the numbers of images in D_T and in D_V.

    Raises:
        InputError: maps shrink to 1 x 1, and a batch has one image or images are run one by one.
    """
    if smallest_map(config, size) > 1:
        return
    shrunk = f"images of {size} x {size} pixels become maps of 1 x 1, and batch norm needs two"
    if config.sampler.scope == "data_sample":
        raise InputError(
            f"sampler.scope=data_sample: {shrunk} images of each operation that is drawn; use "
            "larger images, such as data.size=64, or sampler.scope=cell_type"
        )
    halves = [("train_images", "D_T", train)]
    if config.alpha.images != "replacement":
        halves.append(("valid_images", "D_V", valid))
    for key, half, images in halves:
        if images % config.batch_size == 1:
            raise InputError(
                f"batch_size={config.batch_size}: the last batch of the {images} images of {half} "
                f"has one image; {shrunk} images; set {key}={images - 1} or another batch_size"
            )
