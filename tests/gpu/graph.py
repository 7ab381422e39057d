"""Graph: searches whose steps are CUDA graphs beside eager ones: time, seeds on a card, for real.

    python -m tests.gpu.graph --device cuda --seed 0

is one of several seeds on a card, as in tests.gpu.shared: it says "ready" and the memory that it
takes, then answers a number of seconds with the iterations a second.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from gdas.checkpoint import Segment, State, digest
from gdas.cnn.config import SearchConfig
from gdas.cnn.space import ImageSpace, score_with_shared_weights
from gdas.compute import open_device
from gdas.config import AlphaUpdate
from gdas.data.arrow import Images
from tests.bench.search_step import random_images
from tests.bench.timing import ROOT
from tests.gpu import setup, shared
from tests.gpu.carry import carried
from tests.gpu.clock import spread, wait
from tests.gpu.findings import Figures, Findings
from tests.gpu.sizes import PAPER, TRIAL, Sizes

Reduction = Literal["searched", "fixed"]
EPOCHS, IMAGES = 240, 25_000
"""The paper's search: epochs, and images of each half."""
GRAPH_STEPS = 12
"""Iterations of a repeat; those of an eager search are taken one by one."""
SEEDS = 4


def run(of: Findings, device: torch.device, sizes: Sizes, file: Path) -> None:
    """Time, then seeds that share the card, bits, and a search on real images."""
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        of.note("graph", {"not_run": "needs a CUDA device"})
        return
    batch, smaller = sizes.batches[-1], sizes.batches[0]
    of.take("search, FRC", lambda: speed(of, device, sizes, batch, "fixed"))
    of.take("search, both cells", lambda: speed(of, device, sizes, batch, "searched"))
    of.take("seeds that share the card", lambda: seeds(device, sizes))
    of.take("exact", lambda: exact(device, sizes))
    if smaller != batch:
        name = "search, FRC, smaller batches"
        of.take(name, lambda: speed(of, device, sizes, smaller, "fixed"))
    if file.exists():
        images = carried(file)
        of.take("search on CIFAR-10", lambda: search_for_real(of, device, sizes, images))
    else:
        of.note("search on CIFAR-10", {"not_run": f"no data: {file} is not there"})


# Time


def graph_steps(config: SearchConfig, images: Images, device: torch.device) -> Callable[[], None]:
    """An iteration, of W and of alpha, as two graphs."""
    from gdas.cnn.graph.step import GraphSteps

    space = ImageSpace(config, images, device)
    steps = GraphSteps(config, space)
    space.weights.train()
    count, drawn, taken = space.steps(0), steps.draw_epoch(0), 0

    def take() -> None:
        nonlocal taken
        if taken % count == 0:
            steps.begin_epoch(drawn, config.weights.lr, setup.TAU)
        steps.take(taken % count)
        taken += 1

    return take


def _alternately(steps: setup.Contender) -> Callable[[], None]:
    taken = 0

    def take() -> None:
        nonlocal taken
        for step in steps:
            step(taken)
        taken += 1

    return take


