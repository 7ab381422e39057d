"""Check settings and data before anything starts, and prepare the data."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import cast

import gdas.cnn.genotype
import gdas.genotype
import gdas.rnn.genotype
from gdas.bench201.genotype import Bench201Genotype
from gdas.bench201.table import check_chance, read_table, table_identity, table_path
from gdas.cnn.genotype import Genotype
from gdas.cnn.smallest_map import check_smallest_map
from gdas.data.images import DIGIT_PHOTOS, open_images
from gdas.data.images import identity as image_identity
from gdas.data.settings import AnyImageData, PhotoData, TableData, TextData
from gdas.data.text import open_tokens, text_identity
from gdas.data.vocabulary import Split
from gdas.errors import InputError
from gdas.method import check_method
from gdas.outside import source_checksum
from gdas.rnn.genotype import RecurrentGenotype
from orchestrator.experiment.build import Code, build_study
from orchestrator.experiment.config import Experiment, FinalSpec, SearchSpec
from orchestrator.experiment.decode import decode_search, decode_train
from orchestrator.experiment.kinds import load
from orchestrator.experiment.spaces import SPACES
from orchestrator.experiment.study import Job, Study
from orchestrator.paper import tables as paper
from orchestrator.run.check_images import check_own_operations, training_images
from orchestrator.run.sizes import (
    check_image_search,
    under,
)
from orchestrator.store.store import Store

AnyGenotype = Genotype | RecurrentGenotype


@cache
def identity(folder: Path, data: AnyImageData | TextData | TableData, split: str) -> str:
    """The checksum of a split, which enters the id of every job that reads the split.

    Args:
        folder: the folder of the data sets.
    """
    if isinstance(data, TableData):
        return table_identity(data, folder)
    if isinstance(data, TextData):
        return text_identity(data, cast(Split, split), folder)
    return image_identity(data, "train" if split == "train" else "test", folder)


def fixed_cells(experiment: Experiment) -> dict[str, AnyGenotype]:
    """The cell of every final whose cell is not searched, by the final's name.

    Raises:
        InputError: a genotype file cannot be used, or a cell does not fit the task of its final.
    """
    cells: dict[str, AnyGenotype] = {}
    for name, final in experiment.finals.items():
        if not final.cell.tracks:
            cells[name] = _cell(final, f"finals.{name}")
    return cells


def _cell(final: FinalSpec, where: str) -> AnyGenotype:
    cell: AnyGenotype
    source, space = final.cell, SPACES[final.recipe.task]
    if source.file is not None:
        loaded = gdas.genotype.load(source.file)
        if isinstance(loaded, Bench201Genotype):
            raise InputError(
                f"{where}.cell.file={source.file}: is a NAS-Bench-201 cell; finals train "
                "convolutional and recurrent ones, such as cell: {published: GDAS_V1}, and its "
                "table has its accuracy"
            )
        cell = loaded
    elif source.published is not None:
        cell = (gdas.cnn.genotype.PUBLISHED | gdas.rnn.genotype.PUBLISHED_RECURRENT)[
            source.published
        ]
    else:
        cell = load(space.final_cell)(source, where)
    if not isinstance(cell, space.genotype):
        its = next(s for s in SPACES.values() if isinstance(cell, s.genotype))
        usual = next(iter(its.presets.values())).data.name
        raise InputError(
            f"{where}.cell: {cell.name} is a {its.cells.removesuffix('s')} and its data set, "
            f"{final.recipe.data.name}, is {final.recipe.task}; name a cell of that kind, such as "
            f"{space.published}, or set {where}.recipe.data, such as {{name: {usual}}}"
        )
    return cell


def checked_study(experiment: Experiment, folder: Path) -> Study:
    """Check an experiment, then build its study.

    Args:
        folder: the folder of the data sets.

    Raises:
        InputError: names the first thing that is wrong.
    """
    cells = fixed_cells(experiment)
    check_experiment(experiment, cells, folder)
    return _study(experiment, cells, folder)


def recorded_data_study(experiment: Experiment, recorded: Study, folder: Path) -> Study:
    """Build the study of an experiment that has been started before, without reading its data.

    Args:
        recorded: the study as its folder records it, whose jobs have the checksums of their data.
        folder: the folder of the data sets, for data that no recorded job reads.
    """
    known: dict[tuple[str, str], str] = {}
    for job in recorded.in_cluster:
        for split, content in job.recipe.get("data", {}).items():
            known[job.recipe["config"]["data"]["name"], split] = content
        if "table" in job.recipe:
            known[TableData().name, "all"] = job.recipe["table"]

    def of(data: AnyImageData | TextData | TableData, split: str) -> str:
        return known.get((data.name, split)) or identity(folder, data, split)

    genotypes = {name: cell.to_json() for name, cell in fixed_cells(experiment).items()}
    return build_study(experiment, of, genotypes, _recorded_code(recorded))


def _recorded_code(recorded: Study) -> Code:
    """The checksums of the user's functions with which a study was started."""
    found: dict[str, str] = {}
    for job in recorded.in_cluster:
        found |= job.recipe.get("code", {})
    return lambda name: found.get(name) or source_checksum(name)


