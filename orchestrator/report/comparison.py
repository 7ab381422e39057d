"""Searched cells compared with random ones, or with those of another search. Pure.

The p is that of the permutation test of means. If the two sides differ so much in spread that this
test does not hold its level, the comparison says so and has Welch's p as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.report.power import Side, false_positives, spreads_p, welch_p
from orchestrator.report.statistics import (
    FEWEST_FOR_INTERVAL,
    LEVEL,
    Better,
    Summary,
    p_in_words,
    p_is,
    permutation_p,
    summary,
    upwards,
)

TOLERANCE = 0.01
"""By how much the permutation test may miss LEVEL before a comparison says that it does."""


class Unequal(NamedTuple):
    """Two spreads that differ too much for the permutation test of means.

    Attributes:
        p: of the F test that both sides have one variance.
        false_positives: how often the permutation test would find a difference of equal means.
        welch_p: one-sided, of Welch's t test.
    """

    p: float
    false_positives: float
    welch_p: float

    @property
    def beside(self) -> str:
        """What stands beside the permutation test's p."""
        return f"Welch's test, as the spreads differ: {p_in_words(self.welch_p)}"


def unequal(searched: Sequence[float], random: Sequence[float], better: Better) -> Unequal | None:
    """What is wrong with the permutation test of these values; None if nothing is known to be.

    The spreads differ by the F test at LEVEL, and with such spreads and so many values the test
    misses its level by more than TOLERANCE. With equally many values on both sides it hardly does.
    """
    if min(len(searched), len(random)) < FEWEST_FOR_INTERVAL:
        return None
    sides = [Side(summary(values).sd or 0.0, len(values)) for values in (searched, random)]
    p, welch = spreads_p(*sides), welch_p(searched, random, better)
    if p >= LEVEL or welch is None:
        return None
    wrong = false_positives(*sides)
    return Unequal(p, wrong, welch) if abs(wrong - LEVEL) > TOLERANCE else None


@dataclass(frozen=True)
class Comparison:
    """A comparison of searched cells with random cells.

    Attributes:
        searched, random: the summary of each side; None if it was not run.
        difference: by how much the searched cells' mean is better; negative if it is worse.
        low, high: its 95 % Welch interval; None with fewer than three values on a side.
        p: from the one-sided permutation test.
        smallest_p: the least p that this many cells can give.
        unequal: what is wrong with p, if the spreads of the two sides differ too much for its test.
        sentence: what this shows, in plain words.
    """

    searched: Summary | None
    random: Summary | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    smallest_p: float | None
    unequal: Unequal | None
    sentence: str


def compare(
    searched: Sequence[float],
    random: Sequence[float],
    better: Better,
    names: tuple[str, str] = ("search", "random cells"),
) -> Comparison:
    """Compare the results of searched cells with those of random cells.

    Args:
        searched, random: one value per cell. The caller averages repeated trainings of one cell,
            whose spread is the training's noise and not the search's.
        names: what the sentence calls the two sides.
    """
    a = summary(searched) if searched else None
    b = summary(random) if random else None
    if a is None or b is None:
        missing = " and ".join(n for n, side in (("searched", a), ("random", b)) if side is None)
        sentence = f"not run: there are no results of {missing} cells."
        return Comparison(a, b, None, None, None, None, None, None, sentence)
    difference = a.mean - b.mean if better == "higher" else b.mean - a.mean
    low, high = _welch(searched, random, better)
    p = permutation_p(searched, random, better)
    smallest = 1 / math.comb(a.n + b.n, a.n)
    sentence = _sentence(a, b, difference, p, smallest, names)
    wrong = unequal(searched, random, better)
    return Comparison(a, b, difference, low, high, p, smallest, wrong, sentence)


def _welch(
    searched: Sequence[float], random: Sequence[float], better: Better
) -> tuple[float | None, float | None]:
    """The 95 % Welch interval of the searched cells' advantage."""
    from scipy.stats import ttest_ind  # it takes a second to import

    if min(len(searched), len(random)) < FEWEST_FOR_INTERVAL:
        return None, None
    ours, theirs = upwards(searched, better), upwards(random, better)
    if len(set(ours)) == len(set(theirs)) == 1:
        return ours[0] - theirs[0], ours[0] - theirs[0]
    low, high = ttest_ind(ours, theirs, equal_var=False).confidence_interval(1 - LEVEL)
    return float(low), float(high)


def _sentence(
    a: Summary,
    b: Summary,
    difference: float,
    p: float,
    smallest: float,
    names: tuple[str, str],
) -> str:
    one, other = names
    means = f"mean {a.mean:.2f} (n = {a.n}) against {b.mean:.2f} (n = {b.n})"
    few = (
        f"n too small: with {a.n} and {b.n} cells no p below {LEVEL} is possible (the smallest is "
        f"{smallest:.3f})"
    )
    if difference <= 0:
        also = f"; {few}" if smallest >= LEVEL else f", {p_is(p)}"
        return f"{one} is not better than {other} here: {means}{also}."
    if smallest >= LEVEL:
        return f"{few}; {means}, better by {difference:.2f}, {p_is(p)}."
    if p >= LEVEL:
        return (
            f"{one} is not better than {other} here: {means}, better by {difference:.2f}, "
            f"no more than chance alone gives ({p_is(p)})."
        )
    return f"{one} is better than {other} here: {means}, better by {difference:.2f}, {p_is(p)}."
