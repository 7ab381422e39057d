"""NAS-Bench-201: the table of all cells, a cell's place in it, and what is refused."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from gdas.bench201.genotype import (
    ACCURACIES,
    CELLS,
    all_bench201_cells,
    bench201_cell,
    bench201_from_string,
)
from gdas.bench201.table import Table, read_table, spearman, table_path
from gdas.data.settings import TableData
from gdas.errors import InputError
from tests.gdas.tiny_bench201 import BEST, MIXED

# The table

HEADER = ["index", "architecture", *ACCURACIES]


def table_rows() -> list[list[str]]:
    """Cells in a shuffled order. Columns by number: rising; falling; three classes; ..."""
    order = np.random.default_rng(0).permutation(CELLS)
    rows = []
    for index, number in enumerate(int(n) for n in order):
        classes = 10.0 if number < 5000 else 50.0 if number < 15_000 else 90.0
        values = [number / 200, 80 - number / 200, classes, 5.0, number % 2 * 10.0]
        rows.append([str(index), str(bench201_cell(number)), *map(repr, values)])
    return rows


ROWS = table_rows()


def write_table(path: Path, rows: list[list[str]]) -> Path:
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return read_table(write_table(tmp_path_factory.mktemp("table") / "t.csv", [HEADER, *ROWS]))


def test_a_cells_standing_is_its_place_among_all(table: Table) -> None:
    accuracy, rank, percentile, regret, _ = table.standing(
        bench201_cell(15_000), "cifar10_test_200"
    )
    assert (accuracy, rank) == (75.0, 625)
    assert percentile == pytest.approx(100 * 15_000.5 / 15_625)
    assert regret == pytest.approx(624 / 200)
    assert table.standing(bench201_cell(0), "cifar100_test_200")[1] == 1
    assert table.standing(bench201_cell(15_624), "cifar100_test_200")[1] == 15_625
    # Ties: 5,000 of 10 %, 10,000 of 50 %, 625 of 90 %.
    tied = table.standing(bench201_cell(6000), "imagenet16_120_test_200")
    assert tied[:2] == (50.0, 626) and tied.regret == 40.0
    assert tied.percentile == pytest.approx(100 * (5000 + 5000) / 15_625)
    assert table.standing(bench201_cell(3), "cifar10_valid_12") == (5.0, 1, 50.0, 0.0, 50.0)


def test_reference_values_are_exact(table: Table) -> None:
    column: Literal["imagenet16_120_test_200"] = "imagenet16_120_test_200"
    low, high = 5000 / 15_625, 625 / 15_625
    found = table.reference(1, column)
    assert found.uniform == found.best_of == pytest.approx(10 * low + 90 * high + 50 * 0.64)
    none_high, all_low = (1 - high) ** 7, low**7
    best_of_7 = 10 * all_low + 50 * (none_high - all_low) + 90 * (1 - none_high)
    found = table.reference(7, column)
    assert found.best_of == pytest.approx(best_of_7)
    assert found.best == 90.0
    assert found.best_cell.number == 15_000
    # All pairs, written out.
    values = table.accuracies_N("cifar10_test_200")
    pairs = np.arange(CELLS) * 2 + 1
    assert table.expected_of_best(2, "cifar10_test_200") == pytest.approx(
        float((values * pairs).sum()) / CELLS**2
    )
    with pytest.raises(ValueError, match="k=0"):
        table.expected_of_best(0, column)


def test_the_best_may_be_judged_by_another_column(table: Table) -> None:
    # Best by what falls: the opposite order.
    of_two = table.expected_of_best(2, "cifar10_test_200", judged_by="cifar100_test_200")
    best_of_two = table.expected_of_best(2, "cifar10_test_200")
    assert of_two + best_of_two == pytest.approx(2 * 7812 / 200)
    # A judge to whom all are equal picks uniformly.
    assert table.expected_of_best(9, "cifar10_test_200", judged_by="cifar10_valid_12") == (
        pytest.approx(7812 / 200)
    )


def test_the_order_of_columns_and_others_beside_them_do_not_matter(tmp_path: Path) -> None:
    rows = [[*row[:0:-1], "", "x"] for row in [HEADER, *ROWS]]
    path = tmp_path / "t.csv"
    path.write_text("\ufeff" + "\n".join(",".join(row) for row in rows) + "\n\n")
    table = read_table(path)
    assert table.standing(bench201_cell(15_000), "cifar10_test_200").rank == 625


def changed(line: int, column: str, value: str) -> list[list[str]]:
    rows = [list(row) for row in [HEADER, *ROWS[:10]]]
    rows[line - 1][HEADER.index(column)] = value
    return rows


BAD: dict[str, tuple[list[list[str]], str]] = {
    "no column": (changed(1, "cifar10_valid_12", "x"), "line 1: no column 'cifar10_valid_12'"),
    "a column twice": (changed(1, "index", "architecture"), "line 1: more than one column"),
    "no number": (changed(3, "cifar10_test_12", "good"), "line 3, cifar10_test_12: 'good'"),
    "empty": (changed(4, "cifar100_test_200", ""), "line 4, cifar100_test_200: ''"),
    "nan": (changed(4, "cifar100_test_200", "nan"), "line 4, cifar100_test_200: 'nan'"),
    "over 100": (changed(2, "cifar10_test_200", "100.1"), "line 2, cifar10_test_200: '100.1'"),
    "below 0": (changed(2, "cifar10_test_200", "-1"), "line 2, cifar10_test_200: '-1'"),
    "unknown operation": (
        changed(5, "architecture", MIXED.replace("none", "x")),
        "line 5, architecture: unknown operation 'x'",
    ),
    "not a cell": (changed(5, "architecture", "|none~0|"), "line 5, architecture: .*form"),
    "a cell twice": (changed(7, "architecture", ROWS[1][1]), "line 7, architecture: .*line 3 too"),
    "a value too many": ([HEADER, [*ROWS[0], "1"]], "line 2: 8 values for 7 columns"),
    "a value too few": ([HEADER, ROWS[0], ROWS[1][:6]], "line 3: 6 values for 7 columns"),
    "cells missing": ([HEADER, *ROWS[:100]], "100 of the 15625 cells"),
    "empty file": ([], "line 1: no column 'architecture'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_refused_naming_file_line_and_column(case: str, tmp_path: Path) -> None:
    rows, fault = BAD[case]
    path = write_table(tmp_path / "t.csv", rows)
    with pytest.raises(InputError, match=fault) as caught:
        read_table(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_table_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with pytest.raises(InputError, match=r"t\.csv: cannot read"):
        read_table(path)
    with pytest.raises(InputError, match="cannot read"):
        read_table(tmp_path)
    path.write_bytes(b"index,architecture\xff\xfe\n")
    with pytest.raises(InputError, match=r"t\.csv: not a CSV file"):
        read_table(path)
    path.write_text("x" * 200_000)
    with pytest.raises(InputError, match=r"t\.csv: not a CSV file"):
        read_table(path)
    with path.open("wb") as file:
        file.truncate((1 << 26) + 1)
    with pytest.raises(InputError, match="larger than"):
        read_table(path)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 1000], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        # Ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4: 4.5 / sqrt(4.5 * 5).
        ([1, 2, 2, 3], [1, 3, 2, 4], 4.5 / 22.5**0.5),
        # Ranks 2, 2, 2, 4, 5 and 5, 3.5, 3.5, 1.5, 1.5: -7.5 / sqrt(8 * 9).
        ([7, 7, 7, 8, 9], [3, 2, 2, 1, 1], -7.5 / 72**0.5),
        ([1, 1, 1], [1, 2, 3], None),
        ([5], [6], None),
    ],
)
def test_rank_correlation_is_that_of_the_definition(
    a: list[float], b: list[float], expected: float | None
) -> None:
    found = spearman(a, b)
    assert found == (expected if expected is None else pytest.approx(expected))
    assert spearman(b, a) == found


def test_scores_are_correlated_with_the_tables_accuracies(table: Table) -> None:
    cells = [bench201_cell(n) for n in (9, 400, 20, 15_000)]
    assert table.correlation(cells, [1, 3, 2, 9], "cifar10_test_200") == pytest.approx(1.0)
    assert table.correlation(cells, [1, 3, 2, 9], "cifar100_test_200") == pytest.approx(-1.0)
    with pytest.raises(ValueError, match="4 and"):
        spearman([1.0, 2.0, 3.0, 4.0], [1.0])
    with pytest.raises(ValueError, match="at least one"):
        spearman([], [])


@pytest.mark.skipif("GDAS_DATA" not in os.environ, reason="GDAS_DATA names no folder of data")
def test_the_benchmarks_best_cell_is_found_by_its_string() -> None:
    """In the real table. 94.373 to three digits is the accuracy of two cells."""
    table = read_table(table_path(TableData(), Path(os.environ["GDAS_DATA"])))
    found = table.standing(bench201_from_string(BEST), "cifar10_test_200")
    assert (round(found.accuracy, 2), found.rank, found.regret) == (94.37, 1, 0.0)
    assert found.percentile == pytest.approx(100 * (CELLS - 1) / CELLS)
    tied = BEST.replace("3x3~1|nor_conv_1x1~2", "1x1~1|nor_conv_3x3~2")
    best = table.reference(1, "cifar10_test_200").best_cell
    assert str(best) in (BEST, tied)
    began = time.perf_counter()
    for cell in all_bench201_cells():
        table.standing(cell, "cifar10_test_200")
    assert (time.perf_counter() - began) / CELLS < 1e-3, "a lookup is instant"
