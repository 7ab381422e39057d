"""Results as evidence: means with intervals, searched against random cells, ours against the paper.

Pure, without files. The paper gives one figure a row and no spread, so the question put to every
row is where that figure lies in the 95 % interval of our mean. Searched and random cells are
compared by an exact permutation test, which assumes no distribution; with few cells it cannot give
a small p, and the comparison then says so.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, combinations, product
from random import Random
from typing import Literal

import numpy as np

from gdas.cnn.config import SearchConfig, TrainConfig
from gdas.config import differences
from gdas.data.settings import IMAGE_DATA, PHOTO_DATA, TEXT_DATA
from gdas.presets import AnySearchConfig, image_train_preset, text_train_preset
from gdas.rnn.config import TextSearchConfig, TextTrainConfig
from orchestrator.paper import tables as paper

Better = Literal["higher", "lower"]
Word = Literal[
    "not run", "run too small to compare", "n too small", "reproduced", "within noise", "missed"
]

LEVEL = 0.05
"""A p below this is taken as evidence; intervals cover 1 - LEVEL."""

FEWEST_FOR_INTERVAL = 3
"""With two values a Student interval is 18 standard deviations wide: it would say nothing."""

MOST_SPLITS = 200_000
"""Permutation tests go through all splits up to here (10 against 10 cells are 184,756)."""

RANDOM_SPLITS = 20_000
"""Beyond that they draw this many, from a fixed seed: a p of 0.05 is then known to 0.0015."""


@dataclass(frozen=True)
class Summary:
    """Values of one kind.

    Attributes:
        sd: standard deviation (n - 1); None for one value.
        low, high: 95 % Student interval of the mean; None for fewer than three values.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None

    @property
    def text(self) -> str:
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
    half = t_quantile(1 - LEVEL / 2, n - 1) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


@cache
def t_quantile(p: float, df: float) -> float:
    """Student's t quantile; `df` need not be whole (Welch).

    With t = sqrt(df) tan(a), the chance of |T| < t is the integral of cos(a)^(df - 1) from 0 to a,
    over that to pi / 2 (Abramowitz and Stegun 26.7.1). Simpson's rule and bisection over a.

    Args:
        p: from 0.5 to below 1.
        df: 1 or more.
    """
    if not (0.5 <= p < 1 and df >= 1):
        raise ValueError(f"p={p}, df={df}: p must be in [0.5, 1) and df 1 or more")
    whole = math.sqrt(math.pi) / 2 * math.exp(math.lgamma(df / 2) - math.lgamma((df + 1) / 2))
    low, high, panels = 0.0, math.pi / 2, 256
    for _ in range(60):
        a = (low + high) / 2
        step = a / panels
        inner = sum((4 if i % 2 else 2) * math.cos(i * step) ** (df - 1) for i in range(1, panels))
        inside = step / 3 * (1 + inner + math.cos(a) ** (df - 1))
        low, high = (a, high) if inside < (2 * p - 1) * whole else (low, a)
    return math.sqrt(df) * math.tan(low)


def permutation_p(a: Sequence[float], b: Sequence[float], better: Better) -> float:
    """One-sided p: how often chance alone makes `a` this much better than `b`, by their means.

    The share of all ways to split the values into groups of these sizes whose difference of means
    is at least the one found; ties count. Exact up to MOST_SPLITS splits.
    """
    if not a or not b:
        raise ValueError("a permutation test needs values on both sides")
    values = _upwards([*a, *b], better)
    n, total = len(a), len(values)
    splits: Iterable[Sequence[int]]
    if math.comb(total, n) <= MOST_SPLITS:
        splits = combinations(range(total), n)
    else:
        draw = Random(0)
        drawn = (draw.sample(range(total), n) for _ in range(RANDOM_SPLITS))
        splits = chain([range(n)], drawn)  # the split found is one of them, so p is never 0
    # All splits have one total, so the sum of one group orders them as the difference of means.
    return _share_at_least(values, (math.fsum(values[i] for i in split) for split in splits), n)


