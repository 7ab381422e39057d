"""The report's figures of cells and curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import gdas.drawing.draw
from gdas.genotype import any_from_json
from orchestrator.store.results import GenotypeJson, Record

COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#cf222e", "#57606a", "#bf8700", "#0550ae")
MOST_NAMED = 2 * len(COLOURS)
"""How many lines a legend can name; if there are more, there is no legend."""


def draw(genotype: GenotypeJson, path: Path) -> None:
    """Draw a cell of any space to a PNG or SVG file."""
    gdas.drawing.draw.draw(any_from_json(genotype), path)


def curves(
    path: Path, histories: dict[str, list[Record]], panels: Sequence[tuple[str, str]]
) -> None:
    """Draw one panel per metric and one line per history, over the epochs.

    Args:
        path: PNG or SVG file.
        histories: records, by the line's label.
        panels: (metric, title) of every panel.
    """
    figure = Figure(figsize=(4.2 * len(panels), 3.2))
    FigureCanvasAgg(figure)
    for i, (metric, title) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        for j, (name, records) in enumerate(histories.items()):
            points = [
                (r["position"], r["metrics"][metric]) for r in records if metric in r["metrics"]
            ]
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(x, y, label=name, color=COLOURS[j % len(COLOURS)], lw=1.5, marker=".")
        axes.set_title(title, size=9)
        axes.set_xlabel("epoch", size=8)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if len(histories) <= MOST_NAMED:
        axes.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
