"""What the orchestrator must know of each search space, by the `task` of its settings. Pure.

A new space needs an entry here and a settings class in its own folder in gdas. The functions of a
space are named as text, "module:name", and are imported where they run
(`orchestrator.experiment.kinds.load`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.genotype import CELL_OPERATIONS, Bench201Genotype, random_bench201_genotype
from gdas.cnn.config import SearchConfig
from gdas.cnn.genotype import Genotype, eligible, random_genotype
from gdas.genotype import AnyGenotype
from gdas.presets import (
    BENCH201_SEARCH_PRESETS,
    SEARCH_PRESETS,
    TEXT_SEARCH_PRESETS,
    AnySearchConfig,
    Preset,
    image_search_preset,
)
from gdas.rnn.config import TextSearchConfig
from gdas.rnn.genotype import RECURRENT_OPERATIONS, RecurrentGenotype, random_recurrent_genotype

SelectBy = Literal["proxy", "shared_weights"]


@dataclass(frozen=True)
class Space:
    """One search space.

    Attributes named as text ("module:name") are None if the space's cells are not trained.

    Attributes:
        config: the settings class of its searches.
        presets: those settings by preset; the first preset is the default.
        preset: the settings for a preset and the name of a data set.
        prefix: what precedes "search" in the keys of an experiment file that all its searches
            share.
        cells: what its cells are called, in the plural.
        main_cell: the cell type that curves and counts are about.
        splits: the splits that a search reads.
        metric: the metric by which seeds are compared.
        best: whether the highest or the lowest value wins.
        select_by: the ways in which seeds can be scored.
        epochs_of_proxy: epochs of a proxy training; None if cells are not trained.
        operations: the names of the logits' columns, given a search's settings.
        kept: those of them that a derived cell can have.
        random: draws a cell uniformly, given a search's settings and a seed.
        what_can_be_found: the settings, by key, that decide which cells a search can derive. If two
            searches differ in them, their cells are from different spaces.
        search, proxy, final: what runs a search, and what prepares a proxy training and a final
            training of its cells; named as text.
        search_cost, training_cost: what a step of them costs (`orchestrator.cost.work.Cost`); named
            as text.
        check_search, check_final: what refuses bad searches and finals; named as text.
        final_cell: what draws a final's random cell; named as text.
        model: how a final's network becomes a model (`orchestrator.tracking.final_model.Model`);
            named as text.
        search_size, training_size: what the report says of their size; named as text.
        genotype: the class of its cells.
        published: the name of a published cell of this space.
        heat_maps: the cell types for which the report draws the probabilities of the edges.
        outcome: what a final is measured by on the test set.
        final_curves: the file of the finals' curves, and each metric drawn with its title.
        lone_first_edge: whether the first node of a cell has one edge only.
        paper_cost: given a search's settings, the table, row and column in which the paper prints
            the search's cost; None if the paper has no searches in this space.
        in_a_table: whether a table has the true accuracy of every cell.
    """

    config: type[AnySearchConfig]
    presets: Mapping[Preset, AnySearchConfig]
    preset: Callable[[Preset, str], AnySearchConfig]
    prefix: str
    cells: str
    main_cell: str
    splits: tuple[str, ...]
    metric: str
    best: Literal["highest", "lowest"]
    select_by: tuple[SelectBy, ...]
    epochs_of_proxy: int | None
    operations: Callable[[Any], Sequence[str]]
    kept: Callable[[Any], Sequence[str]]
    random: Callable[[Any, int], AnyGenotype]
    what_can_be_found: Callable[[Any], dict[str, Any]]
    search: str
    proxy: str | None
    final: str | None
    search_cost: str
    training_cost: str | None
    check_search: str
    check_final: str | None
    final_cell: str | None
    model: str | None
    search_size: str
    training_size: str | None
    genotype: type[AnyGenotype]
    published: str | None
    heat_maps: tuple[str, ...] = ()
    outcome: str = ""
    final_curves: tuple[str, tuple[tuple[str, str], ...]] | None = None
    lone_first_edge: bool = False
    paper_cost: Callable[[Any], tuple[int, str, str]] | None = None
    in_a_table: bool = False


def _random_image_cell(config: SearchConfig, seed: int) -> AnyGenotype:
    return random_genotype(
        seed,
        nodes=config.network.nodes,
        fixed_reduction=config.network.reduction == "fixed",
        distinct_sources=config.derivation.distinct_sources,
        exclude_none=config.derivation.exclude_none,
        operations=config.operations,
    )


def _image_cells(config: SearchConfig) -> dict[str, Any]:
    return {
        "network.nodes": config.network.nodes,
        "network.reduction": config.network.reduction,
        "derivation.distinct_sources": config.derivation.distinct_sources,
        "derivation.exclude_none": config.derivation.exclude_none,
        "operations": f"[{', '.join(config.operations)}]",
    }


def _random_recurrent_cell(config: TextSearchConfig, seed: int) -> AnyGenotype:
    return random_recurrent_genotype(seed, steps=config.steps, exclude_none=config.exclude_none)


DERIVATION = ("derivation.distinct_sources", "derivation.exclude_none", "exclude_none")
"""Those keys of `what_can_be_found` that are rules of the derivation, not sizes of the cell.

