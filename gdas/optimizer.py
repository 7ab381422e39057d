"""Gradient descent in one pass over the weights.

PyTorch's SGD takes three passes for each weight, and a call for each of them; a supernet has 1,400
weights. On a CPU its fused form takes one pass and one call for all; numbers are equal but for
rounding. It wants the momentum of all weights to be there in the first step already; zeros do the
same as none. A checkpoint says neither how the optimizer is computed nor has it such zeros, so its
bytes depend on the numbers alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import nn

MOMENTUM = "momentum_buffer"


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
        weights, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
    )
    _fuse(optimizer)
    return optimizer


def saved(optimizer: torch.optim.SGD) -> dict[str, Any]:
    """What a checkpoint holds of it."""
    found = optimizer.state_dict()
    groups = [group | {"fused": None} for group in found["param_groups"]]
    state = {i: own for i, own in found["state"].items() if _has_moved(own)}
    return {"state": state, "param_groups": groups}


def restore(optimizer: torch.optim.SGD, state: dict[str, Any]) -> None:
    """Go on from what a checkpoint holds; the state itself is not changed by later steps."""
    optimizer.load_state_dict(deepcopy(state))
    _fuse(optimizer)


def _has_moved(own: dict[str, Any]) -> bool:
    momentum = own.get(MOMENTUM)
    return momentum is not None and bool(momentum.any())


def _fuse(optimizer: torch.optim.SGD) -> None:
    """Compute all weights at once, if they are on a CPU."""
    for group in optimizer.param_groups:
        if not all(weight.device.type == "cpu" for weight in group["params"]):
            continue
        group["fused"] = True
        for weight in group["params"]:
            if group["momentum"] and optimizer.state[weight].get(MOMENTUM) is None:
                optimizer.state[weight][MOMENTUM] = torch.zeros_like(weight)
