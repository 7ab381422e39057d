"""Files that never exist half-written, names as text, and checks of JSON objects from outside."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gdas.errors import InputError, one_line

# A file name that is not UTF-8 comes from Python with a surrogate for every byte that does not fit.
_SURROGATE = re.compile("[\ud800-\udfff]")
_LIKE_AN_ESCAPE = re.compile(r"\\(?=x5c|x[89a-f][0-9a-f]|ud[89a-f][0-9a-f]{2})")


def as_text(name: str) -> str:
    r"""A file or folder's name as it is written anywhere, in UTF-8 and without loss.

    A byte that is not UTF-8 becomes \xe4. A backslash that would then read as such an escape
    becomes \x5c; every other name stays as it is. `without_surrogates` is for text that has names
    in it already.
    """
    return without_surrogates(_LIKE_AN_ESCAPE.sub(r"\\x5c", name))


def without_surrogates(text: str) -> str:
    """Text that any file and any terminal takes: bytes that are not UTF-8 are written out."""
    return _SURROGATE.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole: to a temporary file beside it, which is then renamed."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(without_surrogates(text))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file as a whole; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def named_object(
    value: object, form: str, keys: Sequence[str], where: str, *, optional: Sequence[str] = ()
) -> tuple[str, dict[str, Any]]:
    """Check a decoded JSON value that names its `format`; returns its name and itself.

    Args:
        value: the decoded value.
        form: the format that it must have.
        keys, optional: the other keys that it may have; their values are not checked.
        where: what to call it in an error, usually the file.

    Raises:
        InputError: it is not an object, has another format or an unknown key, or its name is not
            text.
    """
    if not isinstance(value, dict):
        example = ", ".join([f'"format": "{form}"', *(f'"{key}": ...' for key in keys)])
        raise InputError(f"{where}: is no JSON object; it must be such as {{{example}}}")
    if value.get("format") != form:
        found = f"format is {value['format']!r}" if "format" in value else "no format is given"
        raise InputError(f'{where}: {one_line(found, 80)}; it must have "format": "{form}"')
    known = {"format", "name", *keys, *optional}
    if unknown := sorted(set(value) - known):
        raise InputError(
            f"{where}: unknown key {one_line(unknown[0], 40)!r}; use {', '.join(sorted(known))}"
        )
    name = value.get("name", "unnamed")
    if not isinstance(name, str):
        shown = one_line(name, 40)
        raise InputError(f'{where}: name is {shown}; must be text, such as "name": "mine"')
    return name, value
