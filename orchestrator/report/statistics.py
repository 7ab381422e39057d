"""Means with intervals, and tests of whether one set of values is better than another. Pure.

Searched and random cells are compared by an exact permutation test, which assumes no distribution.
With few cells it cannot give a small p, and the comparison then says so.
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


def detectable(sd: float, n: int, m: int, power: float = 0.8) -> float:
    """The difference of two means that a one-sided t test at LEVEL finds with this probability.

    A permutation test of means has about the same power.

    Args:
        sd: the standard deviation of the values on each side.
        n, m: how many values there are on each side.
    """
    from scipy.special import nctdtrinc, stdtrit

    freedom = n + m - 2
    if freedom < 1:
        raise ValueError("a test of two means needs three values or more")
    critical = float(stdtrit(freedom, 1 - LEVEL))
    noncentrality = float(nctdtrinc(freedom, 1 - power, critical))
    return noncentrality * sd * math.sqrt(1 / n + 1 / m)


def permutation_p(a: Sequence[float], b: Sequence[float], better: Better) -> float:
    """One-sided p: how often chance alone makes the mean of `a` this much better than that of `b`.

    It is the share of all ways to split the values into groups of these sizes whose difference of
    means is at least the one found; ties count. Exact up to MOST_SPLITS splits.
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


@dataclass(frozen=True)
class Comparison:
    """A comparison of searched cells with random cells.

    Attributes:
        searched, random: the summary of each side; None if it was not run.
        difference: by how much the searched cells' mean is better; negative if it is worse.
        low, high: its 95 % Welch interval; None with fewer than three values on a side.
        p: from the one-sided permutation test.
        smallest_p: the least p that this many cells can give.
        sentence: what this shows, in plain words.
    """

    searched: Summary | None
    random: Summary | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    smallest_p: float | None
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
        return Comparison(a, b, None, None, None, None, None, sentence)
    difference = a.mean - b.mean if better == "higher" else b.mean - a.mean
    low, high = _welch(searched, random, better)
    p = permutation_p(searched, random, better)
    smallest = 1 / math.comb(a.n + b.n, a.n)
    sentence = _sentence(a, b, difference, p, smallest, names)
    return Comparison(a, b, difference, low, high, p, smallest, sentence)


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
