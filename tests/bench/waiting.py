"""OpenMP's threads that wait: spinning, as is their default, or sleeping, as jobs have it.

A search step in plain PyTorch with two threads, alone and beside two processes that want the cores.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.run import AT_START, PASSIVE
from tests.bench.threads import by_turns, start
from tests.bench.timing import Size, words

WAYS: dict[str, dict[str, str]] = {
    "spinning": AT_START | dict.fromkeys(PASSIVE, ""),
    "sleeping": AT_START,
}
BUSY = (0, 2)
"""How many processes want the cores beside the measured one."""


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Let this many processes compute for nothing."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure(size: Size, *, repeats: int) -> dict[str, Any]:
    """Both ways in turn, alone and beside others."""
    result: dict[str, Any] = {"size": size, "repeats": repeats, "rows": []}
    arguments = ("tests.bench.threads", json.dumps(size), "2", "unfused")
    for busy in BUSY:
        teams = {way: [start(*arguments, environment=own)] for way, own in WAYS.items()}
        with busy_loops(busy):
            rounds = by_turns(teams, repeats=repeats, steps=1)
        cpu = {way: [r["cpu_seconds_per_step"] for r in of] for way, of in rounds.items()}
        wall = {way: [1 / r["steps_per_second"] for r in of] for way, of in rounds.items()}
        for way in WAYS:
            result["rows"].append(
                {
                    "busy": busy,
                    "way": way,
                    "cpu": statistics.median(cpu[way]),
                    "cpu_lowest": min(cpu[way]),
                    "cpu_highest": max(cpu[way]),
                    "wall": statistics.median(wall[way]),
                }
            )
    return result


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    print(f"\nwaiting threads, {words(result['size'])}, {result['repeats']} rounds, medians")
    for row in result["rows"]:
        print(
            f"{row['way']:>10} beside {row['busy']} others: {row['cpu']:.2f} CPU s a step "
            f"({row['cpu_lowest']:.2f} to {row['cpu_highest']:.2f}), {row['wall']:.2f} s",
            flush=True,
        )
