"""How far cells differ, how far trainings of one cell do, and what a comparison could find.

The report's part on a comparison in which each cell is trained several times.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from orchestrator.report.figures.trainings import trainings_figure
from orchestrator.report.markup import NOT_RUN
from orchestrator.report.parts import Cell, Part, Table
from orchestrator.report.statistics import (
    Better,
    Comparison,
    Spread,
    detectable,
    p_in_words,
    p_is,
    rank_p,
    spread,
)
from orchestrator.report.view import Results

POWER = 0.8
"""The probability with which a design is asked to find a difference."""


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
        *_power(spreads[other], [len(results.study.cells(w)) for w in (name, other)], metric),
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
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f" (95 % Welch interval {found.low:+.2f} to {found.high:+.2f})"
    return [
        f"\nDifference of the cells' means, positive if the search is better: "
        f"{found.difference:+.2f}{interval}; one-sided {p_is(found.p)} by the permutation test "
        "of means, which the sentence above is by, and "
        f"{p_in_words(rank_p(ours, theirs, better))} by ranks.\n"
    ]


def _power(drawn: Spread | None, cells: Sequence[int], metric: str) -> list[str]:
    """What the design finds, given how far the cells of the other side differ.

    Args:
        cells: how many there are on each side once all are done.
    """
    if drawn is None:
        return []
    (n, m), each = cells, drawn.each
    unit = "points" if metric.endswith("top1") else "in perplexity"
    found = {k: detectable(drawn.of_means(k), n, m, POWER) for k in (1, each, 2 * each)}
    others = ", ".join(
        f"{difference:.2f} with {times} training{'s' if times > 1 else ''} a cell"
        for times, difference in found.items()
        if times != each
    )
    finds = f"This design finds a difference of {found[each]:.2f} {unit} with {100 * POWER:.0f} %"
    return [
        f"\n**{finds}**: {n} against {m} cells, {each} trainings each, one-sided at 5 %, by a t "
        f"test with the spread measured on the second row ({others}). A smaller one it mostly "
        'misses, so "not better" does not mean "equal".\n'
    ]
