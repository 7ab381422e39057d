"""Stateless randomness: every stream is seeded afresh from what it is for and where it stands.

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
    """Build modules on the CPU inside this block: their initial weights depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "initial weights"))
        yield
