"""One worker of a training beside several on the same batch: what averaging gradients costs.

    python -m tests.bench.workers RANK SIZE WORKERS MEETING     (started by `measure`)

A batch is shared out, so its arithmetic stays the same; what it costs more is the workers' own.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from gdas.cnn.config import TrainConfig
from gdas.cnn.genotype import PUBLISHED
from gdas.cnn.train import train_image
from gdas.data.settings import IMAGE_DATA
from tests.bench.search_step import CPU, random_images
from tests.bench.threads import Process, by_turns, start
from tests.bench.timing import Size

WORKERS = (1, 2)
FOREVER = 10**6


def train(size: Size) -> None:
    """Take a training step of GDAS_V1 for every line, by the library's own loop, and answer."""
    config = TrainConfig(
        data=IMAGE_DATA["cifar10"],
        epochs=FOREVER,
        evaluate_every=FOREVER,
        batch_size=size["batch"],
        channels=size["channels"],
        normals_per_block=size["normals"],
        auxiliary_weight=0.0,
    )
    images = random_images(size["batch"])  # an epoch is one step
    rows = torch.arange(size["batch"])
    steps = train_image(
        config, PUBLISHED["GDAS_V1"], images, rows, images, rows, evaluated_on="valid", device=CPU
    )
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.process_time()
        next(steps)
        print(time.process_time() - began, flush=True)


def _team(size: Size, workers: int, folder: str) -> list[Process]:
    meeting = Path(folder) / f"meeting of {workers}"
    line = [json.dumps(size), str(workers), str(meeting)]
    return [start("tests.bench.workers", str(rank), *line) for rank in range(workers)]


def measure(size: Size, *, repeats: int) -> dict[str, Any]:
    """Teams of each size in turn."""
    with tempfile.TemporaryDirectory() as folder:
        teams = {str(workers): _team(size, workers, folder) for workers in WORKERS}
        rounds = by_turns(teams, repeats=repeats, steps=1)
    rows = []
    for workers in WORKERS:
        of_team = rounds[str(workers)]
        cpu = statistics.median(workers * r["cpu_seconds_per_step"] for r in of_team)
        wall = statistics.median(workers / r["steps_per_second"] for r in of_team)
        rows.append({"workers": workers, "cpu_seconds": cpu, "wall_seconds": wall})
    for row in rows:
        row["cost_growth"] = row["cpu_seconds"] / rows[0]["cpu_seconds"]
        row["speed"] = rows[0]["wall_seconds"] / row["wall_seconds"]
    return {"size": size, "repeats": repeats, "workers": rows}


def show(result: dict[str, Any]) -> None:
    print(f"\na training step by workers; one thread each, medians of {result['repeats']} rounds")
    for row in result["workers"]:
        print(
            f"{row['workers']:>10}: {row['cpu_seconds']:.3f} CPU s, {row['wall_seconds']:.3f} s, "
            f"{row['speed']:.2f} times one's speed for {row['cost_growth']:.2f} times its CPU time",
            flush=True,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    team = int(sys.argv[3])
    if team > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{sys.argv[4]}",
            rank=int(sys.argv[1]),
            world_size=team,
            timeout=timedelta(minutes=5),
        )
    train(json.loads(sys.argv[2]))
