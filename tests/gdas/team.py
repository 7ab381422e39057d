"""Two workers of a training, each a process of its own: how they start and how they meet."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from gdas.checkpoint import State

ROOT = Path(__file__).parents[2]


def run_team(module: str, data_folder: Path, out: Path, *words: str) -> tuple[list[Any], State]:
    """Run two workers to their end; what each found, and the first one's state without batch norm.

    Args:
        module: run as `python -m MODULE RANK SIZE DATA_FOLDER OUT_FOLDER`; writes `workerRANK.json`
            and, the first one, `without_norm.pt` to OUT_FOLDER.
        words: what else it is started with.
    """
    started = [
        subprocess.Popen(
            [sys.executable, "-m", module, str(rank), "2", str(data_folder), str(out), *words],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors
    finally:
        for process in started:
            process.kill()
    found = [json.loads((out / f"worker{rank}.json").read_text()) for rank in range(2)]
    return found, torch.load(out / "without_norm.pt", weights_only=True)


@contextmanager
def joined(rank: int, size: int, out: Path) -> Iterator[None]:
    """Be one of `size` workers, which leave together."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{out / 'meeting'}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=600),
    )
    yield
    dist.barrier()
    dist.destroy_process_group()
