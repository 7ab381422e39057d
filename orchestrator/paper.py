"""The paper's Tables 1 to 5 as data. Pure."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from gdas.errors import InputError

Row = dict[str, Any]

MEASURES = {
    "err_c10": ("test error, CIFAR-10", "%"),
    "err_c100": ("test error, CIFAR-100", "%"),
    "err_top1": ("top-1 error, ImageNet", "%"),
    "err_top5": ("top-5 error, ImageNet", "%"),
    "ppl_val": ("validation perplexity", ""),
    "ppl_test": ("test perplexity", ""),
}
"""The columns that a final can stand beside: what they are called, and their unit."""


@cache
def tables() -> dict[int, dict[str, Any]]:
    """Table number to its title and rows, as printed."""
    path = Path(__file__).with_name("paper_tables.yaml")
    loaded: dict[int, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def name_of(row: Row) -> str:
    """What a row is called, whichever table it is in."""
    if "method" in row:
        return str(row["method"])
    if "architecture" in row:
        return str(row["architecture"])
    return f"{row['normal']} + {row['reduction']}"


def find_row(table: int, method: str, column: str) -> Row:
    """The paper's row for a final.

    Raises:
        InputError: no such table, row or column.
    """
    if table not in tables():
        raise InputError(f"row.table={table}: the paper has tables 1 to 5")
    rows = tables()[table]["rows"]
    for row in rows:
        if name_of(row) == method:
            if column not in MEASURES or column not in row:
                columns = [key for key in row if key in MEASURES]
                raise InputError(f"row.column={column}: table {table} has {', '.join(columns)}")
            return dict(row)
    names = ", ".join(name_of(row) for row in rows)
    raise InputError(f"row.method={method}: not in table {table}, which has {names}")
