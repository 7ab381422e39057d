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
from gdas.genotype import AnyGenotype, random_genotype, random_recurrent_genotype
from gdas.presets import (
    BENCH201_SEARCH_PRESETS,
    SEARCH_PRESETS,
    TEXT_SEARCH_PRESETS,
    AnySearchConfig,
    Preset,
)
from gdas.rnn.config import TextSearchConfig

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
    in_the_paper: bool = True


def _random_image_cell(config: SearchConfig, seed: int) -> AnyGenotype:
    return random_genotype(seed, fixed_reduction=config.network.reduction == "fixed")


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
        random=lambda _, seed: random_recurrent_genotype(seed),
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
        in_the_paper=False,
    ),
}
