"""Drawings of cells, in the manner of the paper's Fig. 4."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as MplPath

from gdas.bench201.genotype import EDGES, NODES, Bench201Genotype
from gdas.genotype import EDGES_PER_NODE, Edge, Genotype, RecurrentGenotype

INK, EDGE_INK = "#1b1f24", "#57606a"
FILLS = {"input": "#d3ebd3", "node": "#cfe3f7", "output": "#fbe7b5"}


def draw_genotype(genotype: Genotype, path: Path) -> None:
    """Draw the normal and the reduction cell, one above the other, to a PNG or SVG file."""
    figure = Figure(figsize=(9, 7.6 if genotype.reduce else 4.4))
    FigureCanvasAgg(figure)
    rows = 2 if genotype.reduce else 1
    _draw_cell(figure.add_subplot(rows, 1, 1), genotype.normal, "normal cell")
    if genotype.reduce:
        _draw_cell(figure.add_subplot(rows, 1, 2), genotype.reduce, "reduction cell")
    else:
        note = "reduction cell: fixed (paper Fig. 3)"
        figure.text(0.5, 0.02, note, ha="center", size=9, color=EDGE_INK)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, dpi=130)


def draw_recurrent(genotype: RecurrentGenotype, path: Path) -> None:
    """Draw a recurrent cell as the tree that it is, state 0 at its root, to a PNG or SVG file."""
    places = _tree_places(genotype.recurrent)
    right, below = max(x for x, _ in places.values()), min(-1.0, *(y for _, y in places.values()))
    figure = Figure(figsize=(1.1 * right + 3.4, 2.2 - 0.72 * below))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    out = (right + 1.9, below / 2)
    for i, (function, predecessor) in enumerate(genotype.recurrent):
        (x0, y0), (x1, y1) = places[predecessor], places[i + 1]
        _arrow(axes, (x0, y0), (x1 - 0.25, y1), 0.0, function)
    _box(axes, places[0], "0", "input")
    for i in range(len(genotype.recurrent)):
        _box(axes, places[i + 1], str(i + 1), "node")
    _box(axes, out, "mean", "output")
    read = "x_{t}, h_{t-1}"
    axes.text(-0.45, 0.0, f"${read}$", size=10, ha="right", va="center", color=INK)
    axes.text(out[0] + 0.5, out[1], "$h_{t}$", size=10, ha="left", va="center", color=INK)
    states = ", ".join(map(str, genotype.concat))
    if genotype.concat == tuple(range(1, len(genotype.recurrent) + 1)):
        states = "all states but 0"
    note = f"of {states}"
    axes.text(out[0], out[1] - 0.5, note, size=8, ha="center", va="center", color=EDGE_INK)
    axes.set_title("recurrent cell", size=11, color=INK, loc="left")
    axes.set_xlim(-1.5, out[0] + 1.1)
    axes.set_ylim(below - 0.4, 0.5)
    axes.set_axis_off()
    figure.tight_layout()
    figure.savefig(path, dpi=130)


BENCH201_HEIGHTS = {(2, 0): 0.75, (3, 0): 1.6, (3, 1): -0.75}
"""How far an edge (node, source) between no neighbours bows: no two of them cross."""


def draw_bench201(genotype: Bench201Genotype, path: Path) -> None:
    """Draw a cell of NAS-Bench-201, `none` as a faint arrow, to a PNG or SVG file."""
    figure = Figure(figsize=(9, 4.2))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    step = 2.4
    for (node, source), operation in zip(EDGES, genotype.operations, strict=True):
        height = BENCH201_HEIGHTS.get((node, source), 0.0)
        side = 0.26 * (height > 0) - 0.26 * (height < 0)
        before = 0.1 if side else 0.39 if node == NODES - 1 else 0.25
        start, end = (step * source, side), (step * node - before, side)
        _arrow(axes, start, end, height, "" if operation == "none" else operation)
    for node in range(NODES):
        kind = {0: "input", NODES - 1: "output"}.get(node, "node")
        _box(axes, (step * node, 0.0), str(node), kind)
    axes.set_title("NAS-Bench-201 cell", size=11, color=INK, loc="left")
    if "none" in genotype.operations:
        figure.text(0.5, 0.03, "faint: none", ha="center", size=9, color=EDGE_INK)
    axes.set_xlim(-0.7, step * (NODES - 1) + 0.7)
    axes.set_ylim(-1.4, 2.3)
    axes.set_axis_off()
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, dpi=130)


def _tree_places(recurrent: Sequence[Edge]) -> dict[int, tuple[float, float]]:
    """A column for each distance from state 0; a state's first reader stays on its line."""
    readers: dict[int, list[int]] = {}
    for i, (_, predecessor) in enumerate(recurrent):
        readers.setdefault(predecessor, []).append(i + 1)
    places: dict[int, tuple[float, float]] = {}
    line, waiting = 0, [(0, 0.0, False)]
    while waiting:
        state, column, new_line = waiting.pop()
        line += new_line
        places[state] = (1.7 * column, float(-line))
        after = [(r, column + 1, j > 0) for j, r in enumerate(readers.get(state, []))]
        waiting += reversed(after)
    return places


