"""How refusals are worded: what must be true and the fix, not two values to be compared by eye."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent
FILES = sorted([*(HERE / "gdas").rglob("*.py"), *(HERE / "orchestrator").rglob("*.py")])
REFUSE = ("InputError", "require")


def refusals(file: Path) -> Iterator[tuple[int, str]]:
    """Line and text of what a file refuses with; what is filled in stands in braces."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(
                func=ast.Name(id=name), args=[*_, ast.JoinedStr() | ast.Constant() as text]
            ):
                if name in REFUSE:
                    yield node.lineno, ast.unparse(text)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(HERE)))
def test_a_refusal_says_what_must_be_true_and_not_what_was_expected(file: Path) -> None:
    wrong = [
        f"line {line}: {text}"
        for line, text in refusals(file)
        if "expected" in text
        or ", got " in text
        or text.count("known are") + text.count("suggestion(") > 1
        or text.count("SHA-256") + text.count("MD5") > 1
    ]
    assert not wrong


def test_refusals_are_found() -> None:
    assert sum(1 for file in FILES for _ in refusals(file)) > 250
