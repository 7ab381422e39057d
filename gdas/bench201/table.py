"""The table of NAS-Bench-201: the accuracy of each of the 15,625 cells, from the user's CSV file.

The column `architecture` has every cell once, as a string; a column for each of ACCURACIES has
percentages. Other columns are not read. In memory a cell is its number, so that the table is a few
arrays.

Shapes: N cells, ordered by their number.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gdas.bench201.functions import FUNCTIONS, functions_N
from gdas.bench201.genotype import (
    ACCURACIES,
    CELLS,
    CLASSES,
    Accuracy,
    Bench201Genotype,
    bench201_cell,
    bench201_from_string,
)
from gdas.data.settings import TableData
from gdas.errors import InputError, one_line
from gdas.files import sha256_of

ARCHITECTURE = "architecture"
FETCH = (
    "python -m gdas.bench201.extract FILE makes it from the public benchmark, with columns "
    f"{', '.join((ARCHITECTURE, *ACCURACIES))}"
)
MAX_BYTES = 1 << 26


class Standing(NamedTuple):
    """A cell's rank among all cells, and its function's among all functions.

    Attributes:
        accuracy: in percent.
        rank: 1 plus the number of better cells, of all 15,625.
        percentile: the percentage of all cells that are worse, with half of the equal ones; 50 on
            average for a uniformly drawn cell.
        regret: the best cell's accuracy minus this one's, in percentage points.
        function_percentile: the percentage of the 5,044 functions that are worse than this cell's,
            with half of the equal ones. A function's accuracy is the mean of its cells', so that
            cells that compute the same count once (`gdas.bench201.functions`).
    """

    accuracy: float
    rank: int
    percentile: float
    regret: float
    function_percentile: float


class Reference(NamedTuple):
    """What a search is compared with, in percent; exact, from the table alone.

    Attributes:
        uniform: mean accuracy of a uniformly drawn cell, of all 15,625.
        best_of: mean accuracy of the best of several uniformly drawn cells, of all 15,625.
        best: accuracy of the best cell.
        best_cell: that cell; if several are equal, the one with the lowest number.
    """

    uniform: float
    best_of: float
    best: float
    best_cell: Bench201Genotype


class Table:
    """The accuracies of all cells.

    Args:
        accuracies: N values for every column.
    """

    def __init__(self, accuracies: dict[Accuracy, NDArray[np.float64]]) -> None:
        self._accuracies = accuracies
        self._sorted = {column: np.sort(values_N) for column, values_N in accuracies.items()}
        self._of_functions: dict[Accuracy, NDArray[np.float64]] = {}

    def accuracies_N(self, column: Accuracy) -> NDArray[np.float64]:
        """All accuracies in a column, by cell number."""
        return self._accuracies[column]

    def standing(self, genotype: Bench201Genotype, column: Accuracy) -> Standing:
        """Look up a cell."""
        ordered_N = self._sorted[column]
        accuracy = self._accuracies[column][genotype.number]
        worse = int(np.searchsorted(ordered_N, accuracy, side="left"))
        not_better = int(np.searchsorted(ordered_N, accuracy, side="right"))
        return Standing(
            float(accuracy),
            CELLS - not_better + 1,
            100.0 * (worse + not_better) / (2 * CELLS),
            float(ordered_N[-1] - accuracy),
            float(self.function_percentiles_N(column)[genotype.number]),
        )

    def function_percentiles_N(self, column: Accuracy) -> NDArray[np.float64]:
        """For every cell, by number, the percentile of its function among all functions."""
        if column not in self._of_functions:
            function_N = functions_N()
            sums_F = np.bincount(function_N, weights=self._accuracies[column])
            # Rounded, so that means of equal accuracies are equal.
            mean_F = np.round(sums_F / np.bincount(function_N), 9)
            ordered_F = np.sort(mean_F)
            worse_F = np.searchsorted(ordered_F, mean_F, side="left")
            not_better_F = np.searchsorted(ordered_F, mean_F, side="right")
            percentile_F = 100.0 * (worse_F + not_better_F) / (2 * FUNCTIONS)
            self._of_functions[column] = percentile_F[function_N]
        return self._of_functions[column]

    def reference(self, k: int, column: Accuracy) -> Reference:
        """The mean of a uniformly drawn cell, of the best of `k` such cells, and the best of all.

        Raises:
            ValueError: `k` < 1.
        """
        best = bench201_cell(int(self._accuracies[column].argmax()))
        return Reference(
            self.expected_of_best(1, column),
            self.expected_of_best(k, column),
            float(self._sorted[column][-1]),
            best,
        )

    def expected_of_best(
        self, k: int, column: Accuracy, *, judged_by: Accuracy | None = None
    ) -> float:
        """The mean accuracy of the best of `k` independent, uniformly drawn cells, exactly.

        Args:
            k: 1 gives the mean over all cells.
            judged_by: the column that decides which is best; None: the same. Equal cells are
                equally likely to be chosen.

        Raises:
            ValueError: `k` < 1.
        """
        if k < 1:
            raise ValueError(f"k={k}: must be 1 or more")
        judge_N = self._accuracies[column if judged_by is None else judged_by]
        _, group_N, counts_G = np.unique(judge_N, return_inverse=True, return_counts=True)
        mean_G = np.bincount(group_N, weights=self._accuracies[column]) / counts_G
        # The best is in group g or below if all k cells are.
        below_G = (np.cumsum(counts_G) / CELLS) ** k
        return float(np.diff(below_G, prepend=0.0) @ mean_G)

    def correlation(
        self, genotypes: Sequence[Bench201Genotype], scores: Sequence[float], column: Accuracy
    ) -> float | None:
        """Spearman's rank correlation of scores (higher is better) with a column's accuracies."""
        accuracies = self._accuracies[column][[genotype.number for genotype in genotypes]]
        return spearman(scores, accuracies.tolist())


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation: Pearson's of the ranks; equal values share their mean rank.

    Returns:
        None if it is not defined: all values of a side are equal.

    Raises:
        ValueError: the sides differ in length, or are empty.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"{len(a)} and {len(b)} values: must be equally many, at least one")
    from scipy.stats import spearmanr  # it takes a second to import

    if len(set(a)) == 1 or len(set(b)) == 1:
        return None
    return float(spearmanr(a, b).statistic)


def table_path(data: TableData, folder: Path) -> Path:
    """Where a table is, in the folder of the data sets."""
    return folder / data.name / f"{data.name}.csv"


def table_identity(data: TableData, folder: Path) -> str:
    """A table's checksum, which enters the id of every job that reads it.

    Raises:
        InputError: the file cannot be read.
    """
    path = table_path(data, folder)
    try:
        return sha256_of(path)
    except OSError as error:
        raise InputError(f"{path}: cannot read the table ({error.strerror}); {FETCH}") from None


def read_table(path: str | os.PathLike[str]) -> Table:
    """Read and check the CSV file.

    Raises:
        InputError: it cannot be read, a column is missing, a value is not a percentage, or a cell
            is unknown, repeated or missing. The error names file, line and column.
    """
    path = Path(path)
    values = {column: np.empty(CELLS) for column in ACCURACIES}
    line_of_N = np.zeros(CELLS, np.int64)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{path}: larger than {MAX_BYTES} bytes, not a NAS-Bench-201 table; it must be a "
                f"CSV file with columns {', '.join((ARCHITECTURE, *ACCURACIES))}"
            )
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line, row in _rows(file, path):
                where = f"{path}, line {line}"
                cell = bench201_from_string(row[ARCHITECTURE], where=f"{where}, {ARCHITECTURE}")
                if line_of_N[cell.number]:
                    raise InputError(
                        f"{where}, {ARCHITECTURE}: {cell} is in line {line_of_N[cell.number]} too; "
                        "leave one line for every cell"
                    )
                line_of_N[cell.number] = line
                for column in ACCURACIES:
                    values[column][cell.number] = _percent(row[column], f"{where}, {column}")
    except OSError as error:
        raise InputError(f"{path}: cannot read the table ({error.strerror}); {FETCH}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: not a CSV file ({one_line(error, 200)}); save it as UTF-8 text, with commas"
        ) from None
    if not line_of_N.all():
        first = bench201_cell(int(line_of_N.argmin()))
        raise InputError(
            f"{path}: {np.count_nonzero(line_of_N)} of the {CELLS} cells; the first that is "
            f"missing is {first}; extract it again"
        )
    for column, values_N in values.items():
        if 0 < values_N.max() <= 1:
            raise InputError(
                f"{path}, {column}: no value is above 1 (the largest is {values_N.max():g}): these "
                "are fractions; accuracies must be in percent, so multiply them by 100"
            )
    return Table(values)


def check_chance(table: Table, path: Path) -> None:
    """Refuse a table whose numbers cannot be what its titles say.

    The cell of which every edge is `none` can only guess, and no cell is much worse than guessing.
    So a column of another data set, errors in place of accuracies and fractions show.

    Raises:
        InputError: names the column and the cell.
    """
    for column, classes in CLASSES.items():
        chance, values_N = 100 / classes, table.accuracies_N(column)
        lowest, guess = int(values_N.argmin()), float(values_N[0])
        if values_N[lowest] < chance / 2:
            raise InputError(
                f"{path}, {column}: {bench201_cell(lowest)} has {values_N[lowest]:g}, and guessing "
                f"gives {chance:.3g}; must be accuracies in percent, so multiply fractions by 100, "
                "subtract errors from 100, and see that the column is of its data set"
            )
        if guess > 2 * chance:
            raise InputError(
                f"{path}, {column}: {bench201_cell(0)} can only guess and has {guess:g}, not "
                f"{chance:.3g}; must be accuracies in percent of that data set, so subtract errors "
                "from 100, and see that the column is not another one's"
            )


def _rows(lines: Iterable[str], path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, {column: text}) of every row below the header; empty lines are skipped."""
    rows = csv.reader(lines, skipinitialspace=True)
    header = next(rows, [])
    for column in (ARCHITECTURE, *ACCURACIES):
        if header.count(column) != 1:
            count = "no" if column not in header else "more than one"
            titles = one_line(", ".join(header), 200) or "nothing"
            raise InputError(
                f"{path}, line 1: {count} column {column!r}, it has {titles}; titles must be "
                f"{','.join((ARCHITECTURE, *ACCURACIES))}, in any order, with commas between"
            )
    for row in rows:
        if not row:
            continue
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {rows.line_num}: {len(row)} values for {len(header)} columns; must "
                "be one for each, with commas between"
            )
        yield rows.line_num, dict(zip(header, row, strict=True))


def _percent(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise InputError(
            f"{where}: {text[:40]!r} is not a number from 0 to 100; must be percent, such as 91.5"
        )
    return value
