"""Time, memory, kernels and waits of steps on a card (or, tried out, on a CPU).

Contenders run by turns in one process. A repeat is a few steps without waiting in between, as a
training runs them. Every repeat is of the same steps, with the same draws, and these have run
before: what the first call of a kernel takes is not in the figures.
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
from torch.profiler import ProfilerActivity, profile

from tests.bench.timing import Step
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
    limit: float,
    left: Callable[[], float],
) -> dict[str, Figures]:
    """Time contenders by turns.

    Args:
        inner: steps of a repeat, between which nobody waits.
        warm_up: rounds of the same steps beforehand.
        limit: seconds for the repeats of each contender; two are made in any case.
        left: seconds until it must end.

    Returns:
        For each: `ms` of one step (all its parts) with its spread, `parts_ms` (medians), `cpu_ms`
        (processor time of this process), `first_seconds` (of the first round), and on a card
        `step_mib`: memory on top of what was there before the step.
    """
    first = {}
    for name, steps in contenders.items():
        began = time.perf_counter()
        for round in range(warm_up):
            for index in range(inner):
                for step in steps:
                    step(index)
            if round == 0:
                wait(device)
                first[name] = time.perf_counter() - began
    wait(device)
    began = time.perf_counter()
    seen: dict[str, list[Figures]] = {name: [] for name in contenders}
    for repeat in range(repeats):
        late = time.perf_counter() - began > limit * len(contenders) or left() <= 0
        if repeat >= 2 and late:
            break
        for name, steps in contenders.items():
            seen[name].append(_repeat(steps, device, inner))
    return {name: _summary(of) | {"first_seconds": first[name]} for name, of in seen.items()}


def _repeat(steps: Contender, device: torch.device, inner: int) -> Figures:
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    wait(device)
    began, cpu = time.perf_counter(), time.process_time()
    marks = [_mark(device)]
    for index in range(inner):
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
        `kernels` and `kernel_ms` of one step, and of each of its `parts`; `waiting` (the share of
        `ms` in which no kernel runs), `top` (name, ms and number in a step), `calls` (of CUDA's
        functions, in a step).
    """
    each = 1.0 / PROFILED
    times, numbers, calls = Counter[str](), Counter[str](), Counter[str]()
    parts: list[Figures] = []
    for step in steps:
        of_times, of_numbers, of_calls = _profile(step, device)
        parts.append({"kernels": each * of_numbers.total(), "kernel_ms": each * of_times.total()})
        times.update(of_times)
        numbers.update(of_numbers)
        calls.update(of_calls)
    kernel_ms = each * times.total()
    return {
        "kernels": each * numbers.total(),
        "kernel_ms": kernel_ms,
        "waiting": 1 - kernel_ms / ms,
        "parts": parts if len(parts) > 1 else [],
        "top": [
            [name, each * total, each * numbers[name]] for name, total in times.most_common(top)
        ],
        "calls": {name: each * count for name, count in calls.most_common(8)},
    }


def _profile(step: Step, device: torch.device) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Milliseconds and number of every kernel in PROFILED steps, and CUDA's functions' calls."""
    cuda = device.type == "cuda"
    wait(device)
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiled:
        for index in range(PROFILED):
            step(index)
        wait(device)
    times, numbers, calls = Counter[str](), Counter[str](), Counter[str]()
    for event in profiled.events():
        name = event.name
        if event.device_type.name != ("CUDA" if cuda else "CPU"):
            if name.startswith(("cuda", "cu")):
                calls[name] += 1
            continue
        if name.startswith(("Optimizer.", "ProfilerStep")):  # spans, not kernels
            continue
        name = _short(name)
        microseconds = event.time_range.elapsed_us() if cuda else event.self_cpu_time_total
        times[name] += microseconds / 1e3
        numbers[name] += 1
    return times, numbers, calls


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
