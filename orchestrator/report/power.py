"""What a comparison of two means finds, if the two sides may differ in spread. Pure.

The permutation test of means asks whether both sides have one distribution. It pools their spreads,
as Student's t test does, and has about the same power. If the spreads differ, and the smaller group
has the larger one, it finds differences too often where the means are equal; Welch's test does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.report.statistics import LEVEL, Better, upwards


class Side(NamedTuple):
    """One side of a comparison.

    Attributes:
        sd: the standard deviation of its values.
        n: how many there are.
    """

    sd: float
    n: int


def detectable(a: Side, b: Side, power: float = 0.8) -> float:
    """The difference of means that the permutation test, one-sided at LEVEL, finds so often.

    The pooled variance is a sum of two chi-squares; one with the same mean and variance stands for
    it (Satterthwaite, 1946). For equal spreads this is Student's t test, to the digit.

    Args:
        a, b: the sides; their spreads are taken as known.
    """
    from scipy.special import nctdtrinc  # here: it takes a quarter of a second to import

    critical, freedom = _pooled(a, b)
    return float(nctdtrinc(freedom, 1 - power, critical)) * _error(a, b)


def false_positives(a: Side, b: Side) -> float:
    """How often the permutation test, one-sided at LEVEL, finds a difference of equal means."""
    from scipy.special import stdtr

    critical, freedom = _pooled(a, b)
    return float(stdtr(freedom, -critical))


def detectable_by_welch(a: Side, b: Side, power: float = 0.8) -> float:
    """The difference of means that Welch's t test, one-sided at LEVEL, finds with this power."""
    from scipy.special import nctdtrinc, stdtrit

    parts = [side.sd**2 / side.n for side in (a, b)]
    squares = sum(p**2 / (side.n - 1) for p, side in zip(parts, (a, b), strict=True))
    freedom = sum(parts) ** 2 / squares
    critical = float(stdtrit(freedom, 1 - LEVEL))
    return float(nctdtrinc(freedom, 1 - power, critical)) * _error(a, b)


def spreads_p(a: Side, b: Side) -> float:
    """Two-sided p of the F test that both sides have one variance; 1 if there is none to test."""
    from scipy.special import fdtr, fdtrc

    if min(a.n, b.n) < 2 or a.sd == b.sd:
        return 1.0
    if b.sd == 0:
        return 0.0
    ratio = (a.sd / b.sd) ** 2
    tails = (fdtr(a.n - 1, b.n - 1, ratio), fdtrc(a.n - 1, b.n - 1, ratio))
    return min(1.0, 2 * float(min(tails)))


def welch_p(a: Sequence[float], b: Sequence[float], better: Better) -> float | None:
    """One-sided p of Welch's t test, for values of which each side may have its own spread.

    Returns:
        None with fewer than two values on a side, or if no value differs from its side's others.
    """
    from scipy.stats import ttest_ind  # it takes a second to import

    if min(len(a), len(b)) < 2 or len(set(a)) == len(set(b)) == 1:
        return None
    ours, theirs = upwards(a, better), upwards(b, better)
    return float(ttest_ind(ours, theirs, equal_var=False, alternative="greater").pvalue)


def _error(a: Side, b: Side) -> float:
    """The standard error of the difference of means."""
    return math.sqrt(a.sd**2 / a.n + b.sd**2 / b.n)


def _pooled(a: Side, b: Side) -> tuple[float, float]:
    """A pooled test's critical difference, in true standard errors, and its degrees of freedom."""
    from scipy.special import stdtrit

    if a.n + b.n < 3 or min(a.n, b.n) < 1:
        raise ValueError("a test of two means needs three values or more")
    if a.sd == b.sd == 0:
        return float(stdtrit(a.n + b.n - 2, 1 - LEVEL)), a.n + b.n - 2
    weights = [(side.n - 1, side.sd**2) for side in (a, b)]
    total = math.fsum(w * v for w, v in weights)
    freedom = total**2 / math.fsum(w * v**2 for w, v in weights)
    pooled = math.sqrt(total / (a.n + b.n - 2) * (1 / a.n + 1 / b.n))
    return float(stdtrit(a.n + b.n - 2, 1 - LEVEL)) * pooled / _error(a, b), freedom
