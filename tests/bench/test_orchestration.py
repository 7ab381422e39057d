"""What the orchestration costs, as the records tell it."""

from __future__ import annotations

import pytest

from orchestrator.store.results import Record
from tests.bench import orchestration
from tests.bench.page import machine, render
from tests.orchestrator.written import plain_record


def records(start: float, *lengths: float, gap: float) -> list[Record]:
    found = []
    for position, seconds in enumerate(lengths, 1):
        end = start + seconds
        found.append(plain_record(position, started=start, time=end, seconds=seconds))
        start = end + gap
    return found


def test_waiting_and_saving_are_told_from_work() -> None:
    jobs = [records(100.0, 10.0, 10.0, gap=0.5), records(120.5, 10.0, 10.0, gap=1.5)]
    together = orchestration._together(jobs)
    assert together["work_seconds"] == pytest.approx(40.0)
    assert together["wall_seconds"] == pytest.approx(42.0)
    assert together["over_ideal"] == pytest.approx(42.0 / 20.0)
    epoch = orchestration._epoch(jobs)
    assert epoch["seconds"] == pytest.approx(10.0)
    assert epoch["saving_seconds"] == pytest.approx(1.0)
    assert epoch["saving_seconds_most"] == pytest.approx(1.5)


def test_the_parts_of_the_start_add_up() -> None:
    seen = {"imports, checks, data": 104.0, "Ray and MLflow": 109.0}
    parts = orchestration._start(100.0, seen, [records(112.0, 1.0, gap=0.0)])
    assert list(parts.values()) == [4.0, 5.0, 3.0]


@pytest.mark.slow
def test_four_searches_are_measured() -> None:
    result = orchestration.measure(orchestration.SIZES["tiny"])
    assert result["epochs"] == 4 * orchestration.SIZES["tiny"]["epochs"]
    assert result["together"]["over_ideal"] > 1
    assert all(seconds > 0 for seconds in result["start"].values())
    assert 0 < result["an epoch"]["driver_cores"] <= result["an epoch"]["other_cores"] < 2
    assert set(result["memory"]) == {"driver", "Ray's servers"}
    content = {"machine": machine(), "size_name": "tiny", "results": [result]}
    page = render({"orchestration": content})
    assert "Command to first training step" in page
