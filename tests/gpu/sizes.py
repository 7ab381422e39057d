"""How large everything is: the paper's sizes on a card, tiny ones where the pack is tried out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Sizes of the networks and batches.

    Attributes:
        channels, normals, batches: of a search; the first batch is used where one is enough.
        final: channels, normals and batch of a CIFAR training.
        imagenet: channels, normals, batch and side of an image.
        language: hidden size, words, batch and length of a sequence in a training.
        recurrent: the same in a search.
        stages: channels and side of what a search's cells work on.
        batch: of checks that compare arithmetic, where a small one is enough.
        steps, few: of an epoch in checks of exactness, of an image search and of others.
        repeats, inner, warm_up: repeats that are timed, steps in each, rounds of them before.
        limit: seconds for the repeats of each contender.
        draws: architectures that are compared.
        seconds: how long processes that share a card run.
        processes: how many there are.
    """

    channels: int
    normals: int
    batches: tuple[int, ...]
    final: tuple[int, int, int]
    imagenet: tuple[int, int, int, int]
    language: tuple[int, int, int, int]
    recurrent: tuple[int, int, int, int]
    stages: tuple[tuple[int, int], ...]
    batch: int
    steps: int
    few: int
    repeats: int
    inner: int
    warm_up: int
    limit: float
    draws: int
    seconds: float
    processes: tuple[int, ...]


PAPER = Sizes(
    channels=16,
    normals=2,
    batches=(64, 128),
    final=(36, 6, 96),
    imagenet=(50, 4, 128, 224),
    language=(850, 10_000, 64, 35),
    recurrent=(300, 10_000, 128, 35),
    stages=((16, 32), (32, 16), (64, 8)),
    batch=16,
    steps=10,
    few=5,
    repeats=5,
    inner=3,
    warm_up=2,
    limit=4.0,
    draws=2,
    seconds=4.0,
    processes=(1, 2, 4),
)
TRIAL = Sizes(
    channels=4,
    normals=1,
    batches=(4,),
    final=(4, 1, 4),
    imagenet=(4, 1, 2, 64),
    language=(8, 50, 2, 8),
    recurrent=(8, 50, 4, 4),
    stages=((8, 8),),
    batch=4,
    steps=1,
    few=1,
    repeats=1,
    inner=1,
    warm_up=1,
    limit=0.0,
    draws=1,
    seconds=0.2,
    processes=(1, 2),
)
