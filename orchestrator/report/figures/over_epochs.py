"""A search's cell and probabilities over its epochs, with a slider on the page.

The page shows the cell that was chosen, and every edge's probabilities at that epoch. Its script
adds a slider that redraws both for any epoch; without it this state stays, and can be printed.

Nodes stand on a line. An edge is an arc whose height is the distance of its ends, so no two labels
are at the same place: arcs with the same middle have other distances.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

from gdas.bench201.genotype import EDGES as BENCH201_EDGES
from gdas.bench201.genotype import Bench201Genotype
from gdas.genotype import any_from_json
from gdas.outside import short
from orchestrator.report.figures.probabilities import (
    Panel,
    edge_panels,
    kept_edges,
    probabilities,
)
from orchestrator.store.results import Record

STEP, RISE, MARGIN = 96, 30, 46
"""Pixels between nodes, of an arc's height per node that it spans, and around all."""
CELL_W, CELL_H, NAMES_W = 34, 15, 64
"""The size of a probability's square, and the room for an edge's name."""


def over_epochs(
    records: Sequence[Record], kind: str, names: Sequence[str], chosen: int | None
) -> str | None:
    """HTML of one cell type over the epochs; None if the records have no logits of it.

    Args:
        names: the operations, in the order of the logits' columns.
        chosen: the position of the record whose cell was chosen; None: the last.
    """
    found = [r for r in records if kind in r.get("details", {}).get("logits", {})]
    if not found:
        return None
    positions = [r["position"] for r in found]
    at = positions.index(chosen) if chosen in positions else len(positions) - 1
    history = [probabilities(r["details"]["logits"][kind]) for r in found]
    panels = _panels(kind, len(history[0]))
    if len(names) != len(history[0][0]):  # records of another version
        names = [str(k) for k in range(len(history[0][0]))]
    kept = [_kept(r, kind) for r in found]
    seen = [p for epoch in history for edge in epoch for p in edge]
    least, most = min(seen), max(*seen, min(seen) + 1e-9)
    data = {
        "range": [least, most],
        "epochs": positions,
        "chosen": at,
        "names": list(names),
        "p": [[[round(p, 4) for p in edge] for edge in epoch] for epoch in history],
        "kept": [
            {str(panels.index(panel)): operations for panel, operations in of_epoch.items()}
            for of_epoch in kept
        ],
    }
    text = escape(json.dumps(data, separators=(",", ":"))).replace("'", "&#39;")
    label = f"epoch {positions[at]}" + (", whose cell was chosen" if chosen is not None else "")
    squares = _squares(panels, history[at], kept[at], names, kind, (least, most))
    return (
        f"<figure class=over data-over='{text}'>"
        "<p class=slider hidden><label>epoch <input type=range min=0 "
        f"max={len(positions) - 1} value={at}></label></p><p class=at>{label}</p>"
        f"<div class=both><div class=wide>{_arcs(panels, kept[at], kind)}</div>"
        f"<div class=wide>{squares}</div></div><figcaption>The cell that the logits derive, and "
        "the probability of every operation on every edge: the stronger the colour, the greater, "
        f"from {least:.3f} to {most:.3f}; framed: what the cell keeps.</figcaption></figure>"
    )


def _panels(kind: str, edges: int) -> list[Panel]:
    return [(n - 1, s) for n, s in BENCH201_EDGES] if kind == "cell" else edge_panels(kind, edges)


def _kept(record: Record, kind: str) -> dict[Panel, list[str]]:
    cell = any_from_json(record["details"]["genotype"])
    if isinstance(cell, Bench201Genotype):
        edges = zip(BENCH201_EDGES, cell.operations, strict=True)
        return {(n - 1, s): [operation] for (n, s), operation in edges}
    return kept_edges(record, kind)


def _inputs(kind: str) -> list[str]:
    """The names of what the first node can read."""
    return ["c(k-2)", "c(k-1)"] if kind in ("normal", "reduce") else ["0"]