def speed(
    of: Findings, device: torch.device, sizes: Sizes, batch: int, reduction: Reduction
) -> Figures:
    """Milliseconds of an iteration, by turns: graphs, eager, and (both cells) plain."""
    images = setup.search_images(sizes, batch)
    config = setup.search_config(sizes, batch, reduction)
    began = time.perf_counter()
    contenders = {"graph": graph_steps(config, images, device)}
    contenders["graph"]()
    wait(device)
    figures: Figures = {"batch": batch, "first_seconds": time.perf_counter() - began}
    if device.type == "cuda":
        figures["graph_gib"] = torch.cuda.max_memory_allocated() / 2**30
    contenders["eager"] = _alternately(setup.search_steps(config, images, device))
    if reduction == "searched":
        contenders["plain"] = _alternately(setup.plain_search_steps(config, images, device))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(6 if sizes is PAPER else 1):
        if repeat >= 3 and of.left() <= 0:
            break
        for name, take in contenders.items():
            count = GRAPH_STEPS if name == "graph" and sizes is PAPER else 1
            wait(device)
            start = time.perf_counter()
            for _ in range(count):
                take()
            wait(device)
            times[name].append(1e3 * (time.perf_counter() - start) / count)
    for name, all_ms in times.items():
        ms = all_ms[1:] or all_ms  # the first repeat warms up
        minutes = statistics.median(ms) * -(-IMAGES // batch) * EPOCHS / 6e4
        figures[name] = {"ms": spread(ms), "search_minutes": minutes}
    return figures


# Seeds


def seeds(device: torch.device, sizes: Sizes) -> Figures:
    """Iterations a second of one, two and four processes, each a seed of the FRC search."""
    line = [sys.executable, "-m", "tests.gpu.graph", "--device", device.type, "--seed"]
    workers = [
        subprocess.Popen(
            [*line, str(seed)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(SEEDS if sizes is PAPER else 1)
    ]
    figures: Figures = {"batch": sizes.batches[-1], "memory_gib": []}
    try:
        for worker in workers:
            assert worker.stdout is not None
            figures["memory_gib"].append(float(worker.stdout.readline().split()[1]))
        for count in (1, 2, 4):
            if count <= len(workers):
                seconds = sizes.seconds / 2
                figures[str(count)] = shared.together(workers[:count], seconds)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return figures


def main() -> None:
    """One seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    device = open_device(args.device, threads=1)
    sizes = PAPER if device.type == "cuda" else TRIAL
    batch = sizes.batches[-1]
    config = setup.search_config(sizes, batch, "fixed", seed=args.seed)
    take = graph_steps(config, setup.search_images(sizes, batch), device)
    for _ in range(2):
        take()
    wait(device)
    reserved = torch.cuda.memory_reserved() if device.type == "cuda" else 0
    print("ready", reserved / 2**30, flush=True)
    for line in sys.stdin:
        began, taken = time.perf_counter(), 0
        while time.perf_counter() - began < float(line):
            for _ in range(GRAPH_STEPS if sizes is PAPER else 1):
                take()
                taken += 1
            wait(device)
        print(taken / (time.perf_counter() - began), flush=True)


# Bits, and for real


def _segments(
    config: SearchConfig, images: Images, device: torch.device, state: State | None = None
) -> Iterator[Segment]:
    from gdas.cnn.graph.search import run_epochs
    from gdas.cnn.graph.step import GraphSteps

    space = ImageSpace(config, images, device)
    steps = GraphSteps(config, space)
    if state is not None:
        steps.load(state)
    return run_epochs(config, space, steps)


def exact(device: torch.device, sizes: Sizes) -> Figures:
    """Twice, and gone on with after the first epoch."""
    batch = sizes.batches[-1]
    half = sizes.steps * batch + (batch // 2 if sizes is PAPER else 0)  # a smaller last batch
    base = setup.search_config(sizes, batch, "searched")
    config = dataclasses.replace(
        base, epochs=2, train_images=half, valid_images=half, alpha=AlphaUpdate(lr=0.05)
    )
    images = random_images(2 * half)
    digests: list[str] = []
    first: Any = None
    for _ in range(2):
        for segment in _segments(config, images, device):
            digests.append(digest(segment.state))
            if first is None:
                first = {
                    "state": torch.utils._pytree.tree_map(
                        lambda x: x.clone() if isinstance(x, torch.Tensor) else x, segment.state
                    )
                }
    resumed = [digest(s.state) for s in _segments(config, images, device, first["state"])]
    return {"again": digests[:2] == digests[2:], "resumed": resumed == digests[1:2]}


def search_for_real(
    of: Findings, device: torch.device, sizes: Sizes, images: Images, share: float = 0.8
) -> Figures:
    """A whole, if short, search with the fixed reduction cell: as many epochs as there is time."""
    batch = sizes.batches[-1]
    times = []
    for _ in _segments(setup.real_search(sizes, batch, 3 if sizes is PAPER else 1), images, device):
        times.append(time.perf_counter())
    each = times[-1] - times[-2] if len(times) > 1 else 1.0
    epochs = max(1, int(share * of.left() / each)) if sizes is PAPER else 1
    figures: Figures = {"images": len(images), "batch": batch, "epochs": min(epochs, EPOCHS)}
    figures |= {"epoch_seconds": each, "curve": []}
    began, config = time.perf_counter(), setup.real_search(sizes, batch, figures["epochs"])
    for segment in _segments(config, images, device):
        curve = {key: value for key, value in segment.metrics.items() if key != "lr"}
        figures["curve"].append(curve | {"at_seconds": time.perf_counter() - began})
        figures["cell"] = segment.details.get("genotype")
        if segment.position == 1:
            of.note("search on CIFAR-10", figures)
        if of.left() <= 0:
            return figures | {"cut": "the time was over"}
    assert segment.state is not None
    score = score_with_shared_weights(config, images, segment.state, device)
    return figures | {"cell_top1": score.top1}


if __name__ == "__main__":
    main()
