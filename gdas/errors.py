"""The one exception for bad input: a setting, a file or a data set that cannot be used."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input. The message is one line that names the thing, what is wrong, and the fix."""
