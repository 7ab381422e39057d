"""The benchmark's parts run at tiny sizes, and the page holds what was measured and no more."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bench import fused, growth, threads, waiting, workers
from tests.bench.__main__ import main
from tests.bench.page import TRIAL, machine, render

TINY = {"channels": 4, "normals": 1, "batch": 2}


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_parts_are_measured_by_name_and_kept_beside_earlier_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "RESULTS.md"
    options = ["--size", "tiny", "--repeats", "2", "--threads", "1", "--no-memory", "--page"]
    main(["search", *options, str(page)])
    main(["train", *options, str(page)])
    printed, written = capsys.readouterr().out, page.read_text()
    parts = json.loads((tmp_path / "results.json").read_text())
    assert list(parts) == ["search", "train"]
    for part, name in (("search", "search step"), ("train", "training step")):
        pattern = rf"{name}: \d+\.\d× less CPU time than the plain baseline"  # noqa: RUF001
        assert len(re.findall(f"^{pattern}$", printed, re.MULTILINE)) == 1
        assert len(re.findall(f"`{pattern}`", written)) == 1
        result = parts[part]["results"][0]
        assert f"{result['ratio']:.1f}×" in written  # noqa: RUF001
        assert len(result["ours"]["cpu_seconds_of_repeats"]) == 2
        assert torch.__version__ in parts[part]["machine"]["versions"]
    assert written.count(TRIAL) == 2, "tiny sizes are no measurement"
    for part in ("text", "data", "threads", "growth", "imagenet"):
        assert f"## {part}" not in written


def test_an_unknown_part_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["serach"])
    assert "unknown part serach; known are search, train" in capsys.readouterr().err


def test_fused_kernels_are_measured_beside_none_and_the_page_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = [fused._row(row, row.sizes["tiny"], 2) for row in fused.ROWS[1:2]]
    found.append({"title": "search step: C=4", "memory": {"unfused": {"step_mib": 10.0}}})
    found[-1]["memory"]["ours"] = {"step_mib": 6.0}
    of = {"1": [2.0, 2.0], "4": [3.0, 3.2]}
    found.append({"title": "search step: C=4", "repeats": 2, "cores": 2})
    found[-1]["processes"] = {"unfused": of, "ours": of}
    fused.show(found)
    said = capsys.readouterr().out
    assert re.search(r"^NAS-Bench-201 search step: .*, unfused .*n=2; goal 2", said, re.M)
    assert "6 MiB fused, 10 not: 0.60 of it (goal 0.7)." in said
    assert "1.55 times one's work (linear would be 2; n=2)" in said
    page = render({"fused": {"machine": machine(), "size_name": "default", "results": found}})
    assert all(f"- {line}" in page for line in said.splitlines())


@pytest.mark.slow
def test_all_rows_of_fused_kernels_and_waiting_threads_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "BUSY", (0,))  # beside others a spinning step takes half a minute
    page = tmp_path / "RESULTS.md"
    for part in ("fused", "waiting"):
        main([part, "--size", "tiny", "--repeats", "1", "--page", str(page)])
    written = page.read_text()
    assert written.count("final training step") == 4 and "Peak memory" in written
    assert "sleeping, beside 0 busy processes" in written and written.count(TRIAL) == 2


@pytest.mark.slow
def test_two_processes_are_measured_beside_one() -> None:
    result = threads.measure(TINY, repeats=1, steps=1)
    one, two = (result[name] for name in threads.WAYS)
    ratio = two["steps_per_second"] / one["steps_per_second"]
    assert result["two_processes_over_one"] == pytest.approx(ratio)
    assert min(one["cpu_seconds_per_step"], two["cpu_seconds_per_step"]) > 0
    content: dict[str, Any] = {"machine": ABOUT, "size_name": "default", "results": [result]}
    assert f"do {ratio:.2f} times one's work" in render({"threads": content})


ABOUT = dict.fromkeys(
    ("processor", "cores", "memory", "system", "load", "versions", "measured"), "x"
)


@pytest.mark.slow
def test_growth_is_beside_that_of_the_multiply_adds() -> None:
    result = growth.measure(TINY, factors=(2.0,), repeats=1)
    base, *others = result["rows"]
    assert [row["changed"] for row in others] == ["channels", "normals", "batch"]
    wider, deeper, larger = (row["arithmetic_growth"] for row in others)
    assert larger == 2.0
    assert 2.0 < wider <= 4.0, "linear in depthwise, quadratic in other convolutions"
    assert 1.0 < deeper < 2.0, "the stem and the reduction cells stay"
    assert base["cost_growth"] == 1.0 and base["faster"] == {}
    written = render({"growth": {"machine": ABOUT, "size_name": "default", "results": [result]}})
    assert "| C=8, N=1, batch 2 |" in written and TRIAL not in written


@pytest.mark.slow
def test_a_batch_is_shared_out_among_workers() -> None:
    result = workers.measure({**TINY, "batch": 8}, repeats=1)
    one, two = result["workers"]
    assert one["cost_growth"] == one["speed"] == 1.0
    assert two["cost_growth"] == pytest.approx(two["cpu_seconds"] / one["cpu_seconds"])
    assert two["speed"] == pytest.approx(one["wall_seconds"] / two["wall_seconds"])
    content = {"machine": ABOUT, "size_name": "default", "results": [result]}
    assert f"| 2 | {two['cpu_seconds']:.3f} |" in render({"growth": content})


def test_what_grows_faster_than_the_arithmetic_is_named() -> None:
    base = {"multiply_adds": 10, "profile_seconds": {"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.01}}
    row = {"multiply_adds": 20, "profile_seconds": {"a": 2.0, "b": 5.0, "c": 1.0, "d": 0.09}}
    assert growth.faster(base, row) == {"b": 2.5}, "d is too small to name"
