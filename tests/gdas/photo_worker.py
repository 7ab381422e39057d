"""One of several workers of a training on photos, as a process that test_photos.py starts.

`tests.gdas.team` forks both and calls `main`.
"""

from __future__ import annotations

import json
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


def run_interrupted(data_folder: Path, out: Path) -> list[Any]:
    """A training stopped after half an epoch, and what went on from there."""
    first = next(photo_training(data_folder))
    if first.state is not None:
        save(out / "checkpoints", first, [])
    dist.barrier()
    state = latest(out / "checkpoints").state
    rest = photo_training(data_folder, checkpoint=state)
    return [note(first), *(note(segment) for segment in rest)]


def main(rank: int, size: int, data_folder: Path, out: Path, scenario: str = "") -> None:
    found: dict[str, Any] = {}
    with joined(rank, size, out):
        if scenario == "interrupted":
            found["whole"] = [note(segment) for segment in photo_training(data_folder)]
            found["interrupted"] = run_interrupted(data_folder, out)
        with no_batch_norm():
            *_, last = photo_training(data_folder)
        if last.state is not None:
            torch.save(last.state, out / "without_norm.pt")
        found["without norm"] = last.metrics
        (out / f"worker{rank}.json").write_text(json.dumps(found))
