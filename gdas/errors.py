"""The one exception for bad input (a setting, a file or a data set that cannot be used)."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input. The message is one line that names the thing, what is wrong, and the fix."""


def one_line(error: object, most: int | None = None) -> str:
    """The text of an error, in one line of at most `most` characters."""
    return " ".join(str(error).split())[:most]