def _label(node: int, kind: str) -> str:
    """A node's name, as the drawings of cells have it."""
    return str(node if kind in ("normal", "reduce") else node + 1)


def _arcs(panels: Sequence[Panel], kept: dict[Panel, list[str]], kind: str) -> str:
    """The cell: nodes on a line, and an arc for every edge, of which the kept ones are shown."""
    inputs = _inputs(kind)
    nodes = [*inputs, *(_label(node, kind) for node in range(panels[-1][0] + 1))]
    longest = max(node + len(inputs) - source for node, source in panels)
    line = RISE * longest + 24
    width, height = STEP * (len(nodes) - 1) + 2 * MARGIN, line + 26
    parts, labels = [], []
    for e, (node, source) in enumerate(panels):
        start, end = MARGIN + STEP * source, MARGIN + STEP * (node + len(inputs))
        span = node + len(inputs) - source
        top = line - 16 - 2 * RISE * (span - 0.5)
        middle, above = (start + end) / 2, (line - 16 + top) / 2
        operations = kept.get((node, source), [])
        hidden = "" if operations else " class=off"
        parts.append(
            f"<path data-edge={e}{hidden} d='M{start + 6},{line - 12}Q{middle},{top} "
            f"{end - 6},{line - 12}' fill='none'/>"
        )
        labels.append(
            f"<text data-name={e} x='{middle}' y='{above + 3}' text-anchor='middle'>"
            f"{escape(', '.join(map(short, operations)))}</text>"
        )
    for i, name in enumerate(nodes):
        x = MARGIN + STEP * i
        parts.append(
            f"<rect x='{x - 24}' y='{line - 12}' width='48' height='24' rx='6' "
            f"class={'in' if i < len(inputs) else 'node'} /><text x='{x}' y='{line + 4}' "
            f"text-anchor='middle' class=name>{escape(name)}</text>"
        )
    return (
        f"<svg class=arcs width='{width}' height='{height}' viewBox='0 0 {width} {height}' "
        f"role=img aria-label='the cell'>{''.join([*parts, *labels])}</svg>"
    )


def _squares(
    panels: Sequence[Panel],
    p_EK: Sequence[Sequence[float]],
    kept: dict[Panel, list[str]],
    names: Sequence[str],
    kind: str,
    between: tuple[float, float],
) -> str:
    """A row per edge and a square per operation, darker the more probable."""
    sources = _inputs(kind)
    top = 74
    width = 2 * NAMES_W + CELL_W * len(names)
    height = top + CELL_H * len(panels) + 4
    parts = [
        f"<text transform='translate({NAMES_W + CELL_W * (k + 0.6)},{top - 6}) rotate(-40)'>"
        f"{escape(short(name))}</text>"
        for k, name in enumerate(names)
    ]
    for e, (node, source) in enumerate(panels):
        y = top + CELL_H * e
        reads = [*sources, *(_label(i, kind) for i in range(node))][source]
        parts.append(
            f"<text x='{NAMES_W - 6}' y='{y + 11}' text-anchor='end'>{escape(reads)} to "
            f"{_label(node, kind)}</text>"
        )
        for k, name in enumerate(names):
            on = " class=on" if name in kept.get((node, source), []) else ""
            shade = (p_EK[e][k] - between[0]) / (between[1] - between[0])
            parts.append(
                f"<rect data-p='{e},{k}'{on} x='{NAMES_W + CELL_W * k}' y='{y}' "
                f"width='{CELL_W - 2}' height='{CELL_H - 2}' fill-opacity='{shade:.3f}'>"
                f"<title>{escape(name)}: {p_EK[e][k]:.3f}</title></rect>"
            )
    return (
        f"<svg class=squares width='{width}' height='{height}' viewBox='0 0 {width} {height}' "
        f"role=img aria-label='probabilities'>{''.join(parts)}</svg>"
    )
