"""The one exception for bad input (a setting, a file or a data set that cannot be used)."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class InputError(ValueError):
    """Bad input. The message is one line that names the thing, what is wrong, and the fix."""


def one_line(error: object, most: int | None = None) -> str:
    """The text of an error, in one line of at most `most` characters."""
    return " ".join(str(error).split())[:most]


def suggestion(word: str, known: Sequence[str]) -> str:
    """The end of an error about an unknown word: the closest known one, or a list of all."""
    close = closest(word, known)
    if not known:
        return "; there are none"
    return f"; did you mean {close}?" if close else f"; known are {', '.join(known)}"


def closest(word: str, known: Sequence[str], alike: float = 0.5) -> str | None:
    """The known word that an unknown one was meant to be, if one is close.

    Args:
        alike: how close, from 0 to 1: by difflib's ratio.
    """
    close = difflib.get_close_matches(word, known, n=1, cutoff=alike)
    return close[0] if close else None
