"""One search of NAS-Bench-201 against each other way to find a cell, seed by seed.

Two ways with the same seed have the same images in D_T and D_V and the same initial weights, so
what both have in common cancels out of their difference. All comparisons are corrected together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from orchestrator.report.markup import NOT_RUN
from orchestrator.report.parts import Cell, Measured, Part, PValue, Table
from orchestrator.report.statistics import (
    LEVEL,
    MOST_SPLITS,
    RANDOM_SPLITS,
    Summary,
    holm,
    paired_p,
    summary,
    uniform_p,
)

FEWEST = 3
"""Pairs below this give no p under the level, whatever they are."""


class Way(NamedTuple):
    """A way to find a cell.

    Attributes:
        percentiles: of its cell among all cells, by seed.
    """

    name: str
    percentiles: Mapping[int, float]


class Contest(NamedTuple):
    """A comparison.

    Attributes:
        gain: by how many percentiles the first way is better, over the seeds of both.
        p: one-sided; of uniform draws exact, of pairs as `paired_p` has it.
    """

    name: str
    gain: Summary
    p: float


def contests(first: Way, others: Sequence[Way], cells: Sequence[int]) -> list[Contest]:
    """The first way against uniform draws from all cells, and against each other way.

    Args:
        cells: how many cells have each accuracy, worst accuracy first.
    """
    own = list(first.percentiles.values())
    found = [
        Contest(
            "uniform draws from all cells",
            summary([percentile - 50 for percentile in own]),
            uniform_p(cells, own),
        )
    ]
    for other in others:
        seeds = [seed for seed in first.percentiles if seed in other.percentiles]
        if len(seeds) >= FEWEST:
            gains = [first.percentiles[seed] - other.percentiles[seed] for seed in seeds]
            found.append(Contest(other.name, summary(gains), paired_p(gains)))
    return found


def corrected(found: Sequence[Contest], planned: int) -> list[float]:
    """Their p corrected for all comparisons that are planned, those not run yet among them."""
    ps = [contest.p for contest in found]
    return holm([*ps, *[1.0] * (planned - len(ps))])[: len(ps)]


def contests_table(
    column: str, first: Way, others: Sequence[Way], cells: Sequence[int], planned: int = 0
) -> list[Part]:
    """The report's part on them; empty if the first way has too few seeds.

    Args:
        planned: how many comparisons there are to be, if some are not run yet.
    """
    if len(first.percentiles) < FEWEST:
        return []
    found = contests(first, others, cells)
    rows: list[list[Cell]] = [
        [
            contest.name,
            str(contest.gain.n),
            Measured(gain_in_words(contest.gain), contest.gain, "percentiles"),
            PValue(contest.p),
            PValue(p),
            "yes" if p < LEVEL else "not shown",
        ]
        for contest, p in zip(found, corrected(found, planned), strict=True)
    ]
    missing = {other.name for other in others} - {contest.name for contest in found}
    rows += [[name, NOT_RUN, "", "", "", ""] for name in sorted(missing)]
    own = summary(list(first.percentiles.values()))
    return [
        f"\n### {first.name} against each other way\n",
        f"Mean percentile of {first.name}: {own.text}. Gains in percentiles; ways with the same "
        "seeds are compared seed by seed (one-sided test by flipping signs, exact up to "
        f"{MOST_SPLITS:,} ways to flip them, else by {RANDOM_SPLITS:,} random ones), uniform draws "
        "by the exact distribution of their mean. The corrected p (Holm) holds its level over all "
        "comparisons of this table together, those that are not run yet among them.\n",
        Table(
            f"contests-{column}",
            ["against", "seeds", "mean gain", "p", "corrected p", "better"],
            rows,
        ),
        "\n",
    ]


def gain_in_words(gain: Summary) -> str:
    """A mean gain with its interval."""
    if gain.low is None or gain.high is None:
        return f"{gain.mean:+.1f}"
    return f"{gain.mean:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})"
