"""What is checked before anything is spent: settings that cannot be built, and the data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import cast

import gdas.genotype
from gdas.bench201.genotype import Bench201Genotype
from gdas.bench201.table import read_table, table_identity, table_path
from gdas.cnn.config import SearchConfig, TrainConfig
from gdas.cnn.smallest_map import check_smallest_map
from gdas.cnn.train import check_batches, check_training
from gdas.data.images import DIGIT_PHOTOS, known, open_images, subset
from gdas.data.images import identity as image_identity
from gdas.data.settings import AnyImageData, PhotoData, TableData, TextData
from gdas.data.shard_index import open_index, photos_in
from gdas.data.text import open_tokens, text_counts, text_identity
from gdas.data.vocabulary import Split
from gdas.errors import InputError
from gdas.genotype import Genotype, RecurrentGenotype
from gdas.rnn.config import TextSearchConfig, TextTrainConfig
from orchestrator.experiment.config import CellSource, Experiment, FinalSpec, SearchSpec
from orchestrator.experiment.decode import decode_search, decode_train
from orchestrator.experiment.study import Job, Study, build_study
from orchestrator.paper import tables as paper
from orchestrator.run.sizes import (
    check_image_search,
    check_text_search,
    check_text_training,
    under,
)
from orchestrator.store.store import Store

AnyGenotype = Genotype | RecurrentGenotype


@cache
def identity(folder: Path, data: AnyImageData | TextData | TableData, split: str) -> str:
    """What a split's content is; it enters the id of every job that reads the split.

    Args:
        folder: where data sets lie.
    """
    if isinstance(data, TableData):
        return table_identity(data, folder)
    if isinstance(data, TextData):
        return text_identity(data, cast(Split, split), folder)
    return image_identity(data, "train" if split == "train" else "test", folder)


def fixed_cells(experiment: Experiment) -> dict[str, AnyGenotype]:
    """The cell of every final whose cell is not searched, by the final's name.

    Raises:
        InputError: a genotype file cannot be used, or a cell is of the other kind.
    """
    cells: dict[str, AnyGenotype] = {}
    for name, final in experiment.finals.items():
        if not final.cell.tracks:
            cells[name] = _cell(final, f"finals.{name}")
    return cells


def _cell(final: FinalSpec, where: str) -> AnyGenotype:
    cell: AnyGenotype
    source, task = final.cell, final.recipe.task
    if source.file is not None:
        loaded = gdas.genotype.load(source.file)
        if isinstance(loaded, Bench201Genotype):
            raise InputError(
                f"{where}.cell.file={source.file}: is a NAS-Bench-201 cell; finals train "
                "convolutional and recurrent ones, and its table has its accuracy"
            )
        cell = loaded
    elif source.published is not None:
        cell = (gdas.genotype.PUBLISHED | gdas.genotype.PUBLISHED_RECURRENT)[source.published]
    else:
        cell = _drawn(source, task, where)
    if isinstance(cell, RecurrentGenotype) != (task == "text"):
        kind = "a recurrent" if isinstance(cell, RecurrentGenotype) else "a convolutional"
        other = "RNN_GDAS" if task == "text" else "GDAS_V1"
        raise InputError(
            f"{where}.cell: {cell.name} is {kind} cell and its data set, {final.recipe.data.name}, "
            f"is {task}; name a cell of that kind, such as {other}, or set {where}.recipe.data, "
            f"such as {{name: {'cifar10' if task == 'text' else 'ptb'}}}"
        )
    return cell


def _drawn(source: CellSource, task: str, where: str) -> AnyGenotype:
    """A final's random cell, of the space that its settings say; by default the paper's."""
    others = ("nodes", "distinct_sources") if task == "text" else ("steps",)
    if wrong := [key for key in others if getattr(source, key) is not None]:
        kind, own = ("recurrent", "steps") if task == "text" else ("convolutional", "nodes")
        raise InputError(
            f"{where}.cell.{wrong[0]}={getattr(source, wrong[0])}: {kind} cells have no such "
            f"setting; leave it out (they have {own})"
        )
    seed, exclude_none = source.random or 0, source.exclude_none is not False
    if task == "text":
        return gdas.genotype.random_recurrent_genotype(
            seed, steps=source.steps or 8, exclude_none=exclude_none
        )
    return gdas.genotype.random_genotype(
        seed,
        nodes=source.nodes or 4,
        fixed_reduction=source.fixed_reduction,
        distinct_sources=source.distinct_sources is not False,
        exclude_none=exclude_none,
    )


def checked_study(experiment: Experiment, folder: Path) -> Study:
    """The study of an experiment, once all that can be known to be wrong is not.

    Args:
        folder: where data sets lie.

    Raises:
        InputError: names the first thing that is wrong.
    """
    cells = fixed_cells(experiment)
    check_experiment(experiment, cells, folder)
    return _study(experiment, cells, folder)


def unchecked_study(experiment: Experiment, folder: Path) -> Study:
    """The same for an experiment that has been started before."""
    return _study(experiment, fixed_cells(experiment), folder)


def _study(experiment: Experiment, cells: dict[str, AnyGenotype], folder: Path) -> Study:
    genotypes = {name: cell.to_json() for name, cell in cells.items()}
    return build_study(experiment, partial(identity, folder), genotypes)


def check_experiment(experiment: Experiment, cells: dict[str, AnyGenotype], folder: Path) -> None:
    """All that can be known to be wrong without opening data or starting Ray.

    Args:
        folder: where data sets lie; of photos the index is read.
    """
    for name, search in experiment.searches.items():
        try:
            _check_search(search, folder)
        except InputError as problem:
            raise InputError(f"searches.{name}: {problem}") from None
    for name, measure in experiment.measures.items():
        count, size = _training_images(measure.recipe.data, folder)
        with under(f"measures.{name}.recipe"):
            train_T, valid_V = check_image_search(measure.recipe, count)
            check_smallest_map(measure.recipe, size, train_T, valid_V)
    for name, final in experiment.finals.items():
        if final.without_data == "leave_out" and not _at_hand(final, folder):
            continue
        try:
            _check_final(experiment, final, cells.get(name), folder)
        except InputError as problem:
            raise InputError(f"finals.{name}: {problem}") from None


def _standing_in(search: SearchSpec) -> Genotype:
    """A published cell that is built like those the search will find."""
    assert isinstance(search.recipe, SearchConfig)
    fixed = search.recipe.network.reduction == "fixed"
    return gdas.genotype.PUBLISHED["GDAS_F1" if fixed else "GDAS_V1"]


def _training_images(data: AnyImageData, folder: Path) -> tuple[int, int]:
    """How many there are, and their side as the network sees them.

    Raises:
        InputError: an unknown data set, or photos that are not converted.
    """
    if isinstance(data, PhotoData):
        if data.name != DIGIT_PHOTOS:
            open_index(data, folder)  # refuses other classes than the settings say
        return photos_in(image_identity(data, "train", folder)), data.size
    images = known(data.name)
    return images.counts["train"], images.size


def _tokens(data: TextData, folder: Path, *splits: str) -> Mapping[str, int]:
    """Tokens of these splits of a text, by what their content is."""
    sizes = text_counts(data, {split: identity(folder, data, split) for split in splits})
    return {str(split): count for split, count in sizes.counts.items()}


def _at_hand(final: FinalSpec, folder: Path) -> bool:
    """Whether a final's photos are converted; other data can be downloaded."""
    if not isinstance(final.recipe.data, PhotoData):
        return True
    try:
        image_identity(final.recipe.data, "train", folder)
    except InputError:
        return False
    return True


