"""Gradient descent in one pass over the weights.

PyTorch's SGD takes three passes for each weight, and a call for each of them; a supernet has 1,400
weights. Its fused form takes one pass and one call for all; numbers are equal but for rounding. It
wants the momentum of all weights to be there in the first step already; zeros do the same as none.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def sgd(
    weights: Iterable[nn.Parameter],
    *,
    lr: float,
    weight_decay: float,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> torch.optim.SGD:
    """An SGD optimiser; its arguments are those of torch.optim.SGD."""
    optimizer = torch.optim.SGD(
        weights,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=nesterov,
        fused=True,
    )
    if momentum:
        for weight in optimizer.param_groups[0]["params"]:
            optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    return optimizer