def paired_p(gains: Sequence[float]) -> float:
    """One-sided p of paired differences (positive: better), by flipping their signs.

    The share of all ways to give them signs whose sum is at least the one found; ties count.
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


def uniform_p(cells: Sequence[int], percentiles: Sequence[float]) -> float:
    """One-sided p: how often as many uniformly drawn cells have a mean percentile this high.

    Exact: the distribution of the sum of percentiles of independent, uniform draws from all cells,
    ties included, by convolution.

    Args:
        cells: how many cells have each accuracy, worst accuracy first.
        percentiles: of the cells found; percent of cells that are worse, half of equal ones
            counted.
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


def _upwards(values: Sequence[float], better: Better) -> list[float]:
    return [v if better == "higher" else -v for v in values]


def _share_at_least(values: Sequence[float], sums: Iterable[float], first: int) -> float:
    """Share of sums that reach that of the `first` values; sums 1e-9 of the values apart tie."""
    found = math.fsum(values[:first]) - 1e-9 * math.fsum(map(abs, values))
    reached = [s >= found for s in sums]
    return sum(reached) / len(reached)


@dataclass(frozen=True)
class Comparison:
    """Searched against random cells.

    Attributes:
        searched, random: of each side; None where it was not run.
        difference: by how much the searched cells' mean is better; negative where it is worse.
        low, high: 95 % Welch interval of it; None with fewer than three values on a side.
        p: of the one-sided permutation test.
        smallest_p: the least p that so many cells can give.
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
        searched, random: one value a cell. Repeated trainings of one cell are averaged first:
            they tell of the training's noise, not of the search.
    """
    a = summary(searched) if searched else None
    b = summary(random) if random else None
    if a is None or b is None:
        missing = " and ".join(n for n, side in (("searched", a), ("random", b)) if side is None)
        sentence = f"not run: there are no results of {missing} cells."
        return Comparison(a, b, None, None, None, None, None, sentence)
    difference = a.mean - b.mean if better == "higher" else b.mean - a.mean
    low, high = _welch(a, b, difference)
    p = permutation_p(searched, random, better)
    smallest = 1 / math.comb(a.n + b.n, a.n)
    sentence = _sentence(a, b, difference, p, smallest, names)
    return Comparison(a, b, difference, low, high, p, smallest, sentence)


def _welch(a: Summary, b: Summary, difference: float) -> tuple[float | None, float | None]:
    if a.sd is None or b.sd is None or min(a.n, b.n) < FEWEST_FOR_INTERVAL:
        return None, None
    of_a, of_b = a.sd**2 / a.n, b.sd**2 / b.n
    if of_a + of_b == 0:
        return difference, difference
    df = (of_a + of_b) ** 2 / (of_a**2 / (a.n - 1) + of_b**2 / (b.n - 1))
    half = t_quantile(1 - LEVEL / 2, df) * math.sqrt(of_a + of_b)
    return difference - half, difference + half


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
        also = f"; {few}" if smallest >= LEVEL else f", p = {p:.3f}"
        return f"{one} is not better than {other} here: {means}{also}."
    if smallest >= LEVEL:
        return f"{few}; {means}, better by {difference:.2f}, p = {p:.3f}."
    if p >= LEVEL:
        return (
            f"{one} is not better than {other} here: {means}, better by {difference:.2f}, "
            f"no more than chance alone gives (p = {p:.3f})."
        )
    return f"{one} is better than {other} here: {means}, better by {difference:.2f}, p = {p:.3f}."


VERDICT_RULE = (
    "A verdict compares the mean of our runs with the figure the paper prints, by the 95 % "
    "Student interval of the mean, its ends rounded to the digits that the paper prints. "
    "Reproduced: the whole interval is as good as the paper's figure or better. Missed: the whole "
    "interval is worse. Within noise: the paper's figure lies inside, so the two cannot be told "
    "apart, whichever mean is better. Before that: not run, where there is no result; run too "
    "small to compare, where the search or the training has not the paper's settings, in size or "
    "otherwise, however good the figure is; n too small, with fewer than three runs, which give "
    "no interval."
)

