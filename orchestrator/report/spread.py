"""How far cells differ, how far trainings of one cell do, and what a comparison could find.

The report's part on a comparison in which each cell is trained several times.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from orchestrator.experiment.spaces import SPACES
from orchestrator.report.comparison import Comparison
from orchestrator.report.figures.trainings import trainings_figure
from orchestrator.report.markup import NOT_RUN
from orchestrator.report.parts import Cell, Part, Table
from orchestrator.report.power import Side, detectable, detectable_by_welch, welch_p
from orchestrator.report.statistics import (
    LEVEL,
    Better,
    Spread,
    better_of,
    p_in_words,
    p_is,
    rank_p,
    splits_in_words,
    spread,
)
from orchestrator.report.view import Results

POWER = 0.8
"""The probability with which a design is asked to find a difference."""

ENOUGH = 5
"""With fewer cells a standard deviation is known to no better than a factor of three, upwards."""


def spread_parts(
    name: str, other: str, found: Comparison, better: Better, metric: str, results: Results
) -> list[Part]:
    """The report's part; empty if each cell is trained once.

    Args:
        name, other: the searches (or random cells) on the two sides.
        found: their comparison by the means of cells.
    """
    each = results.experiment.searches[name].proxy_trainings
    if each == 1:
        return []
    sides = {which: list(results.trainings(which).values()) for which in (name, other)}
    spreads = {which: spread(cells) for which, cells in sides.items()}
    rows: list[list[Cell]] = [
        [which, str(len(cells)), *_row(spreads[which])] for which, cells in sides.items()
    ]
    parts: list[Part] = [
        "\nSpread between cells and between trainings of one cell, by the mean squares of a "
        "one-way random effects model: within² is the mean square within cells, between² the "
        f"mean square between cells less that within, divided by the {each} trainings of a cell. "
        "Intra-class correlation, between² / (between² + within²): 1 if trainings of a cell are "
        "all alike, 0 if which cell it is does not matter.\n",
        Table(
            f"{name}-against-{other}-spread",
            [
                "cells",
                "how many",
                "sd between cells",
                "sd between trainings of a cell",
                "intra-class correlation (95 % interval)",
            ],
            rows,
        ),
        *_tests([[fmean(c) for c in sides[which]] for which in (name, other)], found, better),
        *_power(spreads, [len(results.study.cells(w)) for w in (name, other)], found, metric),
    ]
    if any(sides.values()):
        figure = f"trainings-{name}-against-{other}.png"
        trainings_figure(results.folder / figure, sides, metric, better)
        parts.append(f"\n![Every training of {name} and of {other}]({figure})\n")
    return parts


def _row(found: Spread | None) -> list[str]:
    if found is None:
        return [NOT_RUN] * 3
    interval = f"({found.low:.2f} to {found.high:.2f})"
    return [
        f"{found.between:.2f}",
        f"{found.within:.2f}",
        f"{found.correlation:.2f} {interval}",
    ]


def _tests(means: Sequence[Sequence[float]], found: Comparison, better: Better) -> list[str]:
    """The difference with its interval, and the tests."""
    if found.difference is None or found.p is None:
        return []
    ours, theirs = means
    welch = welch_p(ours, theirs, better)
    by_welch = "" if welch is None else f", {p_in_words(welch)} by Welch's t test"
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f" (95 % Welch interval {found.low:+.2f} to {found.high:+.2f})"
    return [
        f"\nDifference of the cells' means, positive if the search is better: "
        f"{found.difference:+.2f}{interval}; one-sided {p_is(found.p)} by the permutation test "
        f"of means ({splits_in_words(len(ours), len(theirs))}), which the verdict is by; "
        f"{p_in_words(rank_p(ours, theirs, better))} by ranks{by_welch}.\n"
    ]


def caveat(name: str, other: str, found: Comparison, results: Results) -> list[str]:
    """That the spreads differ too much for the permutation test of means, if they do."""
    if found.unequal is None or found.searched is None or found.random is None:
        return []
    scores = results.scores(name), results.scores(other)
    better = better_of(SPACES[results.experiment.searches[name].recipe.task].best)
    sds = " against ".join(
        f"{side.sd:.2f} over the {side.n} cells of {which}"
        for which, side in ((name, found.searched), (other, found.random))
    )
    return [
        f"\n**The spreads differ**: standard deviation {sds}, more than chance gives (F test, "
        f"for normal values, {p_is(found.unequal.p)}). The permutation test of means does not hold "
        "its level then: with such spreads, so many cells and equal means it finds a difference in "
        f"{100 * found.unequal.false_positives:.0f} % of all studies in place of "
        f"{100 * LEVEL:.0f} %. Welch's t test allows each side its own spread: "
        f"{p_is(found.unequal.welch_p)}; the rank test has {p_is(rank_p(*scores, better))}. The "
        "verdict stays with the permutation test, by which it was to be.\n"
    ]


def _power(
    spreads: dict[str, Spread | None], cells: Sequence[int], found: Comparison, metric: str
) -> list[str]:
    """What the design finds, given how far the cells of each side differ.

    Args:
        spreads: of the search's cells, then of the other side's.
        cells: how many there are on each side once all are done.
    """
    known = {which: of for which, of in spreads.items() if of is not None}
    if not known:
        return []
    largest = max(reversed(known), key=lambda which: known[which].groups)
    of = {
        which: which if which in known and known[which].groups >= ENOUGH else largest
        for which in spreads
    }
    each, (n, m) = known[largest].each, cells
    unit = "points" if metric.endswith("top1") else "in perplexity"

    def sides(times: int) -> tuple[Side, Side]:
        ours, theirs = (known[of[which]].of_means(times) for which in spreads)
        return Side(ours, n), Side(theirs, m)

    others = ", ".join(
        f"{detectable(*sides(times), POWER):.2f} with {times} training{'s' if times > 1 else ''} "
        "a cell"
        for times in (1, 2 * each)
        if times != each
    )
    rests = " and ".join(
        f"{side.sd:.2f} for {which}"
        + ("" if of[which] == which else f" (as {of[which]}: too few cells of its own)")
        for which, side in zip(spreads, sides(each), strict=True)
    )
    by_welch = ""
    if found.unequal is not None:
        difference = detectable_by_welch(*sides(each), POWER)
        by_welch = f" Welch's test, which holds its level, finds one of {difference:.2f} so often."
    finds = f"This design finds a difference of {detectable(*sides(each), POWER):.2f} {unit}"
    return [
        f"\n**{finds} with {100 * POWER:.0f} %**: {n} against {m} cells, {each} trainings each, "
        "one-sided at 5 %, by the permutation test of means, if the standard deviations between "
        f"cells' means are as measured, {rests} ({others}).{by_welch} A smaller one it mostly "
        'misses, so "not better" does not mean "equal".\n'
    ]
