"""Language models small enough to train in about a second, on words drawn at random."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from gdas.checkpoint import Segment, State
from gdas.data.text import Tokens
from gdas.randomness import generator
from gdas.rnn.config import Dropouts, TextTrainConfig
from gdas.rnn.genotype import random_recurrent_genotype
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
