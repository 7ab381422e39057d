"""Curves of a few searches are named, those of very many still fit the picture."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from orchestrator.report.figures.curves import MOST_NAMED, curves
from orchestrator.store.results import Record
from tests.orchestrator.written import plain_record


def history(seed: int) -> list[Record]:
    return [plain_record(i, metrics={"valid/top1": seed + i}) for i in (1, 2, 3)]


@pytest.mark.parametrize("searches", [1, MOST_NAMED, 200])
def test_curves_of_any_number_of_searches_are_drawn_without_a_warning(
    searches: int, tmp_path: Path
) -> None:
    histories = {f"search-a-seed{seed}": history(seed) for seed in range(searches)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves(tmp_path / "curves.png", histories, [("valid/top1", "top-1"), ("valid/top1", "b")])
    assert (tmp_path / "curves.png").stat().st_size > 0
