"""A module of a user's own, such as one with operations, that a test writes and imports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def importable(folder: Path, name: str, code: str) -> Iterator[Path]:
    """The module's file, which can be imported until the context ends."""
    path = folder / f"{name}.py"
    path.write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        try:
            yield path
        finally:
            sys.modules.pop(name, None)
