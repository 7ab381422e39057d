"""Time contenders in turn, and measure what memory each one takes.

A contender is the steps that make up one repeat, by turns with the others in one process, so that
what else the machine does meets all alike. Figures are medians; a ratio is the median over the
repeats of one repeat's ratio. The first steps are not counted.
"""

from __future__ import annotations

import json
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Step = Callable[[int], object]
Size = dict[str, int]
Result = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Times:
    """Seconds of every repeat, of every part of a step."""

    cpu: list[list[float]] = field(default_factory=list)
    wall: list[list[float]] = field(default_factory=list)

    def medians(self, of: Sequence[Sequence[float]]) -> list[float]:
        return [statistics.median(part) for part in zip(*of, strict=True)]


def compare(
    contenders: Mapping[str, Sequence[Step]], *, repeats: int, warm_up: int, baseline: str = "plain"
) -> Result:
    """Run the contenders in turn and return all figures.

    Args:
        baseline: whose time is divided by the time of "ours", where there is such a contender.
    """
    times = {name: Times() for name in contenders}
    for index in range(warm_up + repeats):
        for name, steps in contenders.items():
            cpu, wall = [], []
            for step in steps:
                began = time.process_time(), time.perf_counter()
                step(index)
                cpu.append(time.process_time() - began[0])
                wall.append(time.perf_counter() - began[1])
            if index >= warm_up:
                times[name].cpu.append(cpu)
                times[name].wall.append(wall)
    result: Result = {"repeats": repeats, "threads": torch.get_num_threads()}
    for name, t in times.items():
        result[name] = {
            "cpu_seconds": statistics.median(map(sum, t.cpu)),
            "wall_seconds": statistics.median(map(sum, t.wall)),
            "cpu_seconds_of_parts": t.medians(t.cpu),
            "cpu_seconds_of_repeats": t.cpu,
        }
    if baseline in times:
        pairs = zip(times[baseline].cpu, times["ours"].cpu, strict=True)
        ratios = sorted(sum(plain) / sum(ours) for plain, ours in pairs)
        result["ratio"] = statistics.median(ratios)
        result["ratio_lowest"], result["ratio_highest"] = ratios[0], ratios[-1]
    return result


def headline(result: Result) -> str:
    """The line that is the point of a comparison."""
    return f"{result['name']}: {result['ratio']:.1f}× less CPU time than the plain baseline"  # noqa: RUF001


def show(result: Result) -> None:
    """Print a table and the headline."""
    parts = result["parts"]
    print(f"\n{result['title']}; threads {result['threads']}, {result['repeats']} repeats, medians")
    heads = ["", *[f"{p} (CPU s)" for p in parts], "CPU s", "wall s", "peak MiB", "of the step"]
    print("".join(f"{head:>20}" for head in heads))
    for name in ("plain", "ours"):
        row = result[name]
        figures = [*row["cpu_seconds_of_parts"], row["cpu_seconds"], row["wall_seconds"]]
        memory = row.get("memory")
        peaks = [f"{memory[key]:20.0f}" for key in ("peak_mib", "step_mib")] if memory else []
        print(f"{name:>20}" + "".join([f"{figure:20.3f}" for figure in figures] + peaks))
    lowest, highest = result["ratio_lowest"], result["ratio_highest"]
    print(f"ratio of the repeats from {lowest:.2f} to {highest:.2f}")
    print(headline(result), flush=True)


# Memory


def resident_mib(*, peak: bool) -> float:
    """This process's resident memory, now or at its highest."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux: the highest only
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    # On Linux ru_maxrss also remembers the process that started this one; VmHWM does not.
    found = re.search(rf"^{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 2**10


def step_memory(steps: Sequence[Step], repeats: int) -> dict[str, float]:
    """Take the steps in this process, which has done nothing else.

    Returns:
        `peak_mib`: the process's peak resident memory, PyTorch and data with it; `step_mib`: how
        far that is above what was resident before the first step, when the networks were built.
    """
    before = resident_mib(peak=False)
    for index in range(repeats):
        for step in steps:
            step(index)
    peak = resident_mib(peak=True)
    return {"peak_mib": peak, "step_mib": peak - before}


def memory_of(kind: str, contender: str, size: Size, *, repeats: int = 2) -> dict[str, float]:
    """`step_memory` in a process of its own, with one thread (tests.bench.peak)."""
    line = [sys.executable, "-m", "tests.bench.peak", kind, contender, json.dumps(size)]
    done = subprocess.run(
        [*line, str(repeats)], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def words(size: Size) -> str:
    """A size for people: C=16, N=2, batch 64."""
    short = {"channels": "C=", "normals": "N=", "hidden": "hidden ", "vocabulary": "words "}
    return ", ".join(f"{short.get(key, key + ' ')}{value}" for key, value in size.items())
