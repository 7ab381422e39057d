"""Means with intervals, and tests of whether one set of values is better than another. Pure.

Searched and random cells are compared by a permutation test, which assumes no form of distribution
but one for both sides (`orchestrator.report.power`: what follows if their spreads differ). It is
exact up to MOST_SPLITS splits, and takes RANDOM_SPLITS random ones beyond. With few cells it cannot
give a small p, and the comparison then says so.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, product
from random import Random
from typing import Literal

import numpy as np

Better = Literal["higher", "lower"]

LEVEL = 0.05
"""A p below this is taken as evidence; intervals cover 1 - LEVEL."""

FEWEST_FOR_INTERVAL = 3
"""With two values a Student interval is 18 standard deviations wide, which says nothing."""

MOST_SPLITS = 200_000
"""Permutation tests enumerate up to this many splits (10 against 10 cells have 184,756)."""

RANDOM_SPLITS = 20_000
"""Beyond that they draw this many from a fixed seed; a p of 0.05 then has an error of 0.0015."""


@dataclass(frozen=True)
class Summary:
    """The summary of some values.

    Attributes:
        n: how many values there are.
        mean: their mean.
        sd: their standard deviation (n - 1); None for one value.
        low, high: 95 % Student interval of the mean; None for fewer than three values.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None

    @property
    def text(self) -> str:
        """The mean with its spread and interval, or with the reason why there is none."""
        if self.n < FEWEST_FOR_INTERVAL:
            return f"{self.mean:.2f} (n = {self.n}: n too small for an interval)"
        return (
            f"{self.mean:.2f} ± {self.sd:.2f} (n = {self.n}, 95 % interval "
            f"{self.low:.2f} to {self.high:.2f})"
        )


