"""A search against the other ways, seed by seed, corrected for all comparisons together."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from orchestrator.report.comparison import compare
from orchestrator.report.paired import Way, contests, contests_table
from orchestrator.report.parts import Table
from orchestrator.report.statistics import holm, p_is
from orchestrator.report.table_files import csv_of

CELLS = [1] * 100  # a hundred cells, all of them different


def test_holm_corrects_as_its_author_does() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]


def test_ways_are_paired_by_seed_and_too_few_pairs_are_left_out() -> None:
    first = Way("ours", {seed: 80.0 + seed for seed in range(8)})
    by_seed = Way("theirs", {seed: 70.0 + seed for seed in (7, 6, 5, 4, 3, 2, 1, 0)})
    few = Way("hardly run", {0: 1.0, 1: 2.0})
    of_uniform, against = contests(first, [by_seed, few], CELLS)
    assert against.name == "theirs" and against.gain.n == 8
    assert against.gain.mean == pytest.approx(10) and against.gain.sd == pytest.approx(0)
    assert against.p == pytest.approx(1 / 2**8)
    assert of_uniform.gain.mean == pytest.approx(33.5) and 0 < of_uniform.p < 0.001


def test_the_table_says_better_only_if_the_corrected_p_says_so() -> None:
    first = Way("ours", {seed: 80.0 + seed for seed in range(5)})
    close = Way("close", {seed: 80.0 + seed + (-1) ** seed for seed in range(5)})
    worse = Way("worse", {seed: 70.0 + seed for seed in range(5)})
    none = Way("none", {})
    table = next(
        part
        for part in contests_table("a column", first, [close, worse, none], CELLS)
        if isinstance(part, Table)
    )
    rows = {str(row[0]): [str(cell) for cell in row[1:]] for row in table.rows}
    assert rows["uniform draws from all cells"][-1] == "yes"
    assert rows["close"][-1] == "not shown"
    # 1/32 alone is below 0.05, but there are three comparisons
    assert rows["worse"][2:] == ["0.0312", "0.0625", "not shown"]
    assert rows["none"][0] == "not run"
    assert contests_table("a column", Way("ours", {0: 90.0}), [worse], CELLS) == []


def test_a_p_below_a_ten_thousandth_is_never_shown_as_zero() -> None:
    first = Way("ours", dict.fromkeys(range(16), 99.0))
    other = Way("theirs", dict.fromkeys(range(16), 50.0))
    shown = contests_table("a column", first, [other], CELLS)
    table = next(part for part in shown if isinstance(part, Table))
    assert [str(cell) for cell in table.rows[0][3:]] == ["< 0.0001", "< 0.0001", "yes"]
    assert [str(cell) for cell in table.rows[1][3:]] == ["< 0.0001", "< 0.0001", "yes"]
    exact = contests(first, [other], CELLS)[1].p
    assert exact == 1 / 2**16
    files = list(csv.DictReader(io.StringIO(csv_of(table))))
    assert float(files[1]["p"]) == exact and float(files[1]["corrected p"]) == exact
    found = compare([90.0 + i for i in range(10)], [10.0 + i for i in range(10)], "higher")
    assert found.sentence.endswith("better by 80.00, p < 0.0001.")
    assert p_is(0.01234) == "p = 0.0123" and p_is(0.0001) == "p = 0.0001"


def test_reports_format_a_p_in_one_place() -> None:
    sources = sorted((Path(__file__).parents[2] / "orchestrator" / "report").rglob("*.py"))
    by_hand = re.compile(r"\bp = \{|\{(\w+\.)*p:|_p\([^{}]*\):\.")
    found = [p.name for p in sources for line in p.read_text().splitlines() if by_hand.search(line)]
    assert found == ["statistics.py"] * 2, "in p_in_words and p_is"