def _check_search(search: SearchSpec, folder: Path) -> None:
    if search.proxy is not None and search.recipe.task != search.proxy.task:
        raise InputError(
            f"proxy.data.name={search.proxy.data.name}: is {search.proxy.task} and the search's "
            f"data are {search.recipe.task}; leave it out for the search's own"
        )
    if not isinstance(search.recipe, TextSearchConfig):
        count, size = _training_images(search.recipe.data, folder)
        with under("recipe"):
            train_T, valid_V = check_image_search(search.recipe, count)
            check_smallest_map(search.recipe, size, train_T, valid_V)
        if search.lookup is not None and search.lookup.images > valid_V:
            raise InputError(
                f"lookup.images={search.lookup.images}: larger than D_V ({valid_V}); use "
                f"lookup.images={valid_V} or less"
            )
        if search.select_by == "proxy" and isinstance(search.proxy, TrainConfig):
            if search.proxy.data.name != search.recipe.data.name:
                raise InputError(
                    f"proxy.data.name={search.proxy.data.name}: a proxy training is on the "
                    f"search's own images, {search.recipe.data.name}"
                )
            _, size = _training_images(search.proxy.data, folder)
            with under("proxy"):
                check_training(search.proxy, _standing_in(search), size=size)
                check_batches(search.proxy, train_T, workers=1)
        return
    with under("recipe"):
        check_text_search(search.recipe, _tokens(search.recipe.data, folder, "train", "valid"))
    if search.select_by == "proxy" and isinstance(search.proxy, TextTrainConfig):
        with under("proxy"):
            splits = ("train", "valid")
            check_text_training(search.proxy, _tokens(search.proxy.data, folder, *splits), *splits)