def _draw_cell(axes: Axes, edges: Sequence[Edge], title: str) -> None:
    """Nodes on one line; what comes from c_{k-2} bows above it, from c_{k-1} below."""
    nodes = len(edges) // EDGES_PER_NODE
    places = {0: (0.0, 1.0), 1: (0.0, -1.0)} | {i + 2: (2.1 * (i + 1), 0.0) for i in range(nodes)}
    out = (2.1 * (nodes + 1), 0.0)
    for node in range(nodes):
        pair = edges[EDGES_PER_NODE * node : EDGES_PER_NODE * (node + 1)]
        for i, (operation, source) in enumerate(pair):
            again = i == 1 and pair[0][1] == source
            height = _height(source, node) + (0.6 if again else 0.0)
            x, y = places[node + 2]
            side = 0.12 if height > 0 else -0.12 if height < 0 else 0.0
            _arrow(axes, places[source], (x - 0.25, y + side), height, operation)
        below = -0.28 * (nodes - 1 - node)
        _arrow(axes, places[node + 2], (out[0] - 0.39, out[1] + 0.2 * below), below, "")
    names = ["c_{k-2}", "c_{k-1}", *(str(node) for node in range(nodes))]
    for index, name in enumerate(names):
        _box(axes, places[index], name, "input" if index < 2 else "node")
    _box(axes, out, "c_{k}", "output")
    axes.set_title(title, size=11, color=INK, loc="left")
    axes.set_xlim(-0.6, out[0] + 0.6)
    axes.set_ylim(-2.3, 2.3)
    axes.set_axis_off()


def _height(source: int, node: int) -> float:
    """How far the middle of an arrow lies above the middle of its straight line."""
    if source == 0:
        return 0.28 * node + 0.1
    if source == 1:
        return -0.28 * node - 0.1
    return 0.42 * (node + 1 - source)  # 0 between neighbours


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    height: float,
    label: str,
) -> None:
    """A quadratic curve through `height` above the middle; faint where it has no label."""
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + height)
    control = (middle[0], middle[1] + height)
    axes.add_patch(
        FancyArrowPatch(
            path=MplPath([start, control, end], [MplPath.MOVETO, MplPath.CURVE3, MplPath.CURVE3]),
            arrowstyle="-|>",
            mutation_scale=11,
            color=EDGE_INK if label else "#c8d1da",
            linewidth=1.2 if label else 0.9,
            zorder=1,
        )
    )
    if label:
        axes.text(
            *middle,
            label,
            size=7.5,
            ha="center",
            va="center",
            color=INK,
            zorder=3,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.9},
        )


def _box(axes: Axes, place: tuple[float, float], name: str, kind: str) -> None:
    width, height = (0.72, 0.5) if kind != "node" else (0.44, 0.44)
    axes.add_patch(
        FancyBboxPatch(
            (place[0] - width / 2, place[1] - height / 2),
            width,
            height,
            boxstyle="round,pad=0.02,rounding_size=0.1",
            facecolor=FILLS[kind],
            edgecolor=INK,
            linewidth=1.0,
            zorder=4,
        )
    )
    text = f"${name}$" if "_" in name else name
    axes.text(*place, text, size=10, ha="center", va="center", color=INK, zorder=5)
