"""One process with 2 threads beside two processes with 1: search steps a second on two cores.

    python -m tests.bench.threads SIZE THREADS WHOSE     (one of the processes; see `measure`)

All processes are started first and take steps when told, a round of one way after a round of the
other, so that what else the machine does meets both.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gdas.compute import spare_what_is_loaded
from orchestrator.run import AT_START
from tests.bench.search_step import search_contenders
from tests.bench.timing import ROOT, Size

WAYS = {"one process, 2 threads": (1, 2), "two processes, 1 thread each": (2, 1)}
"""Processes, and threads of each."""

Process = subprocess.Popen[str]


def take_turns(size: Size, threads: int, whose: str) -> None:
    """Take a search step for every line on standard input, and answer with its seconds of CPU."""
    torch.set_num_threads(threads)
    spare_what_is_loaded()
    weight_step, alpha_step = search_contenders(**size, steps=1, of=(whose,))[whose]
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.process_time()
        weight_step(0)
        alpha_step(0)
        print(time.process_time() - began, flush=True)


def start(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Process:
    """Start a process that says when it is ready, and then answers every line with a figure.

    Args:
        environment: what is added to this process's own; an empty value takes a name away.
    """
    line = [sys.executable, "-m", module, *arguments]
    pipe, own = subprocess.PIPE, os.environ | (environment or {})
    env = {key: value for key, value in own.items() if value}
    return subprocess.Popen(line, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, text=True)


def answer(process: Process) -> str:
    """The process's next answer."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a measured process ended with status {process.wait()}")
    return line


def take_round(processes: Sequence[Process], steps: int) -> dict[str, float]:
    """Let the processes take `steps` steps each, all at once."""
    began, cpu = time.perf_counter(), 0.0
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("step\n" * steps)
        process.stdin.flush()
    for process in processes:
        cpu += sum(float(answer(process)) for _ in range(steps))
    wall, total = time.perf_counter() - began, steps * len(processes)
    return {"steps_per_second": total / wall, "cpu_seconds_per_step": cpu / total}


def by_turns(
    teams: Mapping[str, Sequence[Process]], *, repeats: int, steps: int
) -> dict[str, list[dict[str, float]]]:
    """Figures of every round of every team, the teams in turn; then end their processes.

    Args:
        steps: of every process in a round.
    """
    everyone = [process for team in teams.values() for process in team]
    try:
        for process in everyone:
            answer(process)  # it is ready
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in teams}
        for index in range(repeats + 1):
            for name, team in teams.items():
                figures = take_round(team, steps if index else 1)
                if index:  # the first round warms up
                    rounds[name].append(figures)
        return rounds
    finally:
        for process in everyone:
            process.kill()
            process.communicate()


def measure(size: Size, *, repeats: int, steps: int = 2) -> dict[str, Any]:
    """Both ways in turn."""
    line = ("tests.bench.threads", json.dumps(size))
    ways = {
        name: [start(*line, str(t), "ours", environment=AT_START) for _ in range(n)]
        for name, (n, t) in WAYS.items()
    }
    rounds = by_turns(ways, repeats=repeats, steps=steps)
    result: dict[str, Any] = {"size": size, "repeats": repeats, "rounds": rounds}
    for name, of_way in rounds.items():
        keys = of_way[0]
        result[name] = {key: statistics.median(r[key] for r in of_way) for key in keys}
    two, one = (result[name]["steps_per_second"] for name in reversed(WAYS))
    result["two_processes_over_one"] = two / one
    return result


def show(result: dict[str, Any]) -> None:
    print(f"\none process or two, {result['repeats']} rounds, medians")
    for name in WAYS:
        row = result[name]
        print(
            f"{name:>32}: {row['steps_per_second']:.3f} search steps a second, "
            f"{row['cpu_seconds_per_step']:.3f} CPU s a step"
        )
    print(f"two processes do {result['two_processes_over_one']:.2f} of one's work", flush=True)


if __name__ == "__main__":
    take_turns(json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