def summary(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and, from three values on, the 95 % interval of the mean.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    if not values or not all(math.isfinite(v) for v in values):
        raise ValueError(f"values={list(values)}: one or more finite numbers are needed")
    n, mean = len(values), statistics.fmean(values)
    sd = statistics.stdev(values) if n > 1 else None
    if sd is None or n < FEWEST_FOR_INTERVAL:
        return Summary(n, mean, sd, None, None)
    from scipy.special import stdtrit  # here: it takes a quarter of a second to import

    half = float(stdtrit(n - 1, 1 - LEVEL / 2)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


@dataclass(frozen=True)
class Spread:
    """How values vary between groups and within them, such as trainings of several cells.

    Attributes:
        groups: how many groups there are.
        each: how many values each has.
        between: standard deviation between the groups' true means; 0 if the estimate of its square
            is negative.
        within: standard deviation of the values of one group.
        correlation: the intra-class correlation, between² / (between² + within²): the share of the
            variance of single values that is between groups.
        low, high: its 95 % interval.
    """

    groups: int
    each: int
    between: float
    within: float
    correlation: float
    low: float
    high: float

    def of_means(self, each: int) -> float:
        """The standard deviation between means of groups with so many values each."""
        return math.sqrt(self.between**2 + self.within**2 / each)


def spread(groups: Sequence[Sequence[float]]) -> Spread | None:
    """Estimate the variance components of a one-way random effects model, by mean squares.

    Source: Searle, Casella and McCulloch, Variance Components, 1992, chapter 3; the interval is
    exact for normal values (Shrout and Fleiss, 1979, ICC(1, 1)).

    Args:
        groups: values by group, equally many in each.

    Returns:
        None with fewer than two groups, fewer than two values in each, or values all equal.
    """
    a, n = len(groups), len(groups[0]) if groups else 0
    if any(len(group) != n for group in groups):
        raise ValueError("a spread needs equally many values in every group")
    if a < 2 or n < 2:
        return None
    means = [statistics.fmean(group) for group in groups]
    between = n * statistics.variance(means)
    squares = ((v - mean) ** 2 for group, mean in zip(groups, means, strict=True) for v in group)
    within = math.fsum(squares) / (a * (n - 1))
    if between == within == 0:
        return None
    variance = max(0.0, (between - within) / n)
    low, high = (_correlation(between, within, n, f) for f in _f_interval(a - 1, a * (n - 1)))
    share = variance / (variance + within)
    return Spread(a, n, math.sqrt(variance), math.sqrt(within), share, low, high)


def _f_interval(top: int, bottom: int) -> tuple[float, float]:
    """By what the ratio of mean squares is divided at the two ends of its 95 % interval."""
    from scipy.special import fdtri

    return float(fdtri(top, bottom, 1 - LEVEL / 2)), float(fdtri(top, bottom, LEVEL / 2))


def _correlation(between: float, within: float, n: int, f: float) -> float:
    """The intra-class correlation for mean squares whose ratio is divided by f; 0 if negative."""
    return max(0.0, (between - f * within) / (between + (n - 1) * f * within))


def permutation_p(a: Sequence[float], b: Sequence[float], better: Better) -> float:
    """One-sided p: how often chance alone makes the mean of `a` this much better than that of `b`.

    It is the share of all ways to split the values into groups of these sizes whose difference of
    means is at least the one found; ties count. Exact up to MOST_SPLITS splits, else the share of
    RANDOM_SPLITS random ones.
    """
    if not a or not b:
        raise ValueError("a permutation test needs values on both sides")
    values = upwards([*a, *b], better)
    n, total = len(a), len(values)
    splits: Iterable[Sequence[int]]
    if math.comb(total, n) <= MOST_SPLITS:
        splits = combinations(range(total), n)
    else:
        draw = Random(0)
        drawn = (draw.sample(range(total), n) for _ in range(RANDOM_SPLITS))
        splits = chain([range(n)], drawn)  # with the observed split among them, p is never 0
    # All splits have the same total, so sorting by one group's sum is sorting by difference.
    return _share_at_least(values, (math.fsum(values[i] for i in split) for split in splits), n)


def rank_p(a: Sequence[float], b: Sequence[float], better: Better) -> float:
    """One-sided p of the rank sum test (Wilcoxon, 1945), by the same splits as `permutation_p`.

    Equal values share the mean of their ranks. One extreme value sways it no more than another.
    """
    values = upwards([*a, *b], better)
    ordered = sorted(values)
    ranks = [(bisect_left(ordered, v) + bisect_right(ordered, v) + 1) / 2 for v in values]
    return permutation_p(ranks[: len(a)], ranks[len(a) :], "higher")


def paired_p(gains: Sequence[float]) -> float:
    """One-sided p of paired differences (positive: better), by flipping their signs.

    It is the share of all ways to choose the signs whose sum is at least the one found; ties count.
    Exact up to MOST_SPLITS ways (17 differences), else the share of RANDOM_SPLITS random ones.
    """
    if not gains:
        raise ValueError("a paired test needs at least one difference")
    n = len(gains)
    signs: Iterable[Sequence[int]]
    if 2**n <= MOST_SPLITS:
        signs = product((1, -1), repeat=n)
    else:
        draw = Random(0)
        signs = chain([(1,) * n], (draw.choices((1, -1), k=n) for _ in range(RANDOM_SPLITS)))
    sums = (math.fsum(s * d for s, d in zip(row, gains, strict=True)) for row in signs)
    return _share_at_least(gains, sums, n)


def splits_in_words(n: int, m: int) -> str:
    """Whether a permutation test of so many values against so many is exact."""
    if math.comb(n + m, n) <= MOST_SPLITS:
        return "exact"
    return f"{RANDOM_SPLITS:,} random splits"


def holm(ps: Sequence[float]) -> list[float]:
    """P-values of several tests, corrected so that all of them together hold their level.

    Source: Holm, 1979, in the order given.
    """
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    corrected, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = largest
    return corrected


def uniform_p(cells: Sequence[int], percentiles: Sequence[float]) -> float:
    """One-sided p: how often as many uniformly drawn cells have a mean percentile this high.

    Exact: the distribution of the sum of the percentiles of independent uniform draws from all
    cells, with ties, is computed by convolution.

    Args:
        cells: how many cells have each accuracy, worst accuracy first.
        percentiles: those of the cells found: the percentage of cells that are worse, with half of
            the equal ones.
    """
    if not percentiles:
        raise ValueError("a test against uniform draws needs at least one cell")
    counts = np.asarray(cells)
    total, n = int(counts.sum()), len(percentiles)
    places = 2 * np.cumsum(counts) - counts  # worse and not better cells together, 0 to 2 total
    chance = np.zeros(2 * total + 1)
    chance[places] = counts / total
    size = 1 << (2 * total * n).bit_length()
    of_sum = np.fft.irfft(np.fft.rfft(chance, size) ** n, size)
    found = sum(round(p / 100 * 2 * total) for p in percentiles)
    return float(min(1.0, max(0.0, of_sum[found : 2 * total * n + 1].sum())))


def p_in_words(p: float) -> str:
    """A p-value with four digits, or what it is below."""
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"


def p_is(p: float) -> str:
    """A p-value inside a sentence: that p equals it, or what it is below."""
    words = p_in_words(p)
    return f"p {words}" if words.startswith("<") else f"p = {words}"


def better_of(best: Literal["highest", "lowest"]) -> Better:
    """Which direction is better if this value wins."""
    return "higher" if best == "highest" else "lower"


def upwards(values: Sequence[float], better: Better) -> list[float]:
    """The values, negated if lower is better, so that a higher one is always better."""
    return [v if better == "higher" else -v for v in values]


def _share_at_least(values: Sequence[float], sums: Iterable[float], first: int) -> float:
    """The share of sums that reach that of the first values; a difference of 1e-9 is a tie."""
    found = math.fsum(values[:first]) - 1e-9 * math.fsum(map(abs, values))
    reached = [s >= found for s in sums]
    return sum(reached) / len(reached)
