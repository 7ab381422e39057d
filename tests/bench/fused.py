"""The fused kernels: the same steps with them, in PyTorch's operators alone, and plainly written.

Both contenders of a comparison are in one process and take their steps in turn
(tests.bench.timing); a third one there would push what they keep in cache out of it. "ours" is the
library as it is by default, "unfused" the same with `kernels: plain`, "plain" the baseline of
tests.bench.plain. Then the peak memory of a search step, each in a process of its own, what four
processes do on the cores that one leaves idle, and what large pages of memory save.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gdas.cnn.fused import build
from orchestrator.run import AT_START, HUGE_PAGES
from tests.bench import search_step
from tests.bench.steps import KINDS, SizeName
from tests.bench.threads import by_turns, start
from tests.bench.timing import Size, Step, compare, memory_of, words

BOTH = ("plain", "unfused")


@dataclass(frozen=True)
class Row:
    """A step that is measured.

    Attributes:
        build: from a size, the number of steps and a baseline's name to it and "ours".
        goals: the least ratio that is aimed at, over "unfused" and over "plain".
    """

    title: str
    build: Callable[[Size, int, str], Mapping[str, Sequence[Step]]]
    sizes: Mapping[SizeName, Size]
    goals: Mapping[str, float]
    baselines: tuple[str, ...] = BOTH


def _search(size: Size, steps: int, baseline: str) -> Mapping[str, Sequence[Step]]:
    return search_step.search_contenders(**size, steps=steps, of=(baseline, "ours"))


ROWS = (
    Row("search step", _search, KINDS["search step"].sizes, {"unfused": 2.3, "plain": 7.0}),
    Row(
        "NAS-Bench-201 search step",
        lambda size, steps, _: search_step.bench201_contenders(**size, steps=steps),
        {
            "tiny": {"channels": 4, "normals": 1, "batch": 2},
            "default": {"channels": 16, "normals": 5, "batch": 64},
            "paper": {"channels": 16, "normals": 5, "batch": 64},
        },
        {"unfused": 2.0},
        ("unfused",),
    ),
    Row(
        "final training step, CIFAR",
        lambda size, _, baseline: search_step.train_contenders((baseline, "ours"), **size),
        {**KINDS["training step"].sizes, "default": KINDS["training step"].sizes["paper"]},
        {"plain": 3.3},
    ),
    Row(
        "final training step, ImageNet",
        lambda size, _, baseline: search_step.imagenet_contenders((baseline, "ours"), **size),
        {**KINDS["ImageNet step"].sizes, "default": KINDS["ImageNet step"].sizes["paper"]},
        {"plain": 2.5},
    ),
)
MEMORY_GOAL = 0.7
PROCESSES = (1, 4)


def measure(size_name: SizeName, *, repeats: int) -> list[dict[str, Any]]:
    """All rows, the memory, and the processes."""
    torch.set_num_threads(1)
    found = [_row(row, row.sizes[size_name], repeats) for row in ROWS]
    size = KINDS["search step"].sizes[size_name]
    return [*found, _memory(size), _processes(size, repeats), _pages(size, repeats)]


def _row(row: Row, size: Size, repeats: int) -> dict[str, Any]:
    result: dict[str, Any] = {"title": f"{row.title}: {words(size)}", "repeats": repeats}
    result |= {"kernels": build.status(), "cpu_seconds": {}, "ratios": {}, "goals": row.goals}
    for name in row.baselines:
        contenders = row.build(size, repeats + 2, name)
        times = compare(contenders, repeats=repeats, warm_up=1, baseline=name)
        own, of = (
            [sum(parts) for parts in times[whose]["cpu_seconds_of_repeats"]]
            for whose in ("ours", name)
        )
        result["cpu_seconds"][name] = {"ours": statistics.median(own), name: statistics.median(of)}
        result["ratios"][name] = sorted(a / b for a, b in zip(of, own, strict=True))
        del contenders
    return result


def _memory(size: Size) -> dict[str, Any]:
    of = {name: memory_of("search step", name, size) for name in ("unfused", "ours")}
    return {"title": f"search step: {words(size)}", "memory": of}


def _processes(size: Size, repeats: int) -> dict[str, Any]:
    """Search steps a second of one process and of four, with one thread each."""
    line = ("tests.bench.threads", json.dumps(size), "1")
    result: dict[str, Any] = {"title": f"search step: {words(size)}", "repeats": repeats}
    result |= {"cores": os.cpu_count(), "processes": {}}
    for whose in ("unfused", "ours"):
        teams = {
            str(count): [start(*line, whose, environment=AT_START) for _ in range(count)]
            for count in PROCESSES
        }
        rounds = by_turns(teams, repeats=repeats, steps=1)
        result["processes"][whose] = {
            count: [own["steps_per_second"] for own in of] for count, of in rounds.items()
        }
    return result


def _pages(size: Size, repeats: int) -> dict[str, Any]:
    """CPU seconds of a search step with large pages of memory, as jobs ask for them, and small."""
    line = ("tests.bench.threads", json.dumps(size), "1")
    small = AT_START | dict.fromkeys(HUGE_PAGES, "")
    result: dict[str, Any] = {"title": f"search step: {words(size)}", "repeats": repeats}
    result["pages"] = {}
    for whose in ("unfused", "ours"):
        teams = {
            way: [start(*line, whose, environment=own)]
            for way, own in (("small", small), ("huge", AT_START))
        }
        rounds = by_turns(teams, repeats=repeats, steps=1)
        result["pages"][whose] = {
            way: [own["cpu_seconds_per_step"] for own in of] for way, of in rounds.items()
        }
    return result


def lines(result: dict[str, Any]) -> list[str]:
    """A result in words, for the page and the terminal."""
    if "memory" in result:
        steps = {name: of["step_mib"] for name, of in result["memory"].items()}
        return [
            f"Peak memory of a {result['title']}: {steps['ours']:.0f} MiB fused, "
            f"{steps['unfused']:.0f} not: {steps['ours'] / steps['unfused']:.2f} of it "
            f"(goal {MEMORY_GOAL})."
        ]
    if "processes" in result:
        return [_of_processes(result, whose) for whose in ("unfused", "ours")]
    if "pages" in result:
        return [_of_pages(result, whose) for whose in ("unfused", "ours")]
    return [_of_pair(result, name) for name in result["ratios"]]


def _of_pair(result: dict[str, Any], name: str) -> str:
    seconds, ratios = result["cpu_seconds"][name], result["ratios"][name]
    return (
        f"{result['title']}: {seconds['ours']:.3f} CPU s, {name} {seconds[name]:.3f}: "
        f"{statistics.median(ratios):.2f} times less ({ratios[0]:.2f} to {ratios[-1]:.2f}, "
        f"n={len(ratios)}{_goal(result['goals'].get(name))})."
    )


def _goal(goal: float | None) -> str:
    return f"; goal {goal:g}" if goal else ""


def _of_processes(result: dict[str, Any], whose: str) -> str:
    one, four = (statistics.median(result["processes"][whose][str(count)]) for count in PROCESSES)
    most = min(PROCESSES[1], result["cores"])
    return (
        f"{result['title']}, {whose}: one process {one:.3f} steps/s, four {four:.3f} on "
        f"{result['cores']} cores: {four / one:.2f} times one's work (linear would be {most}; "
        f"n={result['repeats']})."
    )


def _of_pages(result: dict[str, Any], whose: str) -> str:
    small, huge = (statistics.median(result["pages"][whose][way]) for way in ("small", "huge"))
    return (
        f"{result['title']}, {whose}: {huge:.3f} CPU s with pages of 2 MiB, {small:.3f} with those "
        f"of 4 KiB: {small / huge:.2f} times less (n={result['repeats']})."
    )


def show(results: Sequence[dict[str, Any]]) -> None:
    """Print all results."""
    for result in results:
        for line in lines(result):
            print(line, flush=True)
