"""The logits on the device: draws, Eq. 7's gradient and Adam, in few launches of fixed shape.

Shapes: T types of cells, D draws of a pass, N searched cells, E edges, K operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gdas.config import AlphaUpdate


@dataclass
class DeviceLogits:
    """The logits, their optimiser's moments, and which cell uses which draw.

    Attributes:
        types: names of the cell types, in the order of the T rows.
        values_TEK, gradient_TEK, mean_TEK, square_TEK: logits, last gradient, Adam's two moments.
        type_of_draw_D, draw_of_cell_N: which row of the logits a draw is from, and which draw a
            searched cell uses.
        cells_of_type: for every type the searched cells that use its logits.
    """

    types: list[str]
    values_TEK: Tensor
    gradient_TEK: Tensor
    mean_TEK: Tensor
    square_TEK: Tensor
    type_of_draw_D: Tensor
    draw_of_cell_N: Tensor
    cells_of_type: list[Tensor]

    @property
    def draws(self) -> tuple[int, int, int]:
        """D, E, K."""
        return len(self.type_of_draw_D), self.values_TEK.shape[1], self.values_TEK.shape[2]


def device_logits(
    logits: dict[str, Tensor], searched: Sequence[str], *, by_type: bool, device: torch.device
) -> DeviceLogits:
    """Move logits to the device.

    Args:
        searched: for every searched cell its type.
        by_type: cells of one type share a draw (sampler.scope=cell_type).
    """
    types = list(logits)
    keys = list(searched) if by_type else [f"{kind} {i}" for i, kind in enumerate(searched)]
    unique = list(dict.fromkeys(keys))
    values = torch.stack([a.detach() for a in logits.values()]).to(device)
    return DeviceLogits(
        types,
        values,
        torch.zeros_like(values),
        torch.zeros_like(values),
        torch.zeros_like(values),
        torch.tensor([types.index(key.split()[0]) for key in unique], device=device),
        torch.tensor([unique.index(key) for key in keys], device=device),
        [
            torch.tensor([i for i, kind in enumerate(searched) if kind == wanted], device=device)
            for wanted in types
        ],
    )


def draw(logits: DeviceLogits, noise_DEK: Tensor) -> tuple[Tensor, Tensor]:
    """Every searched cell's drawn operations (N x E, int64) and the noisy logits (N x E x K)."""
    noisy_DEK = logits.values_TEK.index_select(0, logits.type_of_draw_D) + noise_DEK
    noisy_NEK = noisy_DEK.index_select(0, logits.draw_of_cell_N)
    return noisy_NEK.argmax(dim=2), noisy_NEK


def relaxed_gradient(
    logits: DeviceLogits,
    gate_NE: Tensor,
    operation_NE: Tensor,
    noisy_NEK: Tensor,
    tau: Tensor,
) -> None:
    """Set the logits' gradient from that of the drawn operations' gates (Eq. 7).

    With g a gate's gradient and h the relaxed sample, logit j of an edge that drew k gets
    g / tau * h_k * ((j == k) - h_j); the cells of a type add up.
    """
    soft_NEK = torch.softmax(noisy_NEK / tau, dim=2)
    drawn_NE1 = operation_NE[:, :, None]
    hard_NEK = torch.zeros_like(soft_NEK).scatter_(2, drawn_NE1, 1.0)
    factor_NE1 = gate_NE[:, :, None] / tau * soft_NEK.gather(2, drawn_NE1)
    gradient_NEK = factor_NE1 * (hard_NEK - soft_NEK)
    for i, cells in enumerate(logits.cells_of_type):
        logits.gradient_TEK[i].copy_(gradient_NEK.index_select(0, cells).sum(dim=0))


def adam(logits: DeviceLogits, alpha: AlphaUpdate, corrections_2: Tensor) -> None:
    """A step of torch.optim.Adam, with its weight decay.

    Args:
        corrections_2: of this step, see `corrections`.
    """
    first, second = alpha.betas
    gradient_TEK = logits.gradient_TEK + alpha.weight_decay * logits.values_TEK
    logits.mean_TEK.lerp_(gradient_TEK, 1 - first)
    logits.square_TEK.mul_(second).addcmul_(gradient_TEK, gradient_TEK, value=1 - second)
    size, root = corrections_2[0], corrections_2[1]
    spread_TEK = logits.square_TEK.sqrt() / root + 1e-8
    logits.values_TEK.sub_(size * (logits.mean_TEK / spread_TEK))


def corrections(alpha: AlphaUpdate, taken: int, steps: int) -> Tensor:
    """What corrects Adam's moments in the steps after `taken` ones, S x 2: a rate and a root."""
    first, second = alpha.betas
    rows = [
        (alpha.lr / (1 - first**t), (1 - second**t) ** 0.5)
        for t in range(taken + 1, taken + steps + 1)
    ]
    return torch.tensor(rows, dtype=torch.float32)