def unchecked_study(experiment: Experiment, recorded: Study, folder: Path) -> Study:
    """Build the study of an experiment that has been started before, without checking it again.

    Args:
        recorded: the study as its folder records it; perhaps a part of it.
        folder: the folder of the data sets.
    """
    return _study(experiment, fixed_cells(experiment), folder, _recorded_code(recorded))


def _study(
    experiment: Experiment,
    cells: dict[str, AnyGenotype],
    folder: Path,
    code: Code = source_checksum,
) -> Study:
    genotypes = {name: cell.to_json() for name, cell in cells.items()}
    return build_study(experiment, partial(identity, folder), genotypes, code)


def check_experiment(experiment: Experiment, cells: dict[str, AnyGenotype], folder: Path) -> None:
    """Find everything wrong that can be found without opening data or starting Ray.

    Args:
        cells: as `fixed_cells` returns them.
        folder: the folder of the data sets; for photos, their index is read.

    Raises:
        InputError: names the first thing that is wrong.
    """
    for name, search in experiment.searches.items():
        try:
            _check_search(search, folder)
        except InputError as problem:
            raise InputError(f"searches.{name}: {problem}") from None
    for name, measure in experiment.measures.items():
        count, size = training_images(measure.recipe.data, folder)
        with under(f"measures.{name}.recipe"):
            train_T, valid_V = check_image_search(measure.recipe, count)
            check_smallest_map(measure.recipe, size, train_T, valid_V)
            check_own_operations(measure.recipe, size)
    for name, final in experiment.finals.items():
        if final.without_data == "leave_out" and not _at_hand(final, folder):
            continue
        try:
            _check_final(experiment, final, cells.get(name), folder)
        except InputError as problem:
            raise InputError(f"finals.{name}: {problem}") from None


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
    with under("recipe"):
        check_method(search.recipe.sampler)
    load(SPACES[search.recipe.task].check_search)(search, folder)


def _check_final(
    experiment: Experiment, final: FinalSpec, cell: AnyGenotype | None, folder: Path
) -> None:
    if final.row is not None:
        paper.find_row(final.row.table, final.row.method, final.row.columns)
    searches = {key: experiment.searches[name] for key, name in final.cell.tracks.items()}
    for key, search in searches.items():
        if search.recipe.task != final.recipe.task:
            trained = SPACES[search.recipe.task].epochs_of_proxy is not None
            raise InputError(
                f"cell.{key}={final.cell.tracks[key]}: searches for cells of the other kind "
                f"({search.recipe.task}); name a search on {final.recipe.task}"
                + (f", or give this final data on {search.recipe.task}" if trained else "")
            )
    load(SPACES[final.recipe.task].check_final)(final, searches, cell, folder)


def prepare_data(study: Study, store: Store, folder: Path) -> None:
    """Convert and verify what open jobs read, once; the test split only if a final is open.

    Raises:
        InputError: a data set is missing or damaged.
    """
    needed: dict[tuple[bool, str, str], tuple[AnyImageData | TextData, Split]] = {}
    for job in study.in_cluster:
        if "table" in job.recipe and not store.done(job):
            path = table_path(TableData(), folder)
            check_chance(read_table(path), path)
            break
    for job in study.in_cluster:
        if not store.done(job):
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
    decode = decode_search if job.of.config == "search" else decode_train
    return decode(job.recipe["config"]).data
