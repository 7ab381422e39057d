"""Variance components and the rank test, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from orchestrator.report.statistics import permutation_p, rank_p, spread


def test_variance_components_by_hand() -> None:
    # Means 2, 6, 10 with variance 16: mean squares 2 x 16 between and 6/3 within.
    found = spread([[1, 3], [5, 7], [9, 11]])
    assert found is not None and (found.groups, found.each) == (3, 2)
    assert found.between == pytest.approx(math.sqrt((32 - 2) / 2))
    assert found.within == pytest.approx(math.sqrt(2))
    assert found.correlation == pytest.approx(15 / 17)
    # The ratio is 16. F with 2 and 3 degrees of freedom has 16.04 and 1 / 39.17 (F with 3 and 2)
    # as its 97.5 % and 2.5 % points, by the tables.
    assert found.low == 0.0
    assert found.high == pytest.approx((16 * 39.17 - 1) / (16 * 39.17 + 1), abs=1e-5)
    assert found.of_means(2) == pytest.approx(4), "the standard deviation of 2, 6, 10"
    assert found.of_means(1) == pytest.approx(math.sqrt(17))


def test_cells_that_do_not_differ_have_no_spread_between_them() -> None:
    found = spread([[1, 3], [3, 1], [2, 2]])
    assert found is not None and found.between == found.correlation == found.low == 0
    assert found.within == pytest.approx(math.sqrt(4 / 3))


def test_a_spread_needs_two_cells_with_two_trainings_that_differ() -> None:
    assert spread([]) is None
    assert spread([[1, 2]]) is None
    assert spread([[1], [2]]) is None
    assert spread([[2, 2], [2, 2]]) is None
    with pytest.raises(ValueError, match="equally many"):
        spread([[1, 2], [3]])


def test_ranks_share_ties_and_are_not_swayed_by_one_extreme_value() -> None:
    assert rank_p([3, 4], [1, 2], "higher") == pytest.approx(1 / 6)
    assert rank_p([1, 2], [3, 4], "lower") == pytest.approx(1 / 6)
    # Ranks 2.5 against 1 and 2.5: two of the three have at least 2.5.
    assert rank_p([2], [1, 2], "higher") == pytest.approx(2 / 3)
    one, other = [5.0, 6.0, 7.0], [-900.0, 5.5, 8.0, 6.5]
    assert rank_p(one, other, "higher") == rank_p(one, [4.0, *other[1:]], "higher")
    assert permutation_p(one, other, "higher") < rank_p(one, other, "higher")
