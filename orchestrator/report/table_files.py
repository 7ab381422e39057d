"""Every table of the report as a CSV file and as LaTeX, in OUT/report/tables/.

In a CSV file, a column of measured numbers is seven columns: the text, then mean, sd, n, low and
high (the 95 % interval) as numbers, and the unit. A p-value is the number, however small.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from gdas.files import write_text
from orchestrator.report.parts import Cell, Measured, Part, PValue, Table, plain

NUMBERS = ("mean", "sd", "n", "low", "high", "unit")
FOLDER = "tables"
TEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "<": r"$<$", ">": r"$>$", "|": r"$|$"},
}


def write_tables(parts: Iterable[Part], folder: Path) -> list[str]:
    """Write every table into `folder`/tables, in place of those of an earlier report.

    Returns:
        The names of the files, CSV first.
    """
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    (folder / FOLDER).mkdir()
    names = []
    for part in parts:
        if isinstance(part, Table) and part.rows:
            assert f"{part.name}.csv" not in names, f"two tables are called {part.name}"
            write_text(folder / FOLDER / f"{part.name}.csv", csv_of(part))
            write_text(folder / FOLDER / f"{part.name}.tex", latex_of(part))
            names.append(f"{part.name}.csv")
    return [*names, *(name.replace(".csv", ".tex") for name in names)]


def csv_of(table: Table) -> str:
    """A table as CSV."""
    numeric = [
        any(isinstance(row[i], Measured) for row in table.rows) for i in range(len(table.header))
    ]
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    header: list[str] = []
    for title, numbers in zip(table.header, numeric, strict=True):
        name = title or "whose"
        header += [name, *(f"{name}: {word}" for word in NUMBERS)] if numbers else [name]
    write(header)
    for row in table.rows:
        line: list[str] = []
        for cell, numbers in zip(row, numeric, strict=True):
            line.append(_text(cell))
            line += _numbers(cell) if numbers else []
        write(line)
    return out.getvalue()


def _text(cell: Cell) -> str:
    return repr(cell.p) if isinstance(cell, PValue) else plain(str(cell))


def _numbers(cell: Cell) -> list[str]:
    """Mean, sd, n, low, high and unit; empty where there is none."""
    if isinstance(cell, Measured):
        values = (cell.of.mean, cell.of.sd, cell.of.n, cell.of.low, cell.of.high)
        return [*("" if value is None else repr(value) for value in values), cell.unit]
    try:
        return [repr(float(_text(cell))), "", "", "", "", ""]
    except ValueError:
        return [""] * len(NUMBERS)


def latex_of(table: Table) -> str:
    """A table as LaTeX, for the package booktabs."""

    def line(cells: Sequence[object]) -> str:
        return " & ".join(_escaped(plain(str(cell))) for cell in cells) + r" \\"

    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            f"\\begin{{tabular}}{{{'l' * len(table.header)}}}",
            "\\toprule",
            line(table.header),
            "\\midrule",
            *map(line, table.rows),
            "\\bottomrule",
            "\\end{tabular}",
            "",
        ]
    )


def _escaped(text: str) -> str:
    return "".join(TEX.get(c, c) for c in text)
