"""Genotypes, the discrete cells, of every search space; their files are read here.

The genotypes of each space are in its folder: gdas.cnn.genotype, gdas.rnn.genotype,
gdas.bench201.genotype.

A genotype is the interface between search and training, as a small JSON file. Such files are
untrusted input and are checked field by field. Formats of other projects are read too
(gdas.genotype_text).
"""

from __future__ import annotations

import os
from pathlib import Path

from gdas.bench201.genotype import BENCH201_FORMAT, Bench201Genotype, bench201_from_json
from gdas.cnn.genotype import Genotype, from_json
from gdas.errors import InputError
from gdas.genotype_text import genotype_value
from gdas.rnn.genotype import RECURRENT_FORMAT, RecurrentGenotype, recurrent_from_json

MAX_BYTES = 1 << 20

AnyGenotype = Genotype | RecurrentGenotype | Bench201Genotype


def any_from_json(value: object, where: str = "genotype") -> AnyGenotype:
    """Build the genotype of the class that a decoded JSON value's `format` names.

    Raises:
        InputError: its format is unknown, or it is malformed.
    """
    form = value.get("format") if isinstance(value, dict) else None
    if form == RECURRENT_FORMAT:
        return recurrent_from_json(value, where)
    if form == BENCH201_FORMAT:
        return bench201_from_json(value, where)
    return from_json(value, where)


def load(path: str | os.PathLike[str]) -> AnyGenotype:
    """Read a genotype file of any space, in this project's format or another's.

    Args:
        path: the file; or FILE:NAME, the genotype that a Python file assigns to a name.

    Raises:
        InputError: the file is missing, is larger than 1 MiB, or does not have one genotype.
    """
    path, named = Path(path), None
    try:
        if not path.exists() and ":" in path.name:
            file, _, name = str(path).rpartition(":")
            if Path(file).is_file():
                path, named = Path(file), name
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{path}: larger than {MAX_BYTES} bytes, not a genotype file; keep one line of a "
                f"log: grep Genotype {path.name} | tail -1 > cell.txt"
            )
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read the genotype file ({error.strerror})") from None
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))  # what PowerShell writes
    if b"\0" in content and not utf16:
        raise InputError(
            f"{path}: is no text (a zero byte is in it); name the log or the genotype file, not a "
            "checkpoint, or save it as UTF-8"
        )
    # A log may hold anything beside a genotype, whose own words are plain ASCII.
    text = content.decode("utf-16" if utf16 else "utf-8", errors="replace")
    return read(text, str(path), named=named)


def read(text: str, where: str, *, named: str | None = None) -> AnyGenotype:
    """Read the one genotype in a text, in any format that gdas.genotype_text reads.

    Args:
        where: what to call the text in an error, usually the file.
        named: the name that it is assigned to, if there are several.

    Raises:
        InputError: the text does not have one genotype, or it is malformed.
    """
    return any_from_json(genotype_value(text, where, named=named), where)
