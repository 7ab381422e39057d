"""How a search step's cost grows over C, N and batch, beside its multiply-adds.

One of the three is changed at a time. Multiply-adds are those of the architectures that the
measured steps draw: a W step is a forward and twice that backward, an alpha step a forward and
once that backward, which needs no gradients of weights. What grows faster than its arithmetic is
found by kind of operation, from a profile of each size.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch

from gdas.randomness import generator
from gdas.search import draw_architecture
from gdas.metrics import count_multiply_adds
from tests.bench.operation_times import group_seconds
from tests.bench.plain import PlainSupernet
from tests.bench.search_step import CLASSES, CPU, TAU, search_contenders, search_settings
from tests.bench.timing import Size, compare, words

W_STEP, ALPHA_STEP = 3, 2
"""Passes of a forward pass's arithmetic."""
FASTER = 1.15
"""A cost that grows by this factor more than the multiply-adds is named."""
LEAST_SHARE = 0.03
"""Kinds of operations that take less of the time are not named: noise."""


def multiply_adds(size: Size, indices: range) -> float:
    """Multiply-adds of a W step and an alpha step, a mean over the draws of steps `indices`."""
    network = PlainSupernet(CLASSES, channels=size["channels"], normals_per_block=size["normals"])
    config = search_settings(**size)
    logits = {
        kind: torch.zeros(14, 8).normal_(generator=generator(0, kind)) for kind in ()
    } or _logits(config)
    kinds = _kinds(size["normals"])
    image = torch.zeros(1, 3, 32, 32)
    totals = []
    for index in indices:
        total = 0
        for stream, passes in (("weights", W_STEP), ("alpha", ALPHA_STEP)):
            draw = generator(config.seed, f"gumbel of {stream}", 0, index)
            one = draw_architecture(logits, kinds, config.sampler, TAU, draw, gate_device=CPU)
            total += passes * count_multiply_adds(network, image, one.picks, one.gates)
        totals.append(size["batch"] * total)
    return statistics.mean(totals)
