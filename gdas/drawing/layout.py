"""The layout of a cell's drawing: inputs on the left, nodes in order, output on the right.

This is only geometry, in units of `INCHES`; gdas.drawing.draw draws it. An edge is a quadratic
curve. Edges from c_{k-2} bow above the line of nodes, those from c_{k-1} below it. Edges between
nodes use the side with fewer crossings, and labels the freest place on their edge.

Shapes: P points of a curve, of two coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gdas.cell_json import Edge
from gdas.cnn.genotype import EDGES_PER_NODE
from gdas.outside import short

Point = tuple[float, float]
Points = NDArray[np.float64]

INCHES = 0.78
"""The length of a unit in inches, in both directions."""
STEP = 2.1
"""The distance between nodes."""
NODE = 0.44
INPUT = (0.72, 0.5)
CHARACTER, LINE = 0.078, 0.19
"""Width and height of a label's character; a label has one line."""

PLACES = (0.5, 0.45, 0.55, 0.4, 0.6, 0.35, 0.65, 0.3, 0.7, 0.25, 0.75, 0.8)
"""Where a label may be along its edge, the best place first."""


class Curve(NamedTuple):
    """An edge.

    Attributes:
        source, target: 0 is c_{k-2}, 1 is c_{k-1}, then come the nodes, then the output.
        operation: its label; "" for an edge to the output.
        start, control, end: the points of the quadratic curve.
        label: the middle of the label.
    """

    source: int
    target: int
    operation: str
    start: Point
    control: Point
    end: Point
    label: Point = (0.0, 0.0)


class CellLayout(NamedTuple):
    """The layout of a cell's drawing.

    Attributes:
        places: the places of the inputs, the nodes and the output, by index.
        curves: the genotype's edges in their order, then those from nodes to the output.
        height: how far it reaches above and below the line of nodes.
    """

    places: tuple[Point, ...]
    curves: tuple[Curve, ...]
    height: float


def lay_out_cell(edges: Sequence[Edge], concat: Sequence[int] | None = None) -> CellLayout:
    """Lay out a normal or a reduction cell.

    Args:
        concat: the nodes, numbered from 2, that lead to the output; None: all.
    """
    nodes = len(edges) // EDGES_PER_NODE
    line = [(STEP * (i + 1), 0.0) for i in range(nodes + 1)]
    places: tuple[Point, ...] = ((0.0, 1.0), (0.0, -1.0), *line)
    free = [
        i
        for i, (_, source) in enumerate(edges)
        if source >= 2 and i // EDGES_PER_NODE + 2 - source > 1
    ]
    best: tuple[float, list[Curve]] | None = None
    joined = [node - 2 for node in concat] if concat is not None else list(range(nodes))
    for sides in product((1, -1), repeat=min(len(free), 6)):
        curves = _curves(edges, places, dict(zip(free, sides, strict=False)), sorted(joined))
        cost = _crossings(curves) + 0.01 * sides.count(-1)
        if best is None or cost < best[0]:
            best = cost, curves
    assert best is not None
    labelled = _place_labels(best[1], places)
    reach = [abs(y) for curve in labelled for _, y in points(curve)]
    return CellLayout(places, tuple(labelled), max(1.3, *reach) + 0.3)


