"""What changes from epoch to epoch: the sampler's temperature and learning rates.

Epochs are counted from 0.
"""

from __future__ import annotations

import math


def temperature(epoch: int, epochs: int, start: float, end: float, *, reaches_end: bool) -> float:
    """Linear temperature of a 0-based epoch (paper section 4.2).

    Args:
        reaches_end: True divides by epochs - 1 (the last epoch has `end`); False divides by epochs
            (the authors' 2019 code, which stops one step short).
    """
    steps = epochs - 1 if reaches_end else epochs
    return start - (start - end) * (epoch / steps if steps else 0.0)


def cosine(epoch: int, epochs: int, start: float, end: float) -> float:
    """Cosine learning rate of a 0-based epoch: `start` first, `end` after the last."""
    return end + (start - end) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def exponential(epoch: int, start: float, factor: float) -> float:
    """Learning rate that falls by the same factor every epoch."""
    return start * factor**epoch


def warm_up(epoch: int, epochs: int, end: float) -> float:
    """Learning rate that rises linearly: `end` in the last of the `epochs` that warm up."""
    return end * (epoch + 1) / epochs
