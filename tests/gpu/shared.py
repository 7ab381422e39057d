"""Shared: seeds of a search as processes that share a card.

    python -m tests.gpu.shared --device cuda --seed 0

is one of them: it builds its search, takes some steps, says "ready", and runs whenever it reads a
number of seconds, answering with the steps that it took.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from functools import partial

import torch

from gdas.compute import open_device
from tests.bench.timing import ROOT
from tests.gpu import setup
from tests.gpu.clock import wait
from tests.gpu.findings import Figures, Findings
from tests.gpu.sizes import PAPER, TRIAL, Sizes

DRAWS = 4
"""Steps that are taken again and again, so that no kernel is called for the first time."""

Worker = subprocess.Popen[str]


def start(device: torch.device, seed: int, precision: str) -> Worker:
    line = [sys.executable, "-m", "tests.gpu.shared", "--device", device.type]
    return subprocess.Popen(
        [*line, "--seed", str(seed), "--precision", precision],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _ask(worker: Worker, line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(line + "\n")
    worker.stdin.flush()


def _answer(worker: Worker) -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline().strip()
    if not line:
        raise RuntimeError("a process of the search ended early")
    return line


def together(workers: list[Worker], seconds: float) -> Figures:
    """Steps a second of each while all run."""
    for worker in workers:
        _ask(worker, str(seconds))
    rates = [float(_answer(worker)) for worker in workers]
    return {"steps_a_second": sum(rates), "each": rates}


def run(of: Findings, device: torch.device, sizes: Sizes) -> None:
    """One process alone, then more at once; all are started beforehand."""
    for precision in ("float32", "bfloat16"):
        of.take(
            precision,
            partial(_seeds, of, device, sizes, precision),
            needs=3 * len(sizes.processes) * sizes.seconds / 2,
        )


def _seeds(of: Findings, device: torch.device, sizes: Sizes, precision: str) -> Figures:
    workers = [start(device, seed, precision) for seed in range(max(sizes.processes))]
    figures: Figures = {"batch": sizes.batches[0], "run_seconds": sizes.seconds}
    try:
        for worker in workers:
            _answer(worker)
        for count in sizes.processes:
            if count > 1 and of.left() <= 0:
                break
            figures[str(count)] = together(workers[:count], sizes.seconds)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--precision", default="float32")
    args = parser.parse_args()
    device = open_device(args.device, threads=1)
    sizes = PAPER if device.type == "cuda" else TRIAL
    batch = sizes.batches[0]
    config = setup.search_config(sizes, batch, "fixed", seed=args.seed, precision=args.precision)
    steps = setup.search_steps(config, setup.search_images(sizes, batch), device)
    for index in range(DRAWS):
        for step in steps:
            step(index)
    wait(device)
    print("ready", flush=True)
    for line in sys.stdin:
        began, taken = time.perf_counter(), 0
        while time.perf_counter() - began < float(line):
            for step in steps:
                step(taken % DRAWS)
            wait(device)
            taken += 1
        print(taken / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main()
