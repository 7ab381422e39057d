"""Language models small enough to train in about a second, on words drawn at random."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from gdas.checkpoint import Segment, State, digest, load, save
from gdas.data.text import Tokens
from gdas.randomness import generator
from gdas.rnn.config import Dropouts, TextTrainConfig
from gdas.rnn.genotype import PUBLISHED_RECURRENT, random_recurrent_genotype
from gdas.rnn.train import train_text
from tests.gdas.tiny import CPU

WORDS = 11
CELL = random_recurrent_genotype(1, steps=3)


def random_text(count: int, seed: int) -> Tokens:
    ids_N = torch.randint(WORDS, (count,), generator=generator(seed, "text"), dtype=torch.int32)
    return Tokens(ids_N, WORDS)


def train_config(**changes: Any) -> TextTrainConfig:
    config = TextTrainConfig(
        epochs=3,
        batch_size=4,
        evaluation_batch_size=2,
        bptt=12,
        hidden=6,
        lr=2.0,
        dropouts=Dropouts(output=0.2, hidden=0.1, input=0.2, embedded=0.1, word=0.1),
    )
    return dataclasses.replace(config, **changes)


def training(
    config: TextTrainConfig, checkpoint: State | None = None, *, test: bool = False
) -> Iterator[Segment]:
    tests = random_text(60, 4) if test else None
    train, valid = random_text(400, 2), random_text(80, 3)
    return train_text(config, CELL, train, valid, tests, device=CPU, checkpoint=checkpoint)


GDAS = PUBLISHED_RECURRENT["RNN_GDAS"]
NO_DROPOUT = Dropouts(output=0.0, hidden=0.0, input=0.0, embedded=0.0, word=0.0)


def seen(segment: Segment) -> tuple[object, ...]:
    return segment.position, segment.metrics, segment.details, digest(segment.state)


def interrupted(start: Any, stop: int, folder: Path) -> list[tuple[object, ...]]:
    """Run to the end of epoch `stop`, through a checkpoint, and on from there in a fresh run."""
    passed = []
    for segment in start(None):
        passed.append(seen(segment))
        save(folder, segment, [])
        if segment.position == stop:
            break
    state = load(folder / f"{stop:06d}").state
    return passed + [seen(segment) for segment in start(state)]
