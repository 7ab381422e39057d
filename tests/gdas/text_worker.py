"""One of several workers of a language model's training, as a process.

`tests.gdas.team` forks both and calls `main`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import gdas.rnn.train
from gdas.checkpoint import Segment, State, digest
from tests.gdas import tiny_text
from tests.gdas.team import joined, restarted
from tests.gdas.tiny_text import train_config

EPOCHS, SWITCH = 5, 2

# Batches of 5 columns: the shares of two workers are 2 and 3; of the test's one column, 0 and 1.
CONFIG = train_config(epochs=EPOCHS, batch_size=5, evaluation_batch_size=3, clip=0.05, temporal=2.0)


def training(checkpoint: State | None = None) -> Iterator[Segment]:
    """Averaging begins after epoch `SWITCH`."""
    gdas.rnn.train.averaging_begins = lambda config, earlier, loss: len(earlier) + 1 >= SWITCH
    return tiny_text.training(CONFIG, checkpoint, test=True)


def note(segment: Segment) -> Any:
    state = None if segment.state is None else digest(segment.state)
    return segment.position, segment.metrics, segment.details, state


def epoch(state: State | None) -> tuple[Segment, Any]:
    segment = next(training(state))
    return segment, note(segment)


def main(rank: int, size: int, data_folder: Path, out: Path) -> None:
    with joined(rank, size, out):
        whole, last = [], None
        for segment in training():
            whole.append(note(segment))
            last = segment.state
        if last is not None:
            torch.save(last, out / "without_norm.pt")
        interrupted = restarted(epoch, EPOCHS, out / "checkpoints")
        found = {"whole": whole, "interrupted": interrupted}
        (out / f"worker{rank}.json").write_text(json.dumps(found))
