"""A search against the other ways, seed by seed, corrected for all comparisons together."""

from __future__ import annotations

import pytest

from orchestrator.report.paired import Way, contests, contests_table
from orchestrator.report.parts import Table
from orchestrator.report.statistics import holm

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
