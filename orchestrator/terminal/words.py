"""Times and tables as text."""

from __future__ import annotations

from collections.abc import Sequence


def clock(seconds: float) -> str:
    """1:02 or 3:04:05."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines of text, every column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
