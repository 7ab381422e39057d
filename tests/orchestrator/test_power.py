"""What a comparison of means finds, with equal and with unequal spreads; and that it says so."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest

from orchestrator.report.comparison import compare
from orchestrator.report.power import (
    Side,
    detectable,
    detectable_by_welch,
    false_positives,
    spreads_p,
    welch_p,
)

RECURRENT = Side(92.85, 8), Side(49.17, 24)  # as measured by experiments/power.yaml


def test_with_equal_spreads_it_is_students_test() -> None:
    # With many values the t test is the normal one: (1.6449 + 0.8416) standard errors.
    many = Side(3.0, 20_000)
    assert detectable(many, many) == pytest.approx(
        (1.6449 + 0.8416) * 3.0 * math.sqrt(2 / 20_000), rel=1e-3
    )
    assert detectable(many, many, power=0.5) == pytest.approx(
        1.6449 * 3.0 * math.sqrt(2 / 20_000), rel=1e-3
    )
    # With few it is more, because the spread is not known exactly: 1.155 for 10 against 10
    # (Cohen's tables, one-sided at 5 %, power 80 %).
    ten = Side(1.0, 10)
    assert detectable(ten, ten) == pytest.approx(1.155, abs=0.01)
    assert detectable_by_welch(ten, ten) == pytest.approx(detectable(ten, ten))
    assert detectable(Side(2.0, 10), Side(2.0, 10)) == pytest.approx(2 * detectable(ten, ten))
    assert false_positives(ten, Side(1.0, 4)) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="three values"):
        detectable(Side(1.0, 1), Side(1.0, 1))


def rates(a: Side, b: Side, difference: float) -> tuple[float, float]:
    """How often a pooled and Welch's t test, written out, find a difference in 20,000 studies.

    The critical values are those of printed tables, for 8 against 24 values.
    """
    draw = np.random.default_rng(7)
    ours = draw.normal(difference, a.sd, (20_000, a.n))
    theirs = draw.normal(0.0, b.sd, (20_000, b.n))
    gain = ours.mean(axis=1) - theirs.mean(axis=1)
    u, v = ours.var(axis=1, ddof=1), theirs.var(axis=1, ddof=1)
    pooled = ((a.n - 1) * u + (b.n - 1) * v) / (a.n + b.n - 2)
    found = gain / np.sqrt(pooled * (1 / a.n + 1 / b.n)) >= 1.6973  # 30 degrees of freedom
    welch = gain / np.sqrt(u / a.n + v / b.n) >= 1.86  # some 8 degrees of freedom
    return float(found.mean()), float(welch.mean())


def test_unequal_spreads_need_a_larger_difference_and_find_some_that_are_not_there() -> None:
    finds = detectable(*RECURRENT)
    assert finds == pytest.approx(72, abs=0.1)
    assert finds > 1.4 * detectable(Side(49.17, 8), Side(49.17, 24)), "not from one side's alone"
    # Counted: 4 standard errors of 20,000 studies are at most 0.014; the rest is the approximation.
    assert rates(*RECURRENT, finds)[0] == pytest.approx(0.8, abs=0.02)
    assert rates(*RECURRENT, 51)[0] < 0.62
    assert rates(*RECURRENT, 0)[0] == pytest.approx(false_positives(*RECURRENT), abs=0.015)
    assert false_positives(*RECURRENT) == pytest.approx(0.11, abs=0.005)
    assert rates(*RECURRENT, detectable_by_welch(*RECURRENT))[1] == pytest.approx(0.8, abs=0.03)
    # If the larger group has the larger spread, too few are found.
    assert false_positives(Side(1.0, 8), Side(2.0, 24)) < 0.02
    # Equally many values hardly mind.
    assert false_positives(Side(1.0, 12), Side(2.0, 12)) == pytest.approx(0.05, abs=0.005)


def test_the_f_test_and_welchs_by_hand() -> None:
    # F with 2 and 3 degrees of freedom has 16.04 as its upper 2.5 % point, by the tables.
    assert spreads_p(Side(math.sqrt(16.04), 3), Side(1.0, 4)) == pytest.approx(0.05, abs=1e-3)
    assert spreads_p(Side(1.0, 4), Side(math.sqrt(16.04), 3)) == pytest.approx(0.05, abs=1e-3)
    assert spreads_p(Side(2.0, 5), Side(2.0, 9)) == spreads_p(Side(1.0, 1), Side(2.0, 9)) == 1
    # Variances 1 and 4, n = 3: t = 2 / sqrt(5 / 3) = 1.549 with 2.941 degrees of freedom, between
    # the tables' 1.533 (90 % with 4) and 1.886 (90 % with 2).
    p = welch_p([11.0, 12.0, 13.0], [8.0, 10.0, 12.0], "higher")
    assert p is not None and 0.1 < p < 0.13
    assert welch_p([8.0, 10.0, 12.0], [11.0, 12.0, 13.0], "lower") == pytest.approx(p)
    assert welch_p([8.0, 10.0, 12.0], [11.0, 12.0, 13.0], "higher") == pytest.approx(1 - p)
    assert welch_p([1.0], [2.0, 3.0], "higher") is None
    assert welch_p([1.0, 1.0], [2.0, 2.0], "higher") is None


def test_a_comparison_says_when_its_test_does_not_hold_its_level() -> None:
    draw = Random(5)
    wide, narrow = [draw.gauss(0, 3) for _ in range(8)], [draw.gauss(0, 1) for _ in range(24)]
    found = compare(wide, narrow, "higher").unequal
    assert found is not None and found.p < 0.01 and found.false_positives > 0.1
    assert found.welch_p == welch_p(wide, narrow, "higher")
    assert compare(wide, wide[:5], "higher").unequal is None, "alike"
    assert compare(wide, narrow[:8], "higher").unequal is None, "equally many"
    assert compare(wide[:2], narrow, "higher").unequal is None, "too few to know"
