"""The paper's Tables 1 to 5 as data. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gdas.errors import InputError

Row = dict[str, Any]
OPERATIONS = 8
"""Of an edge in the paper, so that an iteration without the acceleration costs so many times more
(section 3.2). Its own statement, whatever is searched here."""


class Measure(NamedTuple):
    """A column of a table that a final can be compared with.

    Attributes:
        title: its name in the report.
        unit: "%" or nothing.
        data: the data set it is measured on.
        metric: the final's metric that it is; if the unit is "%", it is 100 minus that.
    """

    title: str
    unit: str
    data: str
    metric: str


def _error(title: str, data: str, top: str = "top1") -> Measure:
    return Measure(title, "%", data, f"test/{top}")


def _perplexities(data: str) -> dict[str, Measure]:
    return {
        "ppl_val": Measure("validation perplexity", "", data, "valid/perplexity"),
        "ppl_test": Measure("test perplexity", "", data, "test/perplexity"),
    }


MEASURES: dict[int, dict[str, Measure]] = {
    1: {
        "err_c10": _error("test error, CIFAR-10", "cifar10"),
        "err_c100": _error("test error, CIFAR-100", "cifar100"),
    },
    2: {
        "err_top1": _error("top-1 error", "imagenet"),
        "err_top5": _error("top-5 error", "imagenet", "top5"),
    },
    3: _perplexities("ptb"),
    4: _perplexities("wikitext2"),
    5: {"err_c10": _error("test error, CIFAR-10", "cifar10")},
}
"""For every table, the columns that this project measures."""


COUNTS = {"params_m": "M parameters", "macs_m": "M multiply-adds"}
"""Columns that are counted from a network, not measured on data, with their titles."""
COUNTED: dict[int, tuple[str, ...]] = {
    1: ("params_m",),
    2: ("params_m", "macs_m"),
    3: ("params_m",),
    4: ("params_m",),
    5: ("params_m",),
}
"""For every table, its counted columns."""


def not_run(table: int, row: Row) -> str | None:
    """Why we have no line for a row that GDAS's authors measured; None for rows that they quote."""
    name = name_of(row)
    if table == 5 or name.startswith("GDAS"):
        return "not in this experiment"
    if name == "AmoebaNet-A + CutOut":
        return "its CIFAR-100 figure is the GDAS authors'; the cell is not known here"
    if name == "DARTS (2nd) + CutOut":
        return "its CIFAR-100 figure is the GDAS authors'; not in this experiment"
    return None


@cache
def tables() -> dict[int, dict[str, Any]]:
    """The tables by number, each with its title and rows as printed."""
    path = Path(__file__).with_name("tables.yaml")
    loaded: dict[int, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def name_of(row: Row) -> str:
    """A row's name, whichever table it is in."""
    if "method" in row:
        return str(row["method"])
    if "architecture" in row:
        return str(row["architecture"])
    return f"{row['normal']} + {row['reduction']}"


def find_row(table: int, method: str, columns: Sequence[str]) -> Row:
    """The paper's row for a final.

    Args:
        columns: the columns that the final is compared in.

    Raises:
        InputError: there is no such table, row or column, or it is not measured here.
    """
    if table not in MEASURES:
        measured = ", ".join(map(str, MEASURES))
        raise InputError(
            f"row.table={table}: finals stand beside rows of tables {measured}; use one"
        )
    for column in columns:
        if column not in MEASURES[table]:
            known = ", ".join(MEASURES[table])
            raise InputError(
                f"row.columns: {column} is not measured for table {table}; use {known}"
            )
    rows = tables()[table]["rows"]
    for row in rows:
        if name_of(row) == method:
            return dict(row)
    names = ", ".join(name_of(row) for row in rows)
    raise InputError(f"row.method={method}: not in table {table}; use one of {names}")
