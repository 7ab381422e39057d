"""Stateless randomness: every stream is seeded afresh from its purpose and its position.

There is no generator state to save or to forget: a run that starts again at epoch e draws what the
uninterrupted run drew there. A seed is a hash of (run seed, stream name, position...).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator


def derive_seed(seed: int, stream: str, *position: int) -> int:
    """A 63-bit seed for `stream` ("order", "augmentation", "gumbel", ...) at `position`."""
    text = "/".join([str(seed), stream, *(str(p) for p in position)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def generator(seed: int, stream: str, *position: int) -> Generator:
    """A CPU generator for `stream` at `position`."""
    return Generator().manual_seed(derive_seed(seed, stream, *position))


@contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Make the initial weights of modules that are built in this block depend on `seed` alone.

    The modules must be built on the CPU. The global generator is restored afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "initial weights"))
        yield
