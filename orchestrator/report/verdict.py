"""Verdicts on our figures against the paper's: a word for each, and why. Pure, without files.

The paper gives one figure per row and no spread, so a verdict says where that figure lies relative
to the 95 % interval of our mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.report.statistics import Better, summary, upwards

Word = Literal[
    "not run", "run too small to compare", "n too small", "reproduced", "within noise", "missed"
]

VERDICT_RULE = (
    "A verdict compares the mean of our runs with the figure the paper prints, by the 95 % "
    "Student interval of the mean, its ends rounded to the digits that the paper prints. "
    "Reproduced: the whole interval is as good as the paper's figure or better. Missed: the whole "
    "interval is worse. Within noise: the paper's figure lies inside, so the two cannot be told "
    "apart, whichever mean is better. Three verdicts go before these: not run, if there is no "
    "result; run too small to compare, if the search or the training has not the paper's "
    "settings, in size or otherwise, however good the figure is; n too small, with fewer than "
    "three runs, which give no interval."
)

DIGITS = {1: 2, 2: 1, 3: 1, 4: 1, 5: 2}
"""How many digits after the point the results have in each of the paper's tables."""


@dataclass(frozen=True)
class Verdict:
    """A row's verdict, and the reason."""

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
    """Compare our runs with the paper's figure, by VERDICT_RULE.

    Args:
        ours: one value per run.
        theirs: the paper's figure.
        better: which direction is better.
        size_differences: settings of the search and of the training that are not the paper's.
        digits: digits of the paper's figure, see DIGITS.
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
    worst, best, target = upwards([round(v, digits) for v in (worst, best, theirs)], better)
    if worst >= target:
        return Verdict("reproduced", f"{figures}: the whole interval is as good or better.")
    if best >= target:
        return Verdict(
            "within noise", f"{figures}, which lies in the interval; our mean is {side}."
        )
    return Verdict("missed", f"{figures}: the whole interval is worse.")
