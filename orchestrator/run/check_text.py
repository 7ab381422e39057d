"""Refuse searches and trainings on text that cannot work, before they start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from gdas.data.settings import TextData
from gdas.data.text import text_counts, text_identity
from gdas.data.vocabulary import Split
from gdas.errors import InputError
from gdas.rnn.config import TextSearchConfig, TextTrainConfig
from gdas.rnn.genotype import RecurrentGenotype, random_recurrent_genotype
from orchestrator.experiment.config import CellSource, FinalSpec, SearchSpec
from orchestrator.run.sizes import check_text_search, check_text_training, under


def check_search(search: SearchSpec, folder: Path) -> None:
    """Raise InputError if a search on text, or one of its proxy trainings, cannot work."""
    recipe, proxy = cast(TextSearchConfig, search.recipe), cast(TextTrainConfig, search.proxy)
    with under("recipe"):
        check_text_search(recipe, _tokens(recipe.data, folder, "train", "valid"))
    if search.select_by == "proxy":
        with under("proxy"):
            _check_training(proxy, folder, "train", "valid")


def check_final(
    final: FinalSpec,
    searches: Mapping[str, SearchSpec],
    cell: RecurrentGenotype | None,
    folder: Path,
) -> None:
    """Raise InputError if a final training on text cannot work."""
    recipe = cast(TextTrainConfig, final.recipe)
    if final.resources.workers > recipe.batch_size:
        raise InputError(
            f"resources.workers={final.resources.workers}: more than the {recipe.batch_size} "
            "columns of a batch; give it fewer, or raise recipe.batch_size"
        )
    with under("recipe"):
        _check_training(recipe, folder, "train", "valid", "test")


def final_cell(source: CellSource, where: str) -> RecurrentGenotype:
    """Draw a final's random cell from the space in its settings, by default the paper's."""
    for key in ("nodes", "distinct_sources"):
        if (value := getattr(source, key)) is not None:
            raise InputError(
                f"{where}.cell.{key}={value}: recurrent cells have no such setting; leave it out "
                "(they have steps)"
            )
    return random_recurrent_genotype(
        source.random or 0, steps=source.steps or 8, exclude_none=source.exclude_none is not False
    )


def _check_training(recipe: TextTrainConfig, folder: Path, *splits: str) -> None:
    check_text_training(recipe, _tokens(recipe.data, folder, *splits), *splits)


def _tokens(data: TextData, folder: Path, *splits: str) -> Mapping[str, int]:
    """The numbers of tokens in these splits of a text; the files are found by their checksums."""
    found = {split: text_identity(data, cast(Split, split), folder) for split in splits}
    return {str(split): count for split, count in text_counts(data, found).counts.items()}