DIGITS = {1: 2, 2: 1, 3: 1, 4: 1, 5: 2}
"""Digits after the point that the paper's tables print results with."""


@dataclass(frozen=True)
class Verdict:
    """One word for a row, and why."""

    word: Word
    why: str


def verdict(
    ours: Sequence[float],
    theirs: float,
    better: Better,
    *,
    size_differences: Sequence[str],
    digits: int = 2,
) -> Verdict:
    """Ours beside the paper's figure, by VERDICT_RULE.

    Args:
        ours: one value a run.
        theirs: the paper's figure.
        size_differences: settings of the search and of the training that are not the paper's.
        digits: of the paper's figure, see DIGITS.
    """
    if not ours:
        return Verdict("not run", "there is no result.")
    s = summary(ours)
    figures = f"{s.text} against {theirs:.{digits}f}"
    if size_differences:
        count = len(size_differences)
        named = ", ".join(size_differences[:6]) + (", ..." if count > 6 else "")
        settings = "1 setting is" if count == 1 else f"{count} settings are"
        return Verdict("run too small to compare", f"{settings} not the paper's ({named}).")
    if s.low is None or s.high is None:
        return Verdict("n too small", f"{figures}.")
    side = "better" if (s.mean > theirs) == (better == "higher") else "worse"
    if round(s.mean, digits) == round(theirs, digits):
        side = "equal as printed"
    worst, best = (s.low, s.high) if better == "higher" else (s.high, s.low)
    worst, best, target = _upwards([round(v, digits) for v in (worst, best, theirs)], better)
    if worst >= target:
        return Verdict("reproduced", f"{figures}: the whole interval is as good or better.")
    if best >= target:
        return Verdict(
            "within noise", f"{figures}, which lies in the interval; our mean is {side}."
        )
    return Verdict("missed", f"{figures}: the whole interval is worse.")


IGNORED = {
    "seed": "names the run",
    "precision": "rounds otherwise; network, data and schedule are the same",
    "compile": "the same arithmetic, in another order",
    "channels_last": "memory layout",
    "evaluate_every": "how often is looked, not what is trained",
    "segments_per_epoch": "where checkpoints fall",
    "recalibration_batches": "scores a derived cell only; no source has it",
    "compared_cells": "scores cells after the search; no source has it",
    "compared_images": "scores cells after the search; no source has it",
    "restarts": "whether a run that diverged may go on",
}
"""Settings that do not change what a result means, and why; all others do."""


def size_differences(recipe: object, papers: object) -> list[str]:
    """Dotted keys of the settings in which a recipe is not the paper's, but those IGNORED.

    Args:
        recipe: of a search or of a final.
        papers: the paper's, from `papers_search` or `papers_final`.
    """
    if type(recipe) is not type(papers):
        return ["task"]
    return [key for key, _, _ in differences(recipe, papers) if key not in IGNORED]


def papers_search(recipe: AnySearchConfig) -> SearchConfig | TextSearchConfig:
    """The paper's search of this kind: both cells, the fixed reduction cell, or recurrent."""
    if isinstance(recipe, TextSearchConfig):
        return TextSearchConfig()
    assert isinstance(recipe, SearchConfig), "the paper has no other search"
    papers = SearchConfig()
    network = dataclasses.replace(papers.network, reduction=recipe.network.reduction)
    return dataclasses.replace(papers, network=network)


def papers_final(table: int, row: paper.Row, data: str) -> TrainConfig | TextTrainConfig:
    """The paper's training for a row of its tables, with or without cutout as the row says.

    Args:
        row: from `paper.find_row`.
        data: what the figure is measured on, from `paper.MEASURES`.
    """
    if data in TEXT_DATA:
        return text_train_preset("paper", data)
    if data in PHOTO_DATA:
        return dataclasses.replace(image_train_preset("paper", data), channels=row["C"])
    cutout = row.get("cutout", table == 5 or "CutOut" in paper.name_of(row))
    images = dataclasses.replace(IMAGE_DATA[data], cutout=16 if cutout else 0)
    return dataclasses.replace(TrainConfig(), data=images)
