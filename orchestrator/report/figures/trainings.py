"""A dot for every training of every cell: how far cells differ, and trainings of one cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from orchestrator.report.figures.curves import COLOURS
from orchestrator.report.statistics import Better

INK = "#57606a"
FEWEST = 4
"""The width of a panel with fewer cells than this is that of so many."""


def trainings_figure(
    path: Path, sides: Mapping[str, Sequence[Sequence[float]]], metric: str, better: Better
) -> None:
    """Draw a panel for each side: its cells from the worst to the best, a dot for each training.

    Args:
        path: PNG or SVG file.
        sides: by name, the scores of every cell's trainings.
        metric: what the scores are, for the axis.
        better: which direction is better.
    """
    widths = [max(FEWEST, len(cells)) for cells in sides.values()]
    figure = Figure(figsize=(4.5 + min(9.0, 0.13 * sum(widths)), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(sides), sharey=True, squeeze=False, width_ratios=widths)[0]
    for i, (axes, (name, cells)) in enumerate(zip(panels, sides.items(), strict=True)):
        _cells(axes, sorted(cells, key=fmean, reverse=better == "lower"), COLOURS[i])
        axes.set_title(f"{name} ({len(cells)})", size=9)
    panels[0].set_ylabel(f"{metric} ({better} is better)", size=8)
    figure.supxlabel(
        "cells, the best on the right; a dot a training, a tick a cell's mean, dashed their mean",
        size=8,
    )
    figure.savefig(path, dpi=120)


def _cells(axes: Axes, cells: Sequence[Sequence[float]], colour: str) -> None:
    """Draw one side's cells in this order."""
    for x, scores in enumerate(cells):
        axes.plot([x, x], [min(scores), max(scores)], color=colour, lw=1.0, alpha=0.45)
        axes.plot([x] * len(scores), scores, "o", color=colour, ms=4, alpha=0.75, mec="none")
        axes.plot([x], [fmean(scores)], "_", color=INK, ms=7, mew=1.4)
    if cells:
        axes.axhline(fmean(map(fmean, cells)), color=INK, lw=1.0, ls="--", zorder=0)
    axes.set_xlim(-0.8, max(FEWEST, len(cells)) - 0.2)
    axes.set_xticks([])
    axes.tick_params(labelsize=7)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
