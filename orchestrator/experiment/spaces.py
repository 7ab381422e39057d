"""What the orchestrator needs to know of a search space, by the task of a search's settings. Pure.

A space of your own gets an entry here, a settings class in its folder in gdas, a search in
orchestrator.work.search, and its rough cost in orchestrator.cost.estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.genotype import random_bench201_genotype
from gdas.cnn.config import SearchConfig
from gdas.cnn.genotype import random_genotype
from gdas.genotype import AnyGenotype
from gdas.presets import (
    BENCH201_SEARCH_PRESETS,
    SEARCH_PRESETS,
    TEXT_SEARCH_PRESETS,
    AnySearchConfig,
    Preset,
)
from gdas.rnn.config import TextSearchConfig
from gdas.rnn.genotype import random_recurrent_genotype

SelectBy = Literal["proxy", "shared_weights"]


@dataclass(frozen=True)
class Space:
    """One search space.

    Attributes:
        config: its settings class.
        presets: its settings by preset; the first is the default.
        prefix: of the settings that its searches share in a file, before "search".
        cells: what they are called.
        main_cell: the cell type that curves and counts are about.
        splits: what a search reads.
        metric: what seeds are compared by.
        best: which end of it wins.
        select_by: how seeds can be scored.
        epochs_of_proxy: of a proxy training; None where cells are not trained.
        random: a cell drawn uniformly, for a search's settings and a seed.
        what_can_be_found: the settings that say which cells a search can derive, by their key.
            Cells of searches in which these differ are cells of different spaces.
        in_the_paper: whether the paper has searches in this space.
    """

    config: type[AnySearchConfig]
    presets: Mapping[Preset, AnySearchConfig]
    prefix: str
    cells: str
    main_cell: str
    splits: tuple[str, ...]
    metric: str
    best: Literal["highest", "lowest"]
    select_by: tuple[SelectBy, ...]
    epochs_of_proxy: int | None
    random: Callable[[Any, int], AnyGenotype]
    what_can_be_found: Callable[[Any], dict[str, Any]]
    in_the_paper: bool = True


def _random_image_cell(config: SearchConfig, seed: int) -> AnyGenotype:
    return random_genotype(
        seed,
        nodes=config.network.nodes,
        fixed_reduction=config.network.reduction == "fixed",
        distinct_sources=config.derivation.distinct_sources,
        exclude_none=config.derivation.exclude_none,
    )


def _image_cells(config: SearchConfig) -> dict[str, Any]:
    return {
        "network.nodes": config.network.nodes,
        "network.reduction": config.network.reduction,
        "derivation.distinct_sources": config.derivation.distinct_sources,
        "derivation.exclude_none": config.derivation.exclude_none,
    }


def _random_recurrent_cell(config: TextSearchConfig, seed: int) -> AnyGenotype:
    return random_recurrent_genotype(seed, steps=config.steps, exclude_none=config.exclude_none)


DERIVATION = ("derivation.distinct_sources", "derivation.exclude_none", "exclude_none")
"""Of what can be found, the settings of the derivation: not the cells' size, but a rule of the
search's own. Two ways of searching may differ in it, a search and the draws beside it may not."""


SPACES: dict[str, Space] = {
    "image": Space(
        config=SearchConfig,
        presets=SEARCH_PRESETS,
        prefix="",
        cells="convolutional cells",
        main_cell="normal",
        splits=("train",),
        metric="valid/top1",
        best="highest",
        select_by=("proxy", "shared_weights"),
        epochs_of_proxy=100,  # DARTS, whose selection the paper follows
        random=_random_image_cell,
        what_can_be_found=_image_cells,
    ),
    "text": Space(
        config=TextSearchConfig,
        presets=TEXT_SEARCH_PRESETS,
        prefix="text_",
        cells="recurrent cells",
        main_cell="recurrent",
        splits=("train", "valid"),
        metric="valid/perplexity",
        best="lowest",
        select_by=("proxy",),
        epochs_of_proxy=300,  # DARTS
        random=_random_recurrent_cell,
        what_can_be_found=lambda config: {
            "steps": config.steps,
            "exclude_none": config.exclude_none,
        },
    ),
    "bench201": Space(
        config=Bench201SearchConfig,
        presets=BENCH201_SEARCH_PRESETS,
        prefix="bench201_",
        cells="NAS-Bench-201 cells",
        main_cell="cell",
        splits=("train",),
        metric="valid/top1",
        best="highest",
        select_by=("shared_weights",),
        epochs_of_proxy=None,  # a table has what training them would give
        random=lambda _, seed: random_bench201_genotype(seed),
        what_can_be_found=lambda _: {},
        in_the_paper=False,
    ),
}
