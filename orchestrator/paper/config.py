"""The paper's own settings for a job like ours, and the settings in which a job differs. Pure."""

from __future__ import annotations

import dataclasses

from gdas.cnn.config import SearchConfig, TrainConfig
from gdas.config import differences
from gdas.data.settings import IMAGE_DATA, PHOTO_DATA, TEXT_DATA
from gdas.presets import AnySearchConfig, image_train_preset, text_train_preset
from gdas.rnn.config import TextSearchConfig, TextTrainConfig
from orchestrator.paper import tables as paper

IGNORED = {
    "seed": "names the run",
    "precision": "rounds otherwise; network, data and schedule are the same",
    "compile": "the same arithmetic, in another order",
    "execution": "the same arithmetic, fused",
    "kernels": "the same arithmetic, fused",
    "channels_last": "memory layout",
    "evaluate_every": "how often is looked, not what is trained",
    "segments_per_epoch": "where checkpoints fall",
    "recalibration_batches": "scores a derived cell only; no source has it",
    "compared_cells": "scores cells after the search; no source has it",
    "compared_images": "scores cells after the search; no source has it",
    "restarts": "whether a run that diverged may go on",
}
"""Settings that do not change what a result means, each with the reason; all others do."""


def size_differences(recipe: object, papers: object) -> list[str]:
    """Dotted keys of the settings in which a recipe differs from the paper's, except those IGNORED.

    Args:
        recipe: the settings of a search or of a final.
        papers: the paper's settings, from `papers_search` or `papers_final`.
    """
    if type(recipe) is not type(papers):
        return ["task"]
    return [key for key, _, _ in differences(recipe, papers) if key not in IGNORED]


def papers_search(recipe: AnySearchConfig) -> SearchConfig | TextSearchConfig:
    """The paper's search of this kind: both cells, the fixed reduction cell, or recurrent."""
    if isinstance(recipe, TextSearchConfig):
        return TextSearchConfig()
    assert isinstance(recipe, SearchConfig), "the paper has no other search"
    papers = SearchConfig()
    network = dataclasses.replace(papers.network, reduction=recipe.network.reduction)
    return dataclasses.replace(papers, network=network)


def papers_final(table: int, row: paper.Row, data: str) -> TrainConfig | TextTrainConfig:
    """The paper's training for a row of its tables, with or without cutout as the row says.

    Args:
        row: from orchestrator.paper.tables.find_row.
        data: the data set of the figure, from orchestrator.paper.tables.MEASURES.
    """
    if data in TEXT_DATA:
        return text_train_preset("paper", data)
    if data in PHOTO_DATA:
        return dataclasses.replace(image_train_preset("paper", data), channels=row["C"])
    cutout = row.get("cutout", table == 5 or "CutOut" in paper.name_of(row))
    images = dataclasses.replace(IMAGE_DATA[data], cutout=16 if cutout else 0)
    return dataclasses.replace(TrainConfig(), data=images)
