"""Times, tables and findings as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple


def clock(seconds: float) -> str:
    """A duration as 1:02 or 3:04:05."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as lines of text, with every column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def counted(count: int, what: str) -> str:
    """A number of things, such as "1 folder" or "2 folders"."""
    return f"{count} {what}{'' if count == 1 else 's'}"


class Finding(NamedTuple):
    """A finding of a command that checks something.

    Attributes:
        level: "BAD" if something will not work, "note" if it may not.
        what: the finding.
        fix: what to do; "" if all is well.
    """

    level: Literal["ok", "note", "BAD"]
    what: str
    fix: str = ""

    def line(self) -> str:
        """The finding and its fix, in one line."""
        return f"{self.level:4}  {self.what}{f' -> {self.fix}' if self.fix else ''}"
