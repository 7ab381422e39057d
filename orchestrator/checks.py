"""What is checked before anything is spent: settings that cannot be built, and the data."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import gdas.genotype
from gdas.bench201.genotype import Bench201Genotype
from gdas.cnn.space import search_split
from gdas.config import SearchConfig, TrainConfig
from gdas.data.images import known, open_images, subset
from gdas.data.text import Split, known_text, open_tokens
from gdas.errors import InputError
from gdas.genotype import Genotype, RecurrentGenotype
from gdas.train_image import check_training
from orchestrator import paper
from orchestrator.experiment import CellSource, Experiment, FinalSpec, SearchSpec
from orchestrator.store import Store
from orchestrator.study import Job, Study

AnyGenotype = Genotype | RecurrentGenotype


@cache
def identity(task: str, name: str, split: Split) -> str:
    """What a split's content is; it enters the id of every job that reads the split."""
    if task == "text":
        return known_text(name).identity(split)
    return known(name).identity("train" if split == "train" else "test")


def fixed_cells(experiment: Experiment) -> dict[str, AnyGenotype]:
    """The cell of every final whose cell is not searched, by the final's name.

    Raises:
        InputError: a genotype file cannot be used, or a cell is of the other kind.
    """
    cells: dict[str, AnyGenotype] = {}
    for name, final in experiment.finals.items():
        if final.cell.searched is None:
            cells[name] = _cell(final.cell, final.recipe.task, f"finals.{name}")
    return cells


def _cell(source: CellSource, task: str, where: str) -> AnyGenotype:
    cell: AnyGenotype
    if source.file is not None:
        loaded = gdas.genotype.load(source.file)
        if isinstance(loaded, Bench201Genotype):
            raise InputError(f"{where}.cell: {source.file} is a NAS-Bench-201 cell, not a final's")
        cell = loaded
    elif source.published is not None:
        cell = (gdas.genotype.PUBLISHED | gdas.genotype.PUBLISHED_RECURRENT)[source.published]
    elif task == "text":
        cell = gdas.genotype.random_recurrent_genotype(source.random or 0)
    else:
        cell = gdas.genotype.random_genotype(
            source.random or 0, fixed_reduction=source.fixed_reduction
        )
    if isinstance(cell, RecurrentGenotype) != (task == "text"):
        kind = "a recurrent" if isinstance(cell, RecurrentGenotype) else "a convolutional"
        raise InputError(f"{where}.cell: {cell.name} is {kind} cell and the data set is {task}")
    return cell


def check_experiment(experiment: Experiment, cells: dict[str, AnyGenotype]) -> None:
    """All that can be known to be wrong without opening data or starting Ray."""
    for name, search in experiment.searches.items():
        try:
            _check_search(search)
        except InputError as problem:
            raise InputError(f"searches.{name}: {problem}") from None
    for name, final in experiment.finals.items():
        try:
            _check_final(experiment, final, cells.get(name))
        except InputError as problem:
            raise InputError(f"finals.{name}: {problem}") from None


def _standing_in(search: SearchSpec) -> Genotype:
    """A published cell that is built like those the search will find."""
    assert isinstance(search.recipe, SearchConfig)
    fixed = search.recipe.network.reduction == "fixed"
    return gdas.genotype.PUBLISHED["GDAS_F1" if fixed else "GDAS_V1"]


def _check_search(search: SearchSpec) -> None:
    if search.recipe.task != search.proxy.task:
        raise InputError("proxy.data: must be of the search's kind")
    if isinstance(search.recipe, SearchConfig):
        images = known(search.recipe.data.name)
        search_split(search.recipe, images.counts["train"])
        if search.select_by == "proxy" and isinstance(search.proxy, TrainConfig):
            check_training(search.proxy, _standing_in(search), size=images.size)


def _check_final(experiment: Experiment, final: FinalSpec, cell: AnyGenotype | None) -> None:
    if final.row is not None:
        paper.find_row(final.row.table, final.row.method, final.row.columns)
    search = experiment.searches[final.cell.searched] if final.cell.searched else None
    if search is not None and search.recipe.task != final.recipe.task:
        raise InputError(
            f"cell.searched={final.cell.searched}: searches for cells of the other kind"
        )
    if isinstance(final.recipe, TrainConfig):
        images = known(final.recipe.data.name)
        subset(images.counts["train"], 0, final.recipe.train_images)
        genotype = _standing_in(search) if search is not None else cell
        assert isinstance(genotype, Genotype)
        check_training(final.recipe, genotype, size=images.size)
    elif final.resources.workers > 1:
        raise InputError(
            f"resources.workers={final.resources.workers}: language models train with one worker"
        )


def prepare_data(study: Study, store: Store, folder: Path) -> None:
    """Convert and verify once what open jobs read; the test split only where a final is open.

    Raises:
        InputError: a data set is missing or damaged.
    """
    needed = []
    for job in study:
        if job.kind != "select" and not store.done(job):
            needed += [(*_data_of(job), split) for split in job.recipe["data"]]
    for task, name, split in sorted(set(needed), key=lambda n: (n[2] == "test", n)):
        if task == "text":
            open_tokens(name, split, folder, verify=True)
        else:
            open_images(name, "train" if split == "train" else "test", folder, verify=True)


def _data_of(job: Job) -> tuple[str, str]:
    config = job.recipe["config"]
    return config["task"], config["data"]["name"]
