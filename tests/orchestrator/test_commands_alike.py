"""The same option means the same, and is described in the same words, in every command."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from gdas.errors import InputError
from orchestrator import compare, predict, reproduce_paper, status
from orchestrator.terminal.command import add_out, command_parser, run_command
from orchestrator.terminal.line import without
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


LINES = {
    "--resume": "--resume: no such option; known are --",
    "--force": "--force: no such option; known are --",
    "--config=x.yaml": "--config: no such option; a file is named by itself, without one: x.yaml",
    "--epochs=3": "settings are key=value without dashes: search.recipe.epochs=3 or final.recipe.",
    "--lr 0.1": "settings are key=value without dashes: final.recipe.lr=... or text_",
    "--batch-size=8": "without dashes: search.recipe.batch_size=8 or final.recipe.batch_size=8",
    "--device=cpu": "without dashes: search.resources.device=cpu or final.resources.device=cpu",
    "--search.recipe.epochs=3": "without dashes: search.recipe.epochs=3\n",
    "--dryrun": "--dryrun: no such option; did you mean --dry-run?",
    "--out=": "--out: is empty (a variable that is not set?); give it a value, or leave it out",
    "--out ''": "--out: is empty",
    "--data ''": "--data: is empty",
    "--only ''": "--only: is empty",
    "--gpus '' --dry-run": "--gpus: is empty",
    "''": "a word of the command is empty",
    "--only search-gdas-frc,": "--only search-gdas-frc,: a name in it is empty, which",
    "--out a --out=b": "--out: is there 2 times; keep one",
    "search.seeds=[0] search.seeds=[1]": "search.seeds: is set 2 times behind the command",
    "--out s3:/bucket/x": "OUT s3:/bucket/x: an address must have two slashes, such as s3://bucket",
    "--data s3:bucket/x": "--data s3:bucket/x: an address must have two slashes, such as s3://bucket",
    "--address http:/x": "--address http:/x: an address must have two slashes, such as http://x",
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_that_would_start_something_else_is_refused(
    line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert reproduce_paper.main(["smoke", *shlex.split(line), "--report"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert LINES[line] in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["", "s3:/bucket/x", "gs:bucket"])
def test_other_commands_refuse_such_places_too(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "is empty" if not place else "must have two slashes"
    for command in (status.main, compare.main):
        assert command([place]) == 2
        assert said in capsys.readouterr().err
    assert predict.main([f"{place}:best" if place else "", "photos"]) == 2
    assert said in capsys.readouterr().err


def test_a_plans_next_command_keeps_what_was_quoted() -> None:
    line = "python -m x 'my pets.yaml' --gpus '4, 8' --dry-run --price=2 --out 'my runs' 'a=[0, 1]'"
    assert without(line, "--gpus", "--dry-run", "--price") == (
        "python -m x 'my pets.yaml' --out 'my runs' 'a=[0, 1]'"
    )


def test_only_the_helper_makes_parsers_and_every_command_ends_through_it() -> None:
    for command in COMMANDS:
        text = (ROOT / "orchestrator" / f"{command}.py").read_text()
        assert "ArgumentParser(" not in text, command
        assert text.count("run_command(") == 1, command
