"""The words of a command line, before anything is done: empty, given twice, unknown, misspelt.

An empty word is mostly a variable of the shell that is not set. Taken for "not given", it would
start something else than what was meant, so it is refused.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections import Counter
from collections.abc import Sequence

from gdas.errors import InputError, closest
from orchestrator.experiment.credentials import refuse_credentials

STORE = re.compile(r"(s3|gs|gcs|abfs|abfss|hdfs|https?):(?!//)(?P<rest>.*)", re.I)
"""An address whose two slashes are not there."""
ALIKE = 0.62
"""How alike a word must be to an option to be taken for it, by difflib's ratio."""


FLAGS = ("--dry-run", "--calibrate")
"""Options that have no value."""


def refuse_line(words: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Refuse words of a command line that are empty, and options of one value given twice.

    Raises:
        InputError: there are such; the error names the option.
    """
    before = ""
    for word in words:
        option, equals, value = word.partition("=")
        named = option if option.startswith("--") and equals else before
        if not (value if named and named == option else word).strip():
            what = f"{named}: " if named else "a word of the command "
            raise InputError(
                f"{what}is empty (a variable that is not set?); give it a value, or leave it out"
            )
        before = word if word.startswith("--") and not equals else ""
    once = {
        option
        for action in parser._actions
        if isinstance(action, argparse._StoreAction)
        for option in action.option_strings
    }
    given = Counter(word.partition("=")[0] for word in words)
    for option in sorted(once):
        if given[option] > 1:
            raise InputError(f"{option}: is there {given[option]} times; keep one")


def refuse_place(what: str, place: str) -> None:
    """Refuse an address with a password in it, or without its two slashes.

    Args:
        what: the option or argument that names the place.

    Raises:
        InputError: it is such an address.
    """
    refuse_credentials(what, place)
    if found := STORE.match(place):
        scheme, rest = found[1].lower(), found["rest"].lstrip("/")
        raise InputError(
            f"{what} {place}: an address must have two slashes, such as {scheme}://{rest}"
        )


def without(command: str, *options: str) -> str:
    """A command line without some options, and without their values.

    Args:
        command: words as the shell reads them.
    """
    kept, words = list[str](), iter(shlex.split(command))
    for word in words:
        name, equals, _ = word.partition("=")
        if name not in options:
            kept.append(word)
        elif name not in FLAGS and not equals:
            next(words, None)
    return shlex.join(kept)


def unknown(word: str, parser: argparse.ArgumentParser) -> str:
    """What is said of a word on the command line that means nothing to the parser."""
    named, equals, value = word.partition("=")
    if not named.startswith("-"):
        return f"{word}: one word too many; {parser.prog} --help shows what belongs where"
    options = list(dict.fromkeys(re.findall(r"--[a-z-]+", parser.format_help())))
    plain = named.lstrip("-")
    meant = closest(plain, [option.lstrip("-") for option in options], ALIKE)
    if meant is not None:
        return f"{named}: no such option; did you mean --{meant}?"
    if any(action.dest == "words" for action in parser._actions):
        if value.endswith((".yaml", ".yml")):
            return f"{named}: no such option; a file is named by itself, without one: {value}"
        if places := _settings(plain):
            given = " or ".join(f"{place}={value if equals else '...'}" for place in places)
            return f"{named}: no such option; settings are key=value without dashes: {given}"
    return f"{named}: no such option; known are {', '.join(options)}"


def _settings(word: str) -> list[str]:
    """The settings that a word without its dashes names: itself, or the places that have it."""
    from orchestrator.experiment.load import SHARED  # here: the help needs no PyTorch
    from orchestrator.experiment.places import places_of

    first, dot, _ = word.partition(".")
    if dot:
        return [word] if first in (*SHARED, "searches", "finals", "measures", "mlflow") else []
    return places_of(word.replace("-", "_"), alike=0.8)[:2]