Two ways of searching may differ in them, but a search and the random cells beside it may not.
"""


SPACES: dict[str, Space] = {
    "image": Space(
        config=SearchConfig,
        presets=SEARCH_PRESETS,
        preset=image_search_preset,
        prefix="",
        cells="convolutional cells",
        main_cell="normal",
        splits=("train",),
        metric="valid/top1",
        best="highest",
        select_by=("proxy", "shared_weights"),
        epochs_of_proxy=100,  # as in DARTS, whose selection the paper follows
        operations=lambda config: config.operations,
        kept=lambda config: eligible(
            config.operations, exclude_none=config.derivation.exclude_none
        ),
        random=_random_image_cell,
        what_can_be_found=_image_cells,
        search="orchestrator.work.search:search_images",
        proxy="orchestrator.work.proxy:train_on_images",
        final="orchestrator.work.final:train_on_images",
        search_cost="orchestrator.cost.images:SEARCH",
        training_cost="orchestrator.cost.images:TRAINING",
        check_search="orchestrator.run.check_images:check_search",
        check_final="orchestrator.run.check_images:check_final",
        final_cell="orchestrator.run.check_images:final_cell",
        model="orchestrator.tracking.final_model:IMAGES",
        search_size="orchestrator.report.sizes:of_image_search",
        training_size="orchestrator.report.sizes:of_image_training",
        genotype=Genotype,
        published="GDAS_V1",
        heat_maps=("normal", "reduce"),
        outcome="error, %",
        final_curves=(
            "finals.svg",
            (("train/loss", "training loss"), ("test/top1", "test top-1, %")),
        ),
        paper_cost=lambda config: (
            *(1, "GDAS (FRC)" if config.network.reduction == "fixed" else "GDAS"),
            "search_days",
        ),
    ),
    "text": Space(
        config=TextSearchConfig,
        presets=TEXT_SEARCH_PRESETS,
        preset=lambda preset, _: TEXT_SEARCH_PRESETS[preset],
        prefix="text_",
        cells="recurrent cells",
        main_cell="recurrent",
        splits=("train", "valid"),
        metric="valid/perplexity",
        best="lowest",
        select_by=("proxy",),
        epochs_of_proxy=300,  # as in DARTS
        operations=lambda _: RECURRENT_OPERATIONS,
        kept=lambda config: eligible(RECURRENT_OPERATIONS, exclude_none=config.exclude_none),
        random=_random_recurrent_cell,
        what_can_be_found=lambda config: {
            "steps": config.steps,
            "exclude_none": config.exclude_none,
        },
        search="orchestrator.work.search:search_text",
        proxy="orchestrator.work.proxy:train_on_text",
        final="orchestrator.work.final:train_on_text",
        search_cost="orchestrator.cost.text:SEARCH",
        training_cost="orchestrator.cost.text:TRAINING",
        check_search="orchestrator.run.check_text:check_search",
        check_final="orchestrator.run.check_text:check_final",
        final_cell="orchestrator.run.check_text:final_cell",
        model="orchestrator.tracking.final_model:TEXT",
        search_size="orchestrator.report.sizes:of_text_search",
        training_size="orchestrator.report.sizes:of_text_training",
        genotype=RecurrentGenotype,
        published="RNN_GDAS",
        heat_maps=("recurrent",),
        outcome="perplexity",
        final_curves=(
            "finals-text.svg",
            (
                ("train/perplexity", "training perplexity"),
                ("valid/perplexity", "validation perplexity"),
            ),
        ),
        lone_first_edge=True,
        paper_cost=lambda config: (3, "GDAS", "search_gpu_days"),
    ),
    "bench201": Space(
        config=Bench201SearchConfig,
        presets=BENCH201_SEARCH_PRESETS,
        preset=lambda preset, _: BENCH201_SEARCH_PRESETS[preset],
        prefix="bench201_",
        cells="NAS-Bench-201 cells",
        main_cell="cell",
        splits=("train",),
        metric="valid/top1",
        best="highest",
        select_by=("shared_weights",),
        epochs_of_proxy=None,  # the table has the accuracies, so no cell is trained
        operations=lambda _: CELL_OPERATIONS,
        kept=lambda _: CELL_OPERATIONS,
        random=lambda _, seed: random_bench201_genotype(seed),
        what_can_be_found=lambda _: {},
        search="orchestrator.work.search:search_bench201",
        proxy=None,
        final=None,
        search_cost="orchestrator.cost.bench201:SEARCH",
        training_cost=None,
        check_search="orchestrator.run.check_images:check_search",
        check_final=None,
        final_cell=None,
        model=None,
        search_size="orchestrator.report.sizes:of_bench201_search",
        training_size=None,
        genotype=Bench201Genotype,
        published=None,
        in_a_table=True,
    ),
}
