"""How large a search or a training is, in words."""

from __future__ import annotations

from gdas.bench201.config import Bench201SearchConfig
from gdas.cnn.config import SearchConfig, SupernetConfig, TrainConfig
from gdas.presets import ImageSearchConfig
from gdas.rnn.config import TextSearchConfig, TextTrainConfig


def of_image_search(config: SearchConfig) -> tuple[str, str]:
    """What kind of cell is searched, and the search's size."""
    fixed = config.network.reduction == "fixed"
    cell = "fixed reduction cell" if fixed else "both cells searched"
    return cell, _on_images(config, config.network)


def of_bench201_search(config: Bench201SearchConfig) -> tuple[str, str]:
    """What kind of cell is searched, and the search's size."""
    return "NAS-Bench-201 cell", _on_images(config, config)


def of_text_search(config: TextSearchConfig) -> tuple[str, str]:
    """What kind of cell is searched, and the search's size."""
    tokens = _tokens(config.train_tokens, config.data.name)
    return "recurrent cell", f"hidden {config.hidden}, {config.epochs} epochs, {tokens}"


def of_image_training(config: TrainConfig) -> str:
    """A training's size."""
    asked = config.train_images
    images = "all images" if asked is None else f"{asked:,} images"
    return (
        f"C={config.channels}, N={config.normals_per_block}, {config.epochs} epochs, {images} of "
        f"{config.data.name}, batch {config.batch_size}"
    )


def of_text_training(config: TextTrainConfig) -> str:
    """A training's size."""
    tokens = _tokens(config.train_tokens, config.data.name)
    return f"hidden {config.hidden}, {config.epochs} epochs, {tokens}, batch {config.batch_size}"


def _on_images(config: ImageSearchConfig, network: SupernetConfig | Bench201SearchConfig) -> str:
    halves = "the halves"
    if config.train_images is not None:
        valid = f"{config.valid_images:,}" if config.valid_images else "the other"
        halves = f"{config.train_images:,} + {valid} images"
    return (
        f"C={network.channels}, N={network.normals_per_block}, {config.epochs} epochs, {halves} "
        f"of {config.data.name}"
    )


def _tokens(asked: int | None, name: str) -> str:
    return f"{'all' if asked is None else f'{asked:,}'} tokens of {name}"
