"""Harm for files that readers must not trust, drawn by hypothesis, and what must hold after it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

tries = settings(
    deadline=None,
    max_examples=150,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def harmed(whole: bytes) -> st.SearchStrategy[bytes]:
    """Truncated, with flipped bits, with a piece overwritten or repeated, or wholly random."""
    place = st.integers(0, max(0, len(whole) - 1))

    def flip(places: list[tuple[int, int]]) -> bytes:
        content = bytearray(whole)
        for at, bit in places:
            content[at] ^= 1 << bit
        return bytes(content)

    return st.one_of(
        place.map(lambda at: whole[:at]),
        st.lists(st.tuples(place, st.integers(0, 7)), min_size=1, max_size=4).map(flip),
        st.tuples(place, st.binary(min_size=1, max_size=16)).map(
            lambda drawn: whole[: drawn[0]] + drawn[1] + whole[drawn[0] + len(drawn[1]) :]
        ),
        st.tuples(place, place).map(lambda cut: whole[: cut[0]] + whole[cut[1] :]),
        st.binary(max_size=200),
    )


def files(folder: Path) -> dict[str, bytes]:
    """All that lies in a folder."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def read_harmed(
    path: Path, content: bytes, read: Callable[[], Any], error: type[Exception]
) -> object | None:
    """Read a file of that content: its value, or None where it was refused in one line.

    The file's folder must be the same afterwards.
    """
    path.write_bytes(content)
    before = files(path.parent)
    value = None
    try:
        value = read()
    except error as refusal:
        text = str(refusal)
        assert text.strip() and "\n" not in text.strip(), repr(text)
        assert len(text) < 2000, "the refusal repeats the file"
    assert files(path.parent) == before, "a reader changed something"
    return value


def no_code_runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make `os.system` take notes instead."""
    ran: list[str] = []
    monkeypatch.setattr("os.system", ran.append)
    return ran


class RunsCode:
    """What a hostile pickle holds."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def flip_byte(path: Path, place: int) -> None:
    """Change a byte where it stands; a negative place counts from the end."""
    with path.open("r+b") as file:
        at = place % path.stat().st_size
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0xFF]))
