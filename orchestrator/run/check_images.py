"""Refuse searches and trainings on images that cannot work, before they start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch

from gdas.cnn.check_operation import check_operations
from gdas.cnn.config import SearchConfig, TrainConfig
from gdas.cnn.genotype import OPERATIONS, PUBLISHED, Genotype, operations_of, random_genotype
from gdas.cnn.graph.search import covered, refusal
from gdas.cnn.smallest_map import check_smallest_map
from gdas.cnn.train import check_batches, check_training
from gdas.data.images import DIGIT_PHOTOS, identity, known, subset
from gdas.data.settings import AnyImageData, PhotoData
from gdas.data.shard_index import open_index, photos_in
from gdas.errors import InputError
from gdas.outside import check_named, outside
from gdas.presets import ImageSearchConfig
from orchestrator.experiment.config import CellSource, FinalSpec, SearchSpec
from orchestrator.experiment.spaces import SPACES
from orchestrator.run.sizes import check_image_search, under


def check_search(search: SearchSpec, folder: Path) -> None:
    """Raise InputError if a search on images, or one of its proxy trainings, cannot work.

    Args:
        folder: the folder of the data sets; for photos, their index is read.
    """
    recipe = cast(ImageSearchConfig, search.recipe)
    count, size = training_images(recipe.data, folder)
    with under("recipe"):
        train_T, valid_V = check_image_search(recipe, count)
        check_smallest_map(recipe, size, train_T, valid_V)
        check_own_operations(recipe, size)
        _check_execution(search)
    if search.lookup is not None and search.lookup.images > valid_V:
        raise InputError(
            f"lookup.images={search.lookup.images}: larger than D_V ({valid_V}); use "
            f"lookup.images={valid_V} or less"
        )
    if search.select_by != "proxy" or search.proxy is None:
        return
    proxy = cast(TrainConfig, search.proxy)
    if proxy.data.name != recipe.data.name:
        raise InputError(
            f"proxy.data.name={proxy.data.name}: a proxy training is on the "
            f"search's own images; use proxy.data.name={recipe.data.name}"
        )
    _, size = training_images(proxy.data, folder)
    with under("proxy"):
        check_training(proxy, _standing_in(search), size=size)
        check_batches(proxy, train_T, workers=1)


def check_own_operations(config: ImageSearchConfig, size: int) -> None:
    """Raise InputError if an operation from outside the package does not do as it must."""
    names = SPACES[config.task].operations(config)
    if outside(names):  # no other searches than those for image cells have any
        network = cast(SearchConfig, config).network
        check_operations(names, network.channels, size, network.stem)


def _check_execution(search: SearchSpec) -> None:
    """Raise InputError if a search's steps are to be CUDA graphs and cannot be."""
    if getattr(search.recipe, "execution", "eager") == "graph" and search.cells != "random":
        recipe = cast(SearchConfig, search.recipe)  # no other search has this setting
        reason = covered(recipe, torch.device(search.resources.device), elsewhere=True)
        if reason is not None:
            raise refusal(reason)


def check_final(
    final: FinalSpec, searches: Mapping[str, SearchSpec], cell: Genotype | None, folder: Path
) -> None:
    """Raise InputError if a final training on images cannot work.

    Args:
        searches: the searches that its cell comes from, by the key that names them.
        cell: None if it is searched.
    """
    if "combined.reduce" in searches and _is_fixed(searches["combined.reduce"]):
        raise InputError(
            f"cell.combined.reduce={final.cell.tracks['combined.reduce']}: searches no "
            "reduction cell; use fixed"
        )
    recipe = cast(TrainConfig, final.recipe)
    count, size = training_images(recipe.data, folder)
    images = len(subset(count, 0, recipe.train_images))
    with under("recipe"):
        check_training(recipe, cell or _expected(final, searches), size=size)
        check_batches(recipe, images, final.resources.workers)
        check_operations(recipe.operations, recipe.channels, size, recipe.stem)
    if cell is not None:
        fix = "recipe.operations=['{}']"
        check_named(operations_of(cell), recipe.operations, f"cell {cell.name}", fix)


def final_cell(source: CellSource, where: str) -> Genotype:
    """Draw a final's random cell from the space in its settings, by default the paper's."""
    if source.steps is not None:
        raise InputError(
            f"{where}.cell.steps={source.steps}: convolutional cells have no such setting; leave "
            "it out (they have nodes)"
        )
    return random_genotype(
        source.random or 0,
        nodes=source.nodes or 4,
        fixed_reduction=source.fixed_reduction,
        distinct_sources=source.distinct_sources is not False,
        exclude_none=source.exclude_none is not False,
        operations=source.operations or OPERATIONS,
    )


def _is_fixed(search: SearchSpec) -> bool:
    """Whether a search has the fixed reduction cell."""
    return cast(SearchConfig, search.recipe).network.reduction == "fixed"


def _standing_in(search: SearchSpec) -> Genotype:
    """A published cell with the same cell types as those that the search will find."""
    return PUBLISHED["GDAS_F1" if _is_fixed(search) else "GDAS_V1"]


def _expected(final: FinalSpec, searches: Mapping[str, SearchSpec]) -> Genotype:
    """A published cell with the same cell types as the one that the final's searches will find."""
    if "searched" in searches:
        return _standing_in(searches["searched"])
    assert final.cell.combined is not None
    fixed = final.cell.combined.reduce == "fixed"
    return PUBLISHED["GDAS_GF" if fixed else "GDAS_V1"]


def training_images(data: AnyImageData, folder: Path) -> tuple[int, int]:
    """The number of training images, and their side in pixels as the network sees them.

    Raises:
        InputError: the data set is unknown, or its photos are not converted.
    """
    if isinstance(data, PhotoData):
        if data.name != DIGIT_PHOTOS:
            open_index(data, folder)  # raises if the classes are not those in the settings
        return photos_in(identity(data, "train", folder)), data.size
    images = known(data.name)
    return images.counts["train"], images.size
