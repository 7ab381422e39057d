"""Time, memory, kernels and waits of steps on a card (or, tried out, on a CPU).

Contenders run by turns in one process. A repeat is a few steps without waiting in between, as a
training runs them; the first steps are not counted.
"""

from __future__ import annotations

import re
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from tests.gpu.findings import Figures
from tests.gpu.setup import Contender

PROFILED = 2
"""Repeats under the profiler."""


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _mark(device: torch.device) -> Any:
    """A moment: of the card, when it gets there, or of the CPU."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _milliseconds(start: Any, end: Any) -> float:
    if isinstance(start, float):
        return float(1e3 * (end - start))
    return float(start.elapsed_time(end))


def spread(values: list[float]) -> Figures:
    """Median, lowest, highest and number."""
    return {
        "median": statistics.median(values),
        "lowest": min(values),
        "highest": max(values),
        "n": len(values),
    }


def compare(
    contenders: Mapping[str, Contender],
    device: torch.device,
    *,
    repeats: int,
    inner: int,
    warm_up: int,
    left: Callable[[], float],
) -> dict[str, Figures]:
    """Time contenders by turns.

    Args:
        inner: steps of a repeat, between which nobody waits.
        left: seconds until it must end; three repeats are made in any case.

    Returns:
        For each: `ms` of one step (all its parts) with its spread, `parts_ms` (medians), `cpu_ms`
        (processor time of this process), and on a card `step_mib`: memory on top of what was there
        before the step.
    """
    for index in range(warm_up):
        for steps in contenders.values():
            for step in steps:
                step(index)
    wait(device)
    seen: dict[str, list[Figures]] = {name: [] for name in contenders}
    for repeat in range(repeats):
        if repeat >= 3 and left() <= 0:
            break
        for name, steps in contenders.items():
            seen[name].append(_repeat(steps, device, warm_up + repeat * inner, inner))
    return {name: _summary(of) for name, of in seen.items()}


def _repeat(steps: Contender, device: torch.device, first: int, inner: int) -> Figures:
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    wait(device)
    began, cpu = time.perf_counter(), time.process_time()
    marks = [_mark(device)]
    for index in range(first, first + inner):
        for step in steps:
            step(index)
            marks.append(_mark(device))
    cpu = time.process_time() - cpu
    wait(device)
    figures: Figures = {
        "ms": 1e3 * (time.perf_counter() - began) / inner,
        "cpu_ms": 1e3 * cpu / inner,
        "parts": [
            statistics.mean(
                _milliseconds(marks[i], marks[i + 1])
                for i in range(part, len(marks) - 1, len(steps))
            )
            for part in range(len(steps))
        ],
    }
    if cuda:
        figures["step_mib"] = (torch.cuda.max_memory_allocated(device) - before) / 2**20
    return figures


def _summary(repeats: list[Figures]) -> Figures:
    figures: Figures = {
        "ms": spread([of["ms"] for of in repeats]),
        "cpu_ms": statistics.median(of["cpu_ms"] for of in repeats),
        "parts_ms": [
            statistics.median(p) for p in zip(*(r["parts"] for r in repeats), strict=True)
        ],
    }
    if "step_mib" in repeats[0]:
        figures["step_mib"] = max(of["step_mib"] for of in repeats)
    return figures


# Kernels


def kernels(steps: Contender, device: torch.device, *, ms: float, top: int = 12) -> Figures:
    """Which kernels a step runs, and for how much of its time the card waits.

    Args:
        ms: of one step, measured without the profiler, which slows the CPU down.

    Returns:
        `kernels` and `kernel_ms` of one step, `waiting` (the share of `ms` in which no kernel
        runs), `top` (name, ms and number in a step), `calls` (of CUDA's functions, in a step).
    """
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CUDA] if cuda else [ProfilerActivity.CPU]
    wait(device)
    with profile(activities=activities) as profiled:
        for index in range(PROFILED):
            for step in steps:
                step(index)
        wait(device)
    times, numbers, calls = Counter[str](), Counter[str](), Counter[str]()
    for event in profiled.events():
        name = event.name
        if event.device_type != (DeviceType.CUDA if cuda else DeviceType.CPU):
            if name.startswith(("cuda", "cu")):
                calls[name] += 1
            continue
        if name.startswith(("Optimizer.", "ProfilerStep")):  # spans, not kernels
            continue
        name = _short(name)
        times[name] += event.time_range.elapsed_us() if cuda else event.self_cpu_time_total
        numbers[name] += 1
    each = 1.0 / PROFILED
    kernel_ms = each * sum(times.values()) / 1e3
    return {
        "kernels": each * sum(numbers.values()),
        "kernel_ms": kernel_ms,
        "waiting": 1 - kernel_ms / ms,
        "top": [
            [name, each * us / 1e3, each * numbers[name]] for name, us in times.most_common(top)
        ],
        "calls": {name: each * count for name, count in calls.most_common(8)},
    }


def _short(name: str) -> str:
    """A kernel's name without what C++ puts around it."""
    name = re.sub(r"\s*\[.*", "", name.replace("(anonymous namespace)::", ""))
    name = re.sub(r"^void |at::native::|cutlass::|std::", "", name)
    return name[:110]


# Waits


def waits(steps: Contender, device: torch.device) -> Figures:
    """Where one step makes the CPU wait for the card: file and line, and how often."""
    if device.type != "cuda":
        return {"places": {}}
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for step in steps:
                step(0)
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    places = Counter(
        f"{re.sub(r'^.*/(?=gdas/|tests/|torch/)', '', warning.filename)}:{warning.lineno}"
        for warning in caught
        if "synchroniz" in str(warning.message)
    )
    return {"places": dict(places.most_common())}
