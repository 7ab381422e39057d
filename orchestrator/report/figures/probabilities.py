"""Heat maps of every edge's probabilities over a search: what the logits favour, and when.

There is one panel per edge, with nodes from top to bottom and sources from left to right. In a
panel, a row is an operation and a column an epoch. The titles of edges that the derived cell keeps
name the operation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from gdas.cnn.genotype import EDGES_PER_NODE, Genotype
from gdas.genotype import any_from_json
from gdas.outside import short
from gdas.rnn.genotype import RecurrentGenotype
from orchestrator.store.results import Record

WIDTH, GAP = 1.0, (0.22, 0.22)
LEFT, RIGHT, BOTTOM = 0.85, 0.75, 0.5
"""In inches. The layout is computed here, since matplotlib's own takes seconds for 36 panels."""

KEPT, INK, FAINT = "#0550ae", "#1f2328", "#8c959f"

Panel = tuple[int, int]
"""An edge: (node, source), both counted from 0; sources before the nodes are the inputs."""


def probabilities(logits_EK: Sequence[Sequence[float]]) -> list[list[float]]:
    """The softmax of every edge's logits."""
    rows = []
    for row in logits_EK:
        weights = [math.exp(value - max(row)) for value in row]
        rows.append([weight / sum(weights) for weight in weights])
    return rows


def edge_panels(kind: str, edges: int) -> list[Panel]:
    """The (node, source) of every edge, in the order of the logits."""
    inputs = 1 if kind == "recurrent" else 2
    panels: list[Panel] = []
    node = 0
    while len(panels) < edges:
        panels += [(node, source) for source in range(node + inputs)]
        node += 1
    return panels


def kept_edges(record: Record, kind: str) -> dict[Panel, list[str]]:
    """The operations that the cell derived from a record keeps, by edge."""
    cell = any_from_json(record["details"]["genotype"])
    if isinstance(cell, RecurrentGenotype):
        pairs = [(i, source, name) for i, (name, source) in enumerate(cell.recurrent)]
    elif isinstance(cell, Genotype):
        found = (cell.normal if kind == "normal" else cell.reduce) or ()
        pairs = [(i // EDGES_PER_NODE, source, name) for i, (name, source) in enumerate(found)]
    else:
        pairs = []
    kept: dict[Panel, list[str]] = {}
    for node, source, name in pairs:
        kept.setdefault((node, source), []).append(name)
    return kept


def probability_figure(
    path: Path,
    records: Sequence[Record],
    kind: str,
    names: Sequence[str],
    chosen: int | None = None,
) -> bool:
    """Draw one cell type's probabilities over the epochs, to a PNG or SVG file.

    Args:
        names: the operations, in the order of the logits' columns.
        chosen: the position of the record whose cell was chosen, and is outlined; None: the last.

    Returns:
        Whether there was anything to draw.
    """
    found = [r for r in records if kind in r.get("details", {}).get("logits", {})]
    if not found:
        return False
    history = [probabilities(r["details"]["logits"][kind]) for r in found]
    panels = edge_panels(kind, len(history[0]))
    operations = len(history[0][0])
    nodes, across = panels[-1][0] + 1, panels[-1][1] + 1
    outlined = next((r for r in found if r["position"] == chosen), found[-1])
    kept = kept_edges(outlined, kind)
    size = WIDTH, 0.12 * operations  # a panel's
    width = LEFT + across * (size[0] + GAP[0]) + RIGHT
    height = BOTTOM + nodes * (size[1] + GAP[1])
    FigureCanvasAgg(figure := Figure(figsize=(width, height)))
    seen = [p for epoch in history for row in epoch for p in row]
    # White is the uniform probability, however far the search has moved from it.
    uniform = 1 / operations
    scale = TwoSlopeNorm(uniform, min(*seen, uniform - 1e-4), max(*seen, uniform + 1e-4))
    extent = (found[0]["position"] - 0.5, found[-1]["position"] + 0.5, operations - 0.5, -0.5)
    for edge, (node, source) in enumerate(panels):
        x = LEFT + source * (size[0] + GAP[0])
        y = BOTTOM + (nodes - 1 - node) * (size[1] + GAP[1])
        axes = figure.add_axes((x / width, y / height, size[0] / width, size[1] / height))
        image = axes.imshow(
            [[epoch[edge][k] for epoch in history] for k in range(operations)],
            aspect="auto",
            interpolation="nearest",
            cmap="PuOr_r",
            norm=scale,
            extent=extent,
        )
        if outlined is not found[-1]:  # the epoch that the cell is from
            axes.axvline(outlined["position"], color=KEPT, lw=0.8)
        _dress(axes, (node, source), kind, kept.get((node, source), []))
        named = source == 0 and operations == len(names)
        axes.set_yticks(range(operations) if named else [], map(short, names) if named else [])
        if node == nodes - 1:
            axes.set_xlabel("epoch", size=7)
        else:
            axes.set_xticklabels([])
    tall = nodes * (size[1] + GAP[1]) - GAP[1]
    place = (1 - RIGHT / width, (BOTTOM + 0.1 * tall) / height, 0.12 / width, 0.8 * tall / height)
    _scale(figure, image, place, uniform)
    figure.savefig(path, dpi=120)
    return True


def _scale(
    figure: Figure, image: AxesImage, place: tuple[float, float, float, float], uniform: float
) -> None:
    """What the colours stand for."""
    bar = figure.colorbar(image, cax=figure.add_axes(place))
    bar.set_label(f"probability; white: uniform, {uniform:.3g}", size=7)
    bar.ax.tick_params(labelsize=6)


def _dress(axes: Axes, panel: Panel, kind: str, kept: list[str]) -> None:
    """Set title, ticks and frame; those of a kept edge stand out."""
    node, source = panel
    if kind == "recurrent":
        title = f"{source} to {node + 1}"
    else:
        title = f"{('$c_{k-2}$', '$c_{k-1}$', *map(str, range(node)))[source]} to {node}"
    axes.set_title(
        f"{title}: {', '.join(map(short, kept))}" if kept else title,
        size=6,
        color=KEPT if kept else INK,
        fontweight="bold" if kept else "normal",
        pad=2,
    )
    axes.tick_params(labelsize=5.5, length=2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    for spine in axes.spines.values():
        spine.set_edgecolor(KEPT if kept else FAINT)
        spine.set_linewidth(1.6 if kept else 0.5)
