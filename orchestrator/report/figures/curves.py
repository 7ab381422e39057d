"""Curves over the epochs, as SVG: a file for the Markdown, and panels with values on the page.

The page's script reads a panel's points from its `data-lines` and shows their values under the
pointer. Without it the curves are still there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from gdas.files import write_text
from gdas.genotype import any_from_json
from orchestrator.report.parts import Shown
from orchestrator.store.results import GenotypeJson, Record

COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#cf222e", "#57606a", "#bf8700", "#0550ae")
MOST_NAMED = 2 * len(COLOURS)
"""How many lines a legend can name; if there are more, there is no legend."""

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 26, 36
"""A panel's size and margins, in pixels."""

TICKS = 5
TEXT = "font-family='system-ui, sans-serif' font-size"


@dataclass(frozen=True)
class Line:
    """A curve: its name, and its points from left to right."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class History:
    """The records of one job.

    Attributes:
        records: one per segment.
        segments: how many segments an epoch has.
    """

    records: Sequence[Record]
    segments: int = 1

    def points(self, metric: str) -> list[tuple[float, float]]:
        """Epochs done, whole or not, and the metric after them."""
        return [
            (r["position"] / self.segments, r["metrics"][metric])
            for r in self.records
            if metric in r["metrics"]
        ]


def draw(genotype: GenotypeJson, path: Path) -> None:
    """Draw a cell of any space to a PNG or SVG file."""
    from gdas.drawing.draw import draw as draw_cell  # here: a page's first screen needs none

    draw_cell(any_from_json(genotype), path)


def curves(
    path: Path, alt: str, histories: Mapping[str, History], panels: Sequence[tuple[str, str]]
) -> Shown:
    """Draw one panel per metric and one line per history, over the epochs.

    Args:
        path: an SVG file.
        alt: what the figure shows.
        histories: by the line's label.
        panels: (metric, title) of every panel.
    """
    drawn = []
    for metric, title in panels:
        lines = [Line(name, history.points(metric)) for name, history in histories.items()]
        drawn.append((title, [line for line in lines if line.points]))
    names = list(histories) if len(histories) <= MOST_NAMED else []
    rows = -(-len(names) // 4)
    width, height = WIDTH * len(panels), HEIGHT + 18 * rows + 6
    body = "".join(
        f"<g transform='translate({i * WIDTH},0)'>{_panel(title, lines)}</g>"
        for i, (title, lines) in enumerate(drawn)
    )
    legend = "".join(
        f"<g transform='translate({LEFT + width / 4 * (i % 4)},{HEIGHT + 18 * (i // 4) + 8})'>"
        f"<path d='M0,0h18' stroke='{COLOURS[i % len(COLOURS)]}' stroke-width='2'/>"
        f"<text x='24' y='4' {TEXT}='11' fill='#1f2328'>{escape(name)}</text></g>"
        for i, name in enumerate(names)
    )
    whole = (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
        f"viewBox='0 0 {width} {height}'><rect width='100%' height='100%' fill='white'/>"
        f"{body}{legend}</svg>\n"
    )
    write_text(path, whole)
    page = "".join(
        f"<svg class=curves viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{_quoted(title)}' "
        f"data-box='{json.dumps(_box(lines))}' data-lines='{_quoted(_as_data(lines))}'>"
        f"{_panel(title, lines)}</svg>"
        for title, lines in drawn
    )
    named = "".join(
        f"<span><i class='s{i % len(COLOURS)}'></i>{escape(name)}</span>"
        for i, name in enumerate(names)
    )
    figure = f"<figure class=panels aria-label='{_quoted(alt)}'>{page}"
    figure += f"<figcaption class=legend>{named}</figcaption></figure>"
    return Shown(f"\n![{alt}]({path.name})\n", figure)


def _quoted(text: str) -> str:
    return escape(text).replace("'", "&#39;")


def _as_data(lines: Sequence[Line]) -> str:
    """The points for the page's script, to five digits."""
    found = [
        {"name": line.name, "points": [[round(x, 3), float(f"{y:.5g}")] for x, y in line.points]}
        for line in lines
    ]
    return json.dumps(found, separators=(",", ":"))


def _box(lines: Sequence[Line]) -> tuple[float, float, float, float]:
    """The least and greatest x and y that a panel shows."""
    xs = [x for line in lines for x, _ in line.points] or [0.0, 1.0]
    ys = [y for line in lines for _, y in line.points] or [0.0, 1.0]
    low, high = min(ys), max(ys)
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    right = max(xs) if max(xs) > min(xs) else min(xs) + 1
    return min(xs), right, low - pad, high + pad


def _panel(title: str, lines: Sequence[Line]) -> str:
    """One panel's frame, ticks and lines."""
    left, right, low, high = _box(lines)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / (right - left) * (WIDTH - LEFT - RIGHT)
        return LEFT + across, TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f"<text x='{LEFT}' y='15' {TEXT}='12' class='ink' fill='#1f2328'>{escape(title)}</text>"
    ]
    for value in ticks(low, high):
        y = at(left, value)[1]
        parts.append(
            f"<path d='M{LEFT},{y:.1f}H{WIDTH - RIGHT}' stroke='#8c959f' stroke-opacity='.3'/>"
            f"<text x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end' {TEXT}='10' class='faint' "
            f"fill='#57606a'>{value:.6g}</text>"
        )
    for value in ticks(left, right, whole=True):
        x = at(value, low)[0]
        parts.append(
            f"<text x='{x:.1f}' y='{HEIGHT - BOTTOM + 15}' text-anchor='middle' {TEXT}='10' "
            f"class='faint' fill='#57606a'>{value:.6g}</text>"
        )
    parts.append(
        f"<text x='{(LEFT + WIDTH - RIGHT) / 2}' y='{HEIGHT - 5}' text-anchor='middle' {TEXT}='10' "
        "class='faint' fill='#57606a'>epoch</text>"
    )
    for i, line in enumerate(lines):
        colour = COLOURS[i % len(COLOURS)]
        points = [at(x, y) for x, y in line.points]
        path = "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            f"<path d='M{path}' class='s{i % len(COLOURS)}' fill='none' stroke='{colour}' "
            f"stroke-width='1.6'><title>{escape(line.name)}</title></path>"
        )
        if len(points) <= 30:
            parts += [
                f"<circle cx='{x:.1f}' cy='{y:.1f}' r='2.2' class='s{i % len(COLOURS)}' "
                f"fill='{colour}'><title>{escape(line.name)}: {value:.6g} after epoch "
                f"{epoch:.4g}</title></circle>"
                for (x, y), (epoch, value) in zip(points, line.points, strict=True)
            ]
    return "".join(parts)


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round numbers between two numbers, about `TICKS` of them.

    Args:
        whole: whether they are whole numbers, as epochs are.
    """
    rough = (high - low) / TICKS
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= rough)
    if whole:
        step = max(1.0, round(step))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + i) * step, 10) for i in range(count)]
