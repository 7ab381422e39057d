"""Draw cells as in the paper's Fig. 3 and 4, to a PNG or SVG file.

In an SVG every edge is a group with a telling id: `normal-0-to-2-skip_connect-0` is the normal
cell's edge from c_{k-2} to its first node, the first of the node's two.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as MplPath

from gdas.bench201.genotype import EDGES, NODES, Bench201Genotype
from gdas.cell_json import Edge, require_genotype
from gdas.cnn.genotype import EDGES_PER_NODE, PUBLISHED, Genotype
from gdas.drawing.layout import INCHES, CellLayout, lay_out_cell
from gdas.genotype import AnyGenotype
from gdas.rnn.genotype import RecurrentGenotype

INK, EDGE_INK = "#1b1f24", "#57606a"
TITLES = {"normal": "normal", "reduce": "reduction"}
TITLE = 0.3
"""Space above and below a cell, for its title."""
FILLS = {"input": "#d3ebd3", "node": "#cfe3f7", "output": "#fbe7b5"}


def draw_genotype(genotype: Genotype, path: Path) -> None:
    """Draw the normal and the reduction cell, one above the other, to a PNG or SVG file."""
    layouts = {"normal": lay_out_cell(genotype.normal, genotype.normal_concat)}
    if genotype.reduce is not None:
        layouts["reduce"] = lay_out_cell(genotype.reduce, genotype.reduce_concat)
    heights = [layout.height + TITLE for layout in layouts.values()]
    if genotype.reduce is None:
        heights.append(FIXED_HEIGHT + TITLE)
    right = max(layout.places[-1][0] for layout in layouts.values()) + 0.6
    figure, rows = _paper(right + 0.6, heights)
    for (kind, layout), axes in zip(layouts.items(), rows, strict=False):
        _draw_cell(axes, layout, kind, f"{TITLES[kind]} cell")
        _frame(axes, right, layout.height)
    if genotype.reduce is None:
        _draw_fixed(rows[-1], right - 0.6)
        _frame(rows[-1], right, FIXED_HEIGHT)
    _save(figure, path)


def draw_fixed_reduction(path: Path) -> None:
    """Draw the fixed reduction cell (paper Fig. 3) to a PNG or SVG file."""
    right = 11.1
    figure, (axes,) = _paper(right + 0.6, [FIXED_HEIGHT + TITLE])
    _draw_fixed(axes, right - 0.6)
    _frame(axes, right, FIXED_HEIGHT)
    _save(figure, path)


def draw(genotype: AnyGenotype, path: Path | str) -> None:
    """Draw a cell of any space to a PNG or SVG file.

    Raises:
        InputError: it is no genotype.
    """
    kinds = (Genotype, RecurrentGenotype, Bench201Genotype)
    require_genotype(genotype, kinds, PUBLISHED, "gdas.cnn.genotype.PUBLISHED")
    match genotype:
        case Genotype():
            draw_genotype(genotype, Path(path))
        case Bench201Genotype():
            draw_bench201(genotype, Path(path))
        case _:
            draw_recurrent(genotype, Path(path))


def _paper(width: float, heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """A figure of `width` units, with axes one above the other, each with the given half height."""
    total = sum(2 * height for height in heights)
    figure = Figure(figsize=(INCHES * width, INCHES * total))
    FigureCanvasAgg(figure)
    top, rows = total, []
    for height in heights:
        top -= 2 * height
        rows.append(figure.add_axes((0.0, top / total, 1.0, 2 * height / total)))
    return figure, rows


def _frame(axes: Axes, right: float, height: float) -> None:
    axes.set_xlim(-0.6, right)
    axes.set_ylim(-height - TITLE, height + TITLE)
    axes.set_axis_off()


def _save(figure: Figure, path: Path) -> None:
    """Save a figure; text stays text in an SVG, and the same cell gives the same bytes."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "gdas"}):
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=130, metadata=metadata)


def draw_recurrent(genotype: RecurrentGenotype, path: Path) -> None:
    """Draw a recurrent cell as a tree with state 0 at its root, to a PNG or SVG file."""
    places = _tree_places(genotype.recurrent)
    right, below = max(x for x, _ in places.values()), min(-1.0, *(y for _, y in places.values()))
    figure = Figure(figsize=(1.1 * right + 3.4, 2.2 - 0.72 * below))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    out = (right + 1.9, below / 2)
    for i, (function, predecessor) in enumerate(genotype.recurrent):
        (x0, y0), (x1, y1) = places[predecessor], places[i + 1]
        gid = f"recurrent-{predecessor}-to-{i + 1}-{function}"
        _arrow(axes, (x0, y0), (x1 - 0.25, y1), 0.0, function, gid=gid)
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
    _save(figure, path)


BENCH201_HEIGHTS = {(2, 0): 0.75, (3, 0): 1.6, (3, 1): -0.75}
"""How far an edge (node, source) bows if its ends are not adjacent, so that no two cross."""


def draw_bench201(genotype: Bench201Genotype, path: Path) -> None:
    """Draw a cell of NAS-Bench-201, with `none` as a faint arrow, to a PNG or SVG file."""
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
    _save(figure, path)


