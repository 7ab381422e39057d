"""What a step draws: for every cell of a network the operations that run, and their gates.

Source: paper Eq. 3, 5 to 7, and section 3.2, "Acceleration".

Shapes: B batch, E edges, K operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gdas.config import SamplerConfig
from gdas.method import Gumbel, Method, method_of
from gdas.sampler import Draw, Pick, draw_operations


class Architecture(NamedTuple):
    """A drawn architecture: the operations that run in every cell and, in an alpha step, its gates.

    Attributes:
        picks: for every cell, the (edge, operation) pairs that run.
        gates: for every cell, its E x K gate on the device (B x E x K if every image has its own
            draw), or None for a cell that is not searched. None in a W step of hard draws, in which
            the gate would be 1 at every pick.
        samples: for every cell, the operation that each image runs on each edge, B x E on the CPU;
            None if the batch shares a draw. A smaller last batch uses the first rows.
        drawn: for every cell, the operation drawn on each edge, if the undrawn ones run too, times
            0; else None.
    """

    picks: list[list[Pick]]
    gates: list[Tensor | None] | None
    samples: list[Tensor | None] | None = None
    drawn: list[list[int]] | None = None


def draw_architecture(
    logits: dict[str, Tensor],
    cell_types: Sequence[str],
    config: SamplerConfig,
    tau: float,
    generator: torch.Generator,
    *,
    gate_device: torch.device | None = None,
    batch: int = 1,
    method: Method | None = None,
) -> Architecture:
    """Draw the whole network's operations.

    Args:
        cell_types: for every cell, the key of its logits; cells without logits are not drawn.
        config: its `scope` decides whether cells of one type, and the images of a batch, share a
            draw.
        tau: the temperature.
        generator: the only source of randomness.
        gate_device: the device for the gates; None: no gates (W step).
        batch: B, the number of images, if each has its own draw.
        method: how; None: the one that `config` names.
    """
    if config.scope == "data_sample":
        return _draw_for_samples(logits, cell_types, tau, generator, gate_device, batch)
    method = method or method_of(config)
    drawn: dict[str, Draw] = {}
    keys: list[str | None] = []
    for i, cell_type in enumerate(cell_types):
        if cell_type not in logits:
            keys.append(None)
            continue
        key = cell_type if config.scope == "cell_type" else f"{cell_type} {i}"
        keys.append(key)
        if key not in drawn:
            drawn[key] = method.draw(cell_type, logits[cell_type], tau, generator)
    picks = [method.runs(drawn[key]) if key else [] for key in keys]
    if gate_device is None:
        return Architecture(picks, None)
    all_of_hard = isinstance(method, Gumbel) and method.all_run
    operations = [drawn[key].operations if key else [] for key in keys] if all_of_hard else None
    # One small copy to the device for all draws.
    stacked = torch.stack([draw.gate_EK for draw in drawn.values()])
    moved = dict(zip(drawn, stacked.to(gate_device, non_blocking=True), strict=True))
    gates = [moved[key] if key else None for key in keys]
    return Architecture(picks, gates, drawn=operations)


def _draw_for_samples(
    logits: dict[str, Tensor],
    cell_types: Sequence[str],
    tau: float,
    generator: torch.Generator,
    gate_device: torch.device | None,
    batch: int,
) -> Architecture:
    """Draw an operation for every image on every edge of every cell (text after Eq. 9)."""
    picks: list[list[Pick]] = []
    gates: list[Tensor | None] = []
    samples: list[Tensor | None] = []
    for cell_type in cell_types:
        if cell_type not in logits:
            picks.append([])
            gates.append(None)
            samples.append(None)
            continue
        edges, operations = logits[cell_type].shape
        repeated = logits[cell_type].expand(batch, edges, operations).flatten(0, 1)
        draw = draw_operations(repeated, tau, generator=generator)
        operation_BE = torch.tensor(draw.operations).view(batch, edges)
        samples.append(operation_BE)
        picks.append([(e, k) for e in range(edges) for k in operation_BE[:, e].unique().tolist()])
        gate_BEK = draw.gate_EK.view(batch, edges, operations)
        gates.append(gate_BEK.to(gate_device, non_blocking=True) if gate_device else None)
    return Architecture(picks, gates if gate_device is not None else None, samples)
