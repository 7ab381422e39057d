"""Curves: few are named, very many still fit; epochs on their axis, and round numbers."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest

from orchestrator.report.figures.curves import MOST_NAMED, History, curves, ticks
from tests.orchestrator.written import plain_record


def history(seed: int, segments: int = 1) -> History:
    records = [plain_record(i, metrics={"valid/top1": seed + i}) for i in (1, 2, 3, 4)]
    return History(records, segments)


@pytest.mark.parametrize("searches", [1, MOST_NAMED, 200])
def test_curves_of_any_number_of_searches_are_whole_pictures(searches: int, tmp_path: Path) -> None:
    histories = {f"search-<a>-seed{seed}": history(seed) for seed in range(searches)}
    path = tmp_path / "curves.svg"
    shown = curves(path, "Curves", histories, [("valid/top1", "top-1 & b"), ("valid/loss", "none")])
    picture = ElementTree.parse(path)
    lines = [p for p in picture.iter("{http://www.w3.org/2000/svg}path") if p.get("fill") == "none"]
    assert len(lines) == searches
    assert shown.page.count("</span>") == (searches if searches <= MOST_NAMED else 0), "the legend"
    assert shown.markdown == "\n![Curves](curves.svg)\n"


def test_segments_are_drawn_at_the_epochs_that_they_are_parts_of(tmp_path: Path) -> None:
    """Two epochs of two segments end at epoch 2, not at 4."""
    shown = curves(tmp_path / "a.svg", "a", {"one": history(0, segments=2)}, [("valid/top1", "t")])
    found = re.search(r"data-lines='([^']*)'", shown.page)
    assert found is not None
    (line,) = json.loads(unescape(found[1]))
    assert line == {"name": "one", "points": [[0.5, 1], [1, 2], [1.5, 3], [2, 4]]}
    assert ">2</text>" in shown.page and "after epoch 0.5" in shown.page


@pytest.mark.parametrize(
    ("low", "high", "whole", "expected"),
    [
        (0.0, 1.0, False, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (1, 3, True, [1, 2, 3]),
        (1, 240, True, [50, 100, 150, 200]),
        (-3e-5, 3e-5, False, [-2e-5, 0.0, 2e-5]),
        (90.2, 95.9, False, [92, 94]),
    ],
)
def test_ticks_are_round(low: float, high: float, whole: bool, expected: list[float]) -> None:
    assert ticks(low, high, whole=whole) == pytest.approx(expected)
