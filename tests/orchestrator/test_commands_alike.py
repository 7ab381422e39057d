"""The same option means the same, and is described in the same words, in every command."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator

import pytest

from gdas.errors import InputError
from orchestrator.terminal.command import add_out, command_parser, run_command
from tests.readme import ROOT

COMMANDS = sorted(
    path.stem for path in (ROOT / "orchestrator").glob("*.py") if not path.stem.startswith("__")
)


def parser(command: str) -> argparse.ArgumentParser:
    found: argparse.ArgumentParser = importlib.import_module(f"orchestrator.{command}").parser()
    return found


def options() -> Iterator[tuple[str, str, str]]:
    """(name, command, its help without the default, which a command may have of its own)."""
    for command in COMMANDS:
        for action in parser(command)._actions:
            name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
            words = re.sub(r" \((default: .*?)\)", "", f"{action.metavar}: {action.help}")
            yield name, command, words


def test_one_option_has_one_description() -> None:
    said: dict[str, dict[str, list[str]]] = {}
    for name, command, words in options():
        said.setdefault(name, {}).setdefault(words, []).append(command)
    assert {"--out", "--data", "--address", "--yes", "EXPERIMENT or key=value"} <= said.keys()
    # one study or several; before what; a cell or a state; two things
    own = {"OUT", "--yes", "what", "--to", "--json"}
    assert {name: found for name, found in said.items() if len(found) > 1 and name not in own} == {}
    assert len(said["OUT"]) == 2, "of one study, and of several"
    assert all(words.startswith("None: do not ask before ") for words in said["--yes"])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_what_its_exit_codes_mean(command: str) -> None:
    found = parser(command)
    assert found.prog == f"python -m orchestrator.{command}"
    codes = (found.epilog or "").split("\n\n")[-1]
    assert re.fullmatch(
        r"Exit code: 0 [^,]+(, 1 [^,]+)?, 2 bad input, 130 interrupted, 143 terminated\.",
        codes.replace("\n", " "),
    )
    assert max(map(len, found.format_help().splitlines())) <= 100


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        (InputError("x: must be y"), 2, "error: x: must be y\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (OSError(28, "No space left on device", "f"), 1, "error: f: No space left on device"),
    ],
)
def test_the_ways_to_end_are_the_same(
    what: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(_: argparse.Namespace) -> int:
        raise what

    found = command_parser("orchestrator.none", "Nothing.", "", done="done")
    assert run_command(found, body, []) == code
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ouy", "x"], "error: --ouy: no such option; did you mean --out?\n"),
        (["--oux=x"], "error: --oux: no such option; did you mean --out?\n"),
        (["a", "b"], "error: b: one word too many; python -m orchestrator.none --help shows what "),
    ],
)
def test_a_word_that_means_nothing_is_refused_in_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = command_parser("orchestrator.none", "Nothing.", "", done="done")
    add_out(found)
    found.add_argument("one", nargs="?")
    assert run_command(found, lambda _: 0, words) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(said) and shown.count("\n") == 1


def test_only_the_helper_makes_parsers_and_every_command_ends_through_it() -> None:
    for command in COMMANDS:
        text = (ROOT / "orchestrator" / f"{command}.py").read_text()
        assert "ArgumentParser(" not in text, command
        assert text.count("run_command(") == 1, command
