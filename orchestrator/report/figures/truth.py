"""Figures of searches against the truth: where each seed landed, and how it got there."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.report.figures.curves import COLOURS
from orchestrator.store.results import Distribution

LOWEST_SHOWN = 1 / 20
"""The share of worst cells that the figure draws at its left edge."""

GREY, INK = "#57606a", "#1b1f24"


@dataclass(frozen=True)
class Row:
    """A method in the figure.

    Attributes:
        name: the row's label.
        accuracies: one per seed, in percent.
        end: mean percentile and p, as text at the row's end.
    """

    name: str
    accuracies: Sequence[float]
    end: str


def distribution_figure(
    path: Path, every: Distribution, methods: Sequence[Row], column: str
) -> None:
    """Draw all cells as a histogram, and below it a row per method with a mark for every seed.

    The worst cells lie far below the others, so LOWEST_SHOWN of them are drawn at the left edge,
    and a seed that landed there is marked by an arrow.

    Args:
        path: PNG or SVG file.
        every: accuracies, ascending, and how many cells have each.
        methods: the rows.
        column: the table's column, for the title.
    """
    accuracies, cells = every["accuracies"], every["cells"]
    total, below, left = sum(cells), 0, 0.0
    for accuracy, count in zip(accuracies, cells, strict=True):
        left = float(accuracy)
        if below + count > LOWEST_SHOWN * total:
            break
        below += count
    right = float(accuracies[-1])
    margin = 0.02 * (right - left) or 1.0
    figure = Figure(figsize=(9, 3.2 + 0.42 * len(methods)), layout="constrained")
    FigureCanvasAgg(figure)
    top, rows = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 0.3 + 0.42 * len(methods)])
    shown = [max(a, left) for a in accuracies]
    top.hist(shown, bins=70, range=(left, right), weights=cells, color="#c8d1da")
    marks = {"median": _quantile(every, 0.5), "best 1 %": _quantile(every, 0.99), "best": right}
    _mark((top, rows), marks)
    top.set_ylabel("cells", size=8)
    top.set_title(
        f"{total:,} cells by {column}; the {100 * below / total:.0f} % below {left:.1f} % at the "
        "left edge",
        size=9,
        loc="left",
    )
    _method_rows(rows, methods, left)
    rows.set_xlim(left - margin, right + margin)
    for axes in (top, rows):
        axes.tick_params(labelsize=7)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _mark(panels: tuple[Axes, Axes], marks: Mapping[str, float]) -> None:
    """Draw dotted lines through both panels, named in the upper one."""
    for name, value in marks.items():
        for axes in panels:
            axes.axvline(value, color=GREY, lw=0.9, ls=":", zorder=0)
        panels[0].annotate(
            name,
            (value, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-2, -3),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="top",
            size=7,
            color=GREY,
        )


def _method_rows(rows: Axes, methods: Sequence[Row], left: float) -> None:
    """Draw a row per method: a mark for every seed, an arrow for one that landed left of `left`."""
    ends = [(-0.75, "mean percentile, p"), *((i, m.end) for i, m in enumerate(methods))]
    for y, text in ends:
        rows.annotate(
            text,
            (1.0, y),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            size=7,
            color=GREY,
            annotation_clip=False,
        )
    for i, method in enumerate(methods):
        colour = COLOURS[i % len(COLOURS)]
        for marker, values in (
            ("o", [v for v in method.accuracies if v >= left]),
            ("<", [left for v in method.accuracies if v < left]),
        ):
            rows.plot(values, [i] * len(values), marker, color=colour, ms=6, alpha=0.65, mec="none")
        median = max(statistics.median(method.accuracies), left)
        rows.plot([median], [i], "|", color=colour, ms=20, mew=2)
    rows.set_yticks(range(len(methods)), [method.name for method in methods])
    rows.set_ylim(len(methods) - 0.4, -0.6)
    rows.set_xlabel(
        "true accuracy, %; a dot a seed, an arrow one that landed further left, a bar the median",
        size=8,
    )


def _quantile(every: Distribution, share: float) -> float:
    """The accuracy that `share` of the cells do not exceed."""
    reached, total = 0, sum(every["cells"])
    for accuracy, count in zip(every["accuracies"], every["cells"], strict=True):
        reached += count
        if reached >= share * total:
            return float(accuracy)
    return float(every["accuracies"][-1])


def epochs_figure(
    path: Path, percentiles: Mapping[str, Sequence[Sequence[float]]], held: Mapping[str, int]
) -> None:
    """Draw the derived cell's percentile over the epochs: a panel per search, a line per seed.

    Args:
        path: PNG or SVG file.
        percentiles: for every search, a list per seed with one value per epoch.
        held: for every search, how many epochs its logits were kept fixed at the start.
    """
    figure = Figure(figsize=(max(4.5, 3.1 * len(percentiles)), 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(percentiles), squeeze=False, sharey=True)[0]
    for axes, (name, seeds) in zip(panels, percentiles.items(), strict=True):
        for i, y in enumerate(seeds):
            x = range(1, 1 + len(y))
            axes.plot(x, y, color="#8b949e", lw=0.8, label="a seed" if i == 0 else None)
            axes.plot(x[-1:], y[-1:], "o", color="#8b949e", ms=3)
        means = [statistics.fmean(epoch) for epoch in zip(*seeds, strict=False)]
        axes.plot(range(1, 1 + len(means)), means, color="#0969da", lw=2.2, label="their mean")
        axes.axhline(50, color=INK, lw=0.9, ls=":", label="uniform draws")
        if held.get(name):
            axes.axvspan(0.5, held[name] + 0.5, color="#eaeef2", zorder=0, label="logits held")
        axes.set_title(name, size=9)
        axes.set_xlabel("epoch", size=8)
        axes.set_ylim(0, 100)
        axes.set_xlim(0.5, max(map(len, seeds)) + 0.5)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("percentile of the derived cell", size=8)
    shown = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        shown.values(), shown, loc="outside lower center", ncols=4, fontsize=7, frameon=False
    )
    figure.savefig(path, dpi=120)
