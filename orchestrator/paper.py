"""The paper's Tables 1 to 5 as data. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gdas.errors import InputError

Row = dict[str, Any]


class Measure(NamedTuple):
    """A column that a final can stand beside.

    Attributes:
        title: what it is called.
        unit: "%" or nothing.
        data: the data set it is measured on.
        last: our figure after the last epoch, from a final's result.
        best: (figure, epoch) of the best epoch on the test set; None where the paper has no such.
    """

    title: str
    unit: str
    data: str
    last: Callable[[dict[str, Any]], float]
    best: Callable[[dict[str, Any]], tuple[float, int]] | None = None


def _error(title: str, data: str) -> Measure:
    return Measure(
        title,
        "%",
        data,
        lambda result: 100 - float(result["metrics"]["test/top1"]),
        lambda result: (100 - float(result["best"]["test/top1"]), int(result["best"]["epoch"])),
    )


def _perplexities(data: str) -> dict[str, Measure]:
    return {
        "ppl_val": Measure(
            "validation perplexity", "", data, lambda r: float(r["best"]["valid/perplexity"])
        ),
        "ppl_test": Measure(
            "test perplexity", "", data, lambda r: float(r["metrics"]["test/perplexity"])
        ),
    }


MEASURES: dict[int, dict[str, Measure]] = {
    1: {
        "err_c10": _error("test error, CIFAR-10", "cifar10"),
        "err_c100": _error("test error, CIFAR-100", "cifar100"),
    },
    3: _perplexities("ptb"),
    4: _perplexities("wikitext2"),
    5: {"err_c10": _error("test error, CIFAR-10", "cifar10")},
}
"""Table to the columns that this project measures."""


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


def find_row(table: int, method: str, columns: Sequence[str]) -> Row:
    """The paper's row for a final.

    Raises:
        InputError: no such table, row or column, or one that is not measured here.
    """
    if table not in MEASURES:
        measured = ", ".join(map(str, MEASURES))
        raise InputError(f"row.table={table}: finals can stand beside rows of tables {measured}")
    for column in columns:
        if column not in MEASURES[table]:
            known = ", ".join(MEASURES[table])
            raise InputError(f"row.columns: {column}: measured for table {table} are {known}")
    rows = tables()[table]["rows"]
    for row in rows:
        if name_of(row) == method:
            return dict(row)
    names = ", ".join(name_of(row) for row in rows)
    raise InputError(f"row.method={method}: not in table {table}, which has {names}")
