"""The golden pages are what the code says now."""

from __future__ import annotations

import sys

import pytest

from tests.golden.pages import FOLDER, pages

HINT = "if that is meant: python -m tests.golden"


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    return pages()


@pytest.mark.parametrize("name", ["job_ids.txt", "parameters.txt"])
def test_ids_and_parameters_are_what_they_were(said: dict[str, str], name: str) -> None:
    assert said[name] == (FOLDER / name).read_text(encoding="utf-8"), HINT


def test_help_is_what_it_was(said: dict[str, str]) -> None:
    if sys.version_info >= (3, 13):  # argparse lays its options out in another way
        assert said["help.txt"].count("--help") >= 10
        return
    assert said["help.txt"] == (FOLDER / "help.txt").read_text(encoding="utf-8"), HINT