def _expected(final: FinalSpec, searches: dict[str, SearchSpec]) -> Genotype:
    """A published cell built like the one that a final's searches will find."""
    if "searched" in searches:
        return _standing_in(searches["searched"])
    assert final.cell.combined is not None
    fixed = final.cell.combined.reduce == "fixed"
    return gdas.genotype.PUBLISHED["GDAS_GF" if fixed else "GDAS_V1"]


def _check_final(
    experiment: Experiment, final: FinalSpec, cell: AnyGenotype | None, folder: Path
) -> None:
    if final.row is not None:
        paper.find_row(final.row.table, final.row.method, final.row.columns)
    searches = {key: experiment.searches[name] for key, name in final.cell.tracks.items()}
    for key, search in searches.items():
        if search.recipe.task != final.recipe.task:
            raise InputError(
                f"cell.{key}={final.cell.tracks[key]}: searches for cells of the other kind "
                f"({search.recipe.task}); name a search on {final.recipe.task}"
            )
    reduce = searches.get("combined.reduce")
    recipe = reduce.recipe if reduce else None
    if isinstance(recipe, SearchConfig) and recipe.network.reduction == "fixed":
        raise InputError(
            f"cell.combined.reduce={final.cell.tracks['combined.reduce']}: searches no "
            "reduction cell; use fixed"
        )
    if isinstance(final.recipe, TrainConfig):
        count, size = _training_images(final.recipe.data, folder)
        images = len(subset(count, 0, final.recipe.train_images))
        assert cell is None or isinstance(cell, Genotype)
        with under("recipe"):
            check_training(final.recipe, cell or _expected(final, searches), size=size)
            check_batches(final.recipe, images, final.resources.workers)
        return
    if final.resources.workers > final.recipe.batch_size:
        raise InputError(
            f"resources.workers={final.resources.workers}: more than the {final.recipe.batch_size} "
            "columns of a batch; give it fewer, or raise recipe.batch_size"
        )
    with under("recipe"):
        splits = ("train", "valid", "test")
        check_text_training(final.recipe, _tokens(final.recipe.data, folder, *splits), *splits)


def prepare_data(study: Study, store: Store, folder: Path) -> None:
    """Convert and verify once what open jobs read; the test split only where a final is open.

    Raises:
        InputError: a data set is missing or damaged.
    """
    needed: dict[tuple[bool, str, str], tuple[AnyImageData | TextData, Split]] = {}
    for job in study:
        if job.kind == "lookup" and not store.done(job):
            read_table(table_path(TableData(), folder))
            break
    for job in study:
        if job.kind != "select" and not store.done(job):
            data = _data_of(job)
            for split, content in job.recipe["data"].items():
                # Jobs may differ in their augmentation: the content is checked once.
                key = (split == "test", data.name, content)
                needed.setdefault(key, (data, cast(Split, split)))
    if any(data.name == DIGIT_PHOTOS for data, _ in needed.values()):
        from gdas.data.digit_photos import make_digit_photos  # decoders take a second to import

        make_digit_photos(folder)
    for _, (data, split) in sorted(needed.items(), key=lambda item: item[0]):
        if isinstance(data, TextData):
            open_tokens(data, split, folder, verify=True)
        else:
            open_images(data, "train" if split == "train" else "test", folder, verify=True)


def _data_of(job: Job) -> AnyImageData | TextData:
    decode = decode_search if job.kind in ("search", "lookup", "measure") else decode_train
    return decode(job.recipe["config"]).data
