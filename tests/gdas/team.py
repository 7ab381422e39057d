"""Two workers of a training, each a process of its own: how they start and how they meet.

Usage: python -m tests.gdas.team MODULE DATA_FOLDER OUT_FOLDER [WORD ...]

It imports what the workers need, which takes longer than all that they do, and forks them.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from gdas.checkpoint import Segment, State, save
from tests.gdas.tiny import latest

T = TypeVar("T")

ROOT = Path(__file__).parents[2]


def run_team(module: str, data_folder: Path, out: Path, *words: str) -> tuple[list[Any], State]:
    """Run two workers to their end; what each found, and the first one's state without batch norm.

    Args:
        module: its `main(rank, size, data folder, out folder, *words)` writes `workerRANK.json`
            and, the first one's, `without_norm.pt` to the out folder.
        words: what else its `main` gets.
    """
    command = [sys.executable, "-m", "tests.gdas.team", module, str(data_folder), str(out), *words]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
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


def restarted(
    step: Callable[[State | None], tuple[Segment, T]], epochs: int, folder: Path
) -> list[T]:
    """What `step` notes of every epoch, each a new start from what the first worker saved."""
    noted: list[T] = []
    state: State | None = None
    while len(noted) < epochs:
        segment, note = step(state)
        noted.append(note)
        if segment.state is not None:
            save(folder, segment, [])
        dist.barrier()
        state = latest(folder).state
        dist.barrier()
    return noted


def main(module: str, data_folder: str, out: str, *words: str) -> int:
    """Fork two workers and wait for them; how many of them failed."""
    work = importlib.import_module(module).main
    importlib.import_module("torch._dynamo")  # the first optimiser does
    workers, failed = set[int](), 0
    for rank in range(2):
        if (pid := os.fork()) == 0:
            code = 1
            try:
                work(rank, 2, Path(data_folder), Path(out), *words)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        workers.add(pid)
    while workers:
        pid, status = os.wait()
        workers.discard(pid)
        failed += status != 0
        for other in workers if status else ():
            os.kill(other, signal.SIGKILL)  # it would wait for the one that failed
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