def points(curve: Curve, count: int = 48) -> Points:
    """Points along a curve, P x 2."""
    t = np.linspace(0, 1, count)[:, None]
    start, control, end = (np.array(p) for p in (curve.start, curve.control, curve.end))
    return np.asarray((1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end)


def label_box(label: str, middle: Point) -> tuple[float, float, float, float]:
    """Left, bottom, right and top of a label's box."""
    width, (x, y) = CHARACTER * len(label) + 0.06, middle
    return (x - width / 2, y - LINE / 2, x + width / 2, y + LINE / 2)


def node_box(index: int, places: Sequence[Point]) -> tuple[float, float, float, float]:
    """Left, bottom, right and top of the box of an input, a node or the output."""
    x, y = places[index]
    wide = index < 2 or index == len(places) - 1
    width, height = INPUT if wide else (NODE, NODE)
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _curves(
    edges: Sequence[Edge], places: Sequence[Point], sides: dict[int, int], joined: Sequence[int]
) -> list[Curve]:
    """All edges, with those between nodes on the given sides of the line (default: above).

    Args:
        joined: the nodes, numbered from 0, that lead to the output.
    """
    nodes = len(edges) // EDGES_PER_NODE
    curves = []
    for node in range(nodes):
        pair = range(EDGES_PER_NODE * node, EDGES_PER_NODE * (node + 1))
        heights = [_height(edges[i][1], node, sides.get(i, 1)) for i in pair]
        if edges[pair[0]][1] == edges[pair[1]][1]:  # both edges have the same source
            heights[1] += 0.7 if heights[1] >= 0 else -0.7
        # The height of each middle; if both come from one side, the higher one ends outside.
        middles = [places[edges[i][1]][1] / 2 + h for i, h in zip(pair, heights, strict=True)]
        for j, (i, height) in enumerate(zip(pair, heights, strict=True)):
            operation, source = short(edges[i][0]), edges[i][1]
            both = middles[0] * middles[1] > 0 and 0.0 not in heights
            outer = both and abs(middles[j]) > abs(middles[1 - j])
            end = _end(places[node + 2], height, outer=outer)
            curves.append(_curve(source, node + 2, operation, places[source], end, height))
    x, y = places[-1]
    for node in joined:
        below = -0.3 * (nodes - 1 - node)
        end = (x - INPUT[0] / 2 - 0.03, y + 0.2 * below)
        curves.append(_curve(node + 2, nodes + 2, "", places[node + 2], end, below))
    return curves


def _height(source: int, node: int, side: int) -> float:
    """How far the middle of an edge is above the middle of its straight line."""
    if source == 0:
        return 0.34 * node + 0.1
    if source == 1:
        return -0.34 * node - 0.1
    gap = node + 2 - source
    return 0.0 if gap == 1 else side * 0.4 * gap


def _end(place: Point, height: float, *, outer: bool) -> Point:
    """Where an edge meets its node; the outer one of two from the same side meets it at the top."""
    x, y = place
    side = 1 if height > 0 else -1
    if height == 0:
        return (x - NODE / 2 - 0.03, y)
    if outer:
        return (x - 0.02, y + side * (NODE / 2 + 0.03))
    return (x - NODE / 2 - 0.01, y + side * 0.13)


def _curve(
    source: int, target: int, operation: str, start: Point, end: Point, height: float
) -> Curve:
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    return Curve(source, target, operation, start, (middle[0], middle[1] + 2 * height), end)


def _crossings(curves: Sequence[Curve]) -> float:
    """How often edges cross or nearly touch; those to the output, which are faint, count less."""
    sampled = [points(curve, 24) for curve in curves]
    total = 0.0
    for i, j in combinations(range(len(curves)), 2):
        if curves[i].source == curves[j].source:
            continue
        faint = not (curves[i].operation and curves[j].operation)
        met = _crossing(sampled[i], sampled[j]) + 0.2 * _close(sampled[i], sampled[j])
        total += met * (0.25 if faint else 1.0)
    return total


def _crossing(a_P2: Points, b_P2: Points) -> int:
    """How often two polygonal lines cross."""

    def side(p: Points, q: Points, r: Points) -> Points:
        return np.asarray(
            (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1])
            - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])
        )

    p, q = a_P2[:-1, None], a_P2[1:, None]
    r, s = b_P2[None, :-1], b_P2[None, 1:]
    apart = (side(p, q, r) * side(p, q, s) < 0) & (side(r, s, p) * side(r, s, q) < 0)
    return int(apart.sum())


def _close(a_P2: Points, b_P2: Points) -> int:
    """How many points of one edge, except near its ends, nearly touch another edge."""
    apart_PP = np.linalg.norm(a_P2[4:-4, None] - b_P2[None], axis=2)
    return int((apart_PP.min(axis=1) < 0.13).sum())


def _place_labels(curves: Sequence[Curve], places: Sequence[Point]) -> list[Curve]:
    """Place each label where it covers no box and no other label, and few parts of other edges."""
    sampled = [points(curve) for curve in curves]
    taken = [node_box(i, places) for i in range(len(places))]
    labelled = list(curves)
    # Short edges first, since they have the fewest places.
    order = sorted(
        (i for i, curve in enumerate(curves) if curve.operation),
        key=lambda i: curves[i].end[0] - curves[i].start[0],
    )
    for i in order:
        options = []
        for rank, t in enumerate(PLACES):
            at = sampled[i][round(t * (len(sampled[i]) - 1))]
            middle = (float(at[0]), float(at[1]))
            box = label_box(curves[i].operation, middle)
            overlap = sum(overlaps(box, other) for other in taken)
            covered = sum(_inside(sampled[j], box) for j in range(len(curves)) if j != i)
            options.append((100 * overlap + covered + 0.2 * rank, rank, middle, box))
        _, _, middle, box = min(options)
        taken.append(box)
        labelled[i] = curves[i]._replace(label=middle)
    return labelled


def overlaps(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    """Whether two boxes (left, bottom, right, top) overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _inside(points_P2: Points, box: tuple[float, float, float, float]) -> int:
    """How many points are in a box."""
    x, y = points_P2[:, 0], points_P2[:, 1]
    return int(((x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])).sum())
