"""Modules that docstrings, comments and pages name exist, and have what they are said to have."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.readme import ROOT

OURS = re.compile(r"\b(?:gdas|orchestrator|tests)(?:\.\w+)+")
FILES = re.compile(r"\b(?:gdas|orchestrator|tests)/[\w/]*\w\.\w+")
PACKAGES = [path for folder in ("gdas", "orchestrator") for path in (ROOT / folder).rglob("*.py")]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *ROOT.glob("experiments/*.md"),
    *ROOT.glob("cluster/*.md"),
]


def prose(path: Path) -> Iterator[str]:
    """A page's text, or the comments and docstrings of a module."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield text
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or token.string.startswith('"""'):
            yield token.string


def exists(name: str) -> bool:
    """Whether this is a module, or what stands behind a module's name is written in it."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:cut])
        module = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path
        module = module / "__init__.py" if module.is_dir() else module
        if module.is_file() or path.is_dir():
            rest = parts[cut:]
            if not rest:
                return True
            text = module.read_text(encoding="utf-8") if module.is_file() else ""
            return re.search(rf"\b{rest[0]}\b", text) is not None
    return False


def test_a_name_that_moved_would_be_found() -> None:
    assert exists("gdas.search.SearchSpace") and exists("gdas.ALGORITHM_VERSION")
    assert exists("orchestrator.store") and exists("tests.drill")
    assert not exists("orchestrator.runner") and not exists("gdas.search.NoSuchThing")


@pytest.mark.parametrize("path", [*PACKAGES, *PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_what_is_named_exists(path: Path) -> None:
    text = "\n".join(prose(path))
    assert [name for name in OURS.findall(text) if not exists(name)] == []
    assert [name for name in FILES.findall(text) if not (ROOT / name).exists()] == []
