"""What changes from epoch to epoch: the sampler's temperature and the learning rates.

Epochs are counted from 0.
"""

from __future__ import annotations

import math


def temperature(epoch: int, epochs: int, start: float, end: float, *, reaches_end: bool) -> float:
    """The temperature of a 0-based epoch, which falls linearly (paper section 4.2).

    Args:
        XX
    """
    steps = epochs - 1 if reaches_end else epochs
    return start - (start - end) * (epoch / steps if steps else 0.0)


def cosine(epoch: int, epochs: int, start: float, end: float) -> float:
    """The cosine learning rate of a 0-based epoch: `start` first, `end` after the last one."""
    return end + (start - end) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def exponential(epoch: int, start: float, factor: float) -> float:
    """The learning rate of a 0-based epoch, which is multiplied by `factor` every epoch."""
    return start * factor**epoch


def warm_up(epoch: int, epochs: int, end: float) -> float:
    """The learning rate of a 0-based epoch of warm-up, rising linearly to `end` in the last one."""
    return end * (epoch + 1) / epochs
