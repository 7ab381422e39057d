"""One of several workers of a training on photos, as a process that test_photos.py starts.

Usage: python -m tests.gdas.photo_worker RANK SIZE DATA_FOLDER OUT_FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from gdas.checkpoint import Segment, digest, save
from tests.gdas.photo_folder import photo_training
from tests.gdas.team import joined
from tests.gdas.tiny import latest
from tests.gdas.worker import no_batch_norm


def note(segment: Segment) -> Any:
    return segment.position, segment.metrics, digest(segment.state)


def main(rank: int, size: int, data_folder: Path, out: Path) -> None:
    with joined(rank, size, out):
        whole = [note(segment) for segment in photo_training(data_folder)]
        first = next(photo_training(data_folder))  # half an epoch
        interrupted = [note(first)]
        if first.state is not None:
            save(out / "checkpoints", first, [])
        dist.barrier()
        state = latest(out / "checkpoints").state
        interrupted += [note(segment) for segment in photo_training(data_folder, checkpoint=state)]
        with no_batch_norm():
            *_, last = photo_training(data_folder)
        if last.state is not None:
            torch.save(last.state, out / "without_norm.pt")
        (out / f"worker{rank}.json").write_text(
            json.dumps({"whole": whole, "interrupted": interrupted, "without norm": last.metrics})
        )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
