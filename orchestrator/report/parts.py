"""What the report is made of: text, tables, and what looks different on the page. Pure.

From the same parts come report.md, the page, and the tables as CSV and LaTeX.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.report.statistics import Summary, p_in_words, summary


@dataclass(frozen=True)
class Measured:
    """A cell of a table that holds a measured number.

    Attributes:
        text: as a reader sees it.
        of: the number with its spread; one value has no spread.
        unit: its unit, such as "%"; empty if it has none.
    """

    text: str
    of: Summary
    unit: str = ""

    def __str__(self) -> str:
        return self.text


def measured(values: Sequence[float], unit: str = "", text: str | None = None) -> Measured:
    """A cell of one or more values, whose text is their mean with its spread."""
    found = summary(values)
    return Measured(brief(found) if text is None else text, found, unit)


def brief(found: Summary) -> str:
    """A mean with its standard deviation and interval, as far as there are any."""
    if found.sd is None:
        return f"{found.mean:.2f}"
    inside = f"n = {found.n}"
    if found.low is not None:
        inside += f", 95 % interval {found.low:.2f} to {found.high:.2f}"
    return f"{found.mean:.2f} ± {found.sd:.2f} ({inside})"


@dataclass(frozen=True)
class PValue:
    """A cell of a table that holds a p-value; in CSV files it is the number."""

    p: float

    def __str__(self) -> str:
        return p_in_words(self.p)


Cell = str | Measured | PValue


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: of its files, without the ending.
        folded: on the page, the line to open it by; empty if it is open.
    """

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: str = ""


@dataclass(frozen=True)
class Shown:
    """A part that the page shows in a way of its own.

    Attributes:
        markdown: for report.md.
        page: HTML for the page.
    """

    markdown: str
    page: str


Part = str | Table | Shown


def markdown_of(parts: Iterable[Part]) -> str:
    """The report as Markdown."""
    return "\n".join(_markdown(part) for part in parts)


def _markdown(part: Part) -> str:
    match part:
        case Table():
            return table(part.header, [[str(cell) for cell in row] for row in part.rows])
        case Shown():
            return part.markdown
        case _:
            return part


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make a Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), line(["---"] * len(header)), *map(line, rows)]) + "\n"


def plain(cell: str) -> str:
    """A cell's text without Markdown's marks."""
    return re.sub(r"\*\*|`", "", cell)
