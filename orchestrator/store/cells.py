"""Cells by what a command line calls them: a name, a file, a study's search, or the text itself."""

from __future__ import annotations

import shlex
from pathlib import Path

import gdas.genotype
from gdas.cnn.genotype import PUBLISHED
from gdas.errors import InputError, one_line
from gdas.genotype import AnyGenotype
from gdas.rnn.genotype import PUBLISHED_RECURRENT
from orchestrator.store.recorded import open_recorded
from orchestrator.store.storage import is_address


def find_cell(named: str) -> AnyGenotype:
    """Find a cell by published name, genotype file, FILE:NAME, OUT:SEARCH, or a genotype's text.

    Raises:
        InputError: there is no such cell.
    """
    published: dict[str, AnyGenotype] = {**PUBLISHED, **PUBLISHED_RECURRENT}
    if named in published:
        return published[named]
    if not named.strip():
        raise InputError("CELL: is empty; name a cell, such as GDAS_V1 or cell.json")
    if (Path(named) / "study.json").is_file() if _is_folder(named) else _is_whole(named):
        known = open_recorded(named)[1].selections
        rest = (
            ", ".join(f"{named}:{search}" for search in known) or "it has none that select a cell"
        )
        raise InputError(f"{named}: is a study; name one of its searches: {rest}")
    out, separator, search = named.rpartition(":")
    if _is_file(named) or (separator and _is_file(out)):
        return gdas.genotype.load(named)
    if separator and (is_address(out) or _is_folder(out)):
        return _selected(out, search)
    if named.lstrip().startswith(("{", "[", "|", '"')) or "(" in named:
        return gdas.genotype.read(named, "CELL")
    if named.upper() in published:
        raise InputError(f"{named}: no such cell; did you mean {named.upper()}?")
    raise InputError(
        f"{one_line(named, 200)}: no published cell, no file, no OUT:SEARCH and no genotype's "
        f"text; published are {', '.join(published)}"
    )


def _is_whole(named: str) -> bool:
    """Whether it is an address without a search behind it."""
    return is_address(named) and ":" not in named.partition("://")[2] and "(" not in named


def _is_file(named: str) -> bool:
    try:
        return Path(named).is_file()
    except OSError:  # too long for a file name, so it is a genotype's text
        return False


def _is_folder(named: str) -> bool:
    try:
        return Path(named).is_dir()
    except OSError:
        return False


def _selected(out: str, search: str) -> AnyGenotype:
    """The selected cell of a study's search."""
    store, study = open_recorded(out)
    if search not in study.selections:
        known = ", ".join(study.selections) or "none"
        raise InputError(f"{out}:{search}: no such search; the study's are {known}")
    select = study.selection(search)
    record = store.selection(select) if select else None
    if record is None:
        raise InputError(
            f"{out}:{search}: nothing is selected yet; see python -m orchestrator.status "
            f"{shlex.quote(out)}"
        )
    return gdas.genotype.any_from_json(record["winner"]["genotype"], f"selection {search}")
