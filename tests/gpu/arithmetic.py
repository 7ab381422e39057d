"""TensorFloat32 on or off, and what was before afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gdas.compute import allow_tf32


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid it, in products and in convolutions alike."""
    before = torch.backends.cudnn.allow_tf32
    allow_tf32(allowed)
    try:
        yield
    finally:
        allow_tf32(before)