def _tree_places(recurrent: Sequence[Edge]) -> dict[int, tuple[float, float]]:
    """A column for each distance from state 0; the first reader of a state stays on its line."""
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


def _draw_cell(axes: Axes, layout: CellLayout, kind: str, title: str) -> None:
    nodes = len(layout.places) - 3
    for i, curve in enumerate(layout.curves):
        order = i % EDGES_PER_NODE if curve.operation else 0
        what = f"{curve.operation}-{order}" if curve.operation else "output"
        height = (curve.control[1] - (curve.start[1] + curve.end[1]) / 2) / 2
        gid = f"{kind}-{curve.source}-to-{curve.target}-{what}"
        _arrow(axes, curve.start, curve.end, height, curve.operation, curve.label, gid)
    names = ["c_{k-2}", "c_{k-1}", *(str(node) for node in range(nodes)), "c_{k}"]
    for index, (place, name) in enumerate(zip(layout.places, names, strict=True)):
        last = index == len(names) - 1
        _box(axes, place, name, "input" if index < 2 else "output" if last else "node")
    _title(axes, title, layout.height)


def _title(axes: Axes, title: str, height: float) -> None:
    axes.text(-0.5, height + 0.5 * TITLE, title, size=11, color=INK, ha="left", va="center")


CONVOLUTIONS = (
    *("ReLU", "conv 1x3 /(1,2), 8 groups", "conv 3x1 /(2,1), 8 groups", "BN"),
    *("ReLU", "conv 1x1", "BN"),
)
POOLING = ("max pool 3x3 /2", "BN")
FIXED_REDUCTION = (
    ("X0", 0, CONVOLUTIONS),
    ("X2", 0, POOLING),
    ("X1", 1, CONVOLUTIONS),
    ("X3", 1, POOLING),
)
"""Branches of the fixed reduction cell: name (by its place in the output), input, layers."""
FIXED_HEIGHT = 1.75


def _draw_fixed(axes: Axes, right: float) -> None:
    """Draw the inputs on the left, one branch per line, and the output on the right."""
    inputs, out = [(0.0, 0.95), (0.0, -0.95)], (right, 0.0)
    lines = (1.45, 0.5, -0.5, -1.45)
    begin, end = 1.15, right - 1.35
    for (name, source, layers), y in zip(FIXED_REDUCTION, lines, strict=True):
        widths = [0.085 * len(layer) + 0.12 for layer in layers]
        gap, x = (end - begin - sum(widths)) / (len(layers) - 1), begin
        into, out_of = f"fixed-{source}-to-{name}", f"fixed-{name}-to-output"
        _arrow(axes, inputs[source], (x, y), 0.0, "", gid=into, color=EDGE_INK)
        for i, (layer, width) in enumerate(zip(layers, widths, strict=True)):
            if i:
                between = f"fixed-{name}-{i}"
                _arrow(axes, (x, y), (x + gap, y), 0.0, "", gid=between, color=EDGE_INK)
                x += gap
            _layer(axes, x, y, width, layer)
            x += width
        last = (out[0] - 0.39, 0.09 * y)
        _arrow(axes, (x, y), last, 0.0, "", gid=out_of, color=EDGE_INK)
        va, aside = ("bottom", 0.08) if y > 0 else ("top", -0.08)
        axes.text(x + 0.12, y + aside, name, size=8, ha="left", va=va, color=INK)
    _box(axes, inputs[0], "c_{k-2}", "input")
    _box(axes, inputs[1], "c_{k-1}", "input")
    _box(axes, out, "c_{k}", "output")
    _title(axes, "reduction cell: fixed (paper Fig. 3); output: X0, X1, X2, X3", FIXED_HEIGHT)


def _layer(axes: Axes, x: float, y: float, width: float, name: str) -> None:
    axes.add_artist(
        FancyBboxPatch(
            (x, y - 0.15),
            width,
            0.3,
            boxstyle="round,pad=0.02,rounding_size=0.06",
            facecolor=FILLS["node"],
            edgecolor=INK,
            linewidth=0.8,
            zorder=4,
        )
    )
    axes.text(x + width / 2, y, name, size=7, ha="center", va="center", color=INK, zorder=5)


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    height: float,
    label: str,
    at: tuple[float, float] | None = None,
    gid: str | None = None,
    color: str | None = None,
) -> None:
    """Draw a quadratic curve through `height` above the middle, faint if it has no label.

    Args:
        at: the middle of the label; None: that of the curve.
        gid: the id of the curve's group in an SVG.
        color: the curve's colour.
    """
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + height)
    control = (middle[0], middle[1] + height)
    arrow = FancyArrowPatch(
        path=MplPath([start, control, end], [MplPath.MOVETO, MplPath.CURVE3, MplPath.CURVE3]),
        arrowstyle="-|>",
        mutation_scale=11,
        color=color or (EDGE_INK if label else "#c8d1da"),
        linewidth=1.2 if label else 0.9,
        zorder=1,
    )
    arrow.set_gid(gid)
    axes.add_artist(arrow)
    if label:
        axes.text(
            *(at or middle),
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
    axes.add_artist(
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
