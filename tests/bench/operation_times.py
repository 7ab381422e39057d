"""Where a step's time goes: PyTorch's profiler, by operation and by kind of operation."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

# The profiler's own messages, such as that there is no GPU, are not for a benchmark's output.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

from torch.profiler import ProfilerActivity, profile

from tests.bench.timing import Step

GROUPS = {
    "convolutions": ("conv",),
    "matrix products": ("aten::addmm", "aten::mm", "aten::bmm"),
    "batch norm": ("batch_norm",),
    "pooling": ("pool",),
    "ReLU": ("relu", "threshold"),
    "additions": ("aten::add", "aten::sum"),
    "optimiser": ("_foreach", "_fused"),
    "copies": ("copy", "aten::cat", "contiguous", "clone", "fill", "zero"),
}
"""Kinds of operations by what is in their names; the first that fits counts."""
OTHER = "other"


def operation_seconds(steps: Sequence[Step], index: int) -> dict[str, float]:
    """CPU seconds of every operation itself, without those that it calls, in one repeat."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for step in steps:
            step(index)
    return {event.key: event.self_cpu_time_total / 1e6 for event in seen.key_averages()}


def top_operations(steps: Sequence[Step], index: int, count: int = 5) -> list[tuple[str, float]]:
    """The operations with the most time, and their shares of all."""
    seconds = operation_seconds(steps, index)
    total = sum(seconds.values())
    return [(name, spent / total) for name, spent in Counter(seconds).most_common(count)]


def group_seconds(steps: Sequence[Step], index: int) -> dict[str, float]:
    """Seconds by kind of operation."""
    groups: Counter[str] = Counter()
    for name, spent in operation_seconds(steps, index).items():
        fits = (g for g, parts in GROUPS.items() if any(part in name for part in parts))
        groups[next(fits, OTHER)] += spent  # type: ignore[assignment]
    return dict(groups)
