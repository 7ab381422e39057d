"""The Gumbel-max sampler with straight-through gradients (paper Eq. 4-7, section 3.1).

Shapes: E edges of one cell, K operations.

Decision: the noise comes from an explicit generator, with u clamped away from 0 and 1, and is drawn
again if anything is not finite (as in the authors' later code). Sums and comparisons are in float32
at least, whatever the precision of the networks: in bfloat16 several operations of a relaxed sample
often share the largest value, and the first of them would be drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

TINY = 1e-10

Pick = tuple[int, int]
"""(edge, operation): one operation that a search cell runs."""


class Draw(NamedTuple):
    """One operation for every edge of a cell.

    Attributes:
        operations: E indices of operations.
        gate_EK: exactly one-hot in value, with the gradient of the relaxed sample (Eq. 7); or
            weights of all operations, if they are mixed.
    """

    operations: list[int]
    gate_EK: Tensor


def gumbel_noise(shape: tuple[int, ...], *, generator: Generator) -> Tensor:
    """Standard Gumbel noise o = -log(-log u), u uniform on (0, 1), float32 (Eq. 6)."""
    u = torch.rand(shape, generator=generator).clamp_(TINY, 1.0 - 1e-7)
    return -torch.log(-torch.log(u))


def draw_operations(
    logits_EK: Tensor, tau: float, *, generator: Generator, soft: bool = False
) -> Draw:
    """Draw one operation for every edge; gradients follow the relaxed sample.

    Source: paper Eq. 5-7. The drawn index follows softmax(logits) whatever `tau` is.

    Args:
        logits_EK: architecture parameters, on the CPU.
        tau: softmax temperature, > 0.
        generator: the only source of randomness.
        soft: whether the gate's value is the relaxed sample itself (the authors' recurrent search).

    Returns:
        `operations` (a list of E ints) and `gate_EK` (one-hot forward, softmax backward).

    Raises:
        ValueError: `tau` <= 0, or `logits_EK` is not a matrix.
        FloatingPointError: the logits are not finite.
    """
    if tau <= 0:
        raise ValueError(f"tau must be positive, got {tau}")
    _check_logits(logits_EK)
    exact_EK = logits_EK.to(torch.promote_types(logits_EK.dtype, torch.float32))
    for _ in range(100):
        noise_EK = gumbel_noise(tuple(logits_EK.shape), generator=generator).to(exact_EK.dtype)
        soft_EK = torch.softmax((exact_EK + noise_EK) / tau, dim=1)
        if torch.isfinite(soft_EK).all():
            break
    else:
        raise FloatingPointError(f"no finite sample in 100 draws at tau {tau}")
    index_E = (exact_EK.detach() + noise_EK).argmax(dim=1)
    if soft:
        return Draw(index_E.tolist(), soft_EK)
    hard_EK = torch.zeros_like(soft_EK).scatter_(1, index_E[:, None], 1.0)
    # x - x is exactly zero, so the value is exactly one-hot while the gradient is soft_EK's.
    gate_EK = hard_EK + (soft_EK - soft_EK.detach())
    return Draw(index_E.tolist(), gate_EK)


def mix_operations(logits_EK: Tensor) -> Draw:
    """Weight all operations by softmax(logits): no noise, no temperature, nothing drawn.

    Source: the continuous relaxation of DARTS, which GDAS is compared with.

    Args:
        logits_EK: architecture parameters, on the CPU.

    Returns:
        The most probable `operations` and the weights as `gate_EK`.

    Raises:
        ValueError: `logits_EK` is not a matrix.
        FloatingPointError: the logits are not finite.
    """
    _check_logits(logits_EK)
    return Draw(logits_EK.argmax(dim=1).tolist(), torch.softmax(logits_EK, dim=1))


def _check_logits(logits_EK: Tensor) -> None:
    if logits_EK.dim() != 2:
        raise ValueError(f"logits must be edges x operations, got {tuple(logits_EK.shape)}")
    if not torch.isfinite(logits_EK).all():
        raise FloatingPointError("logits are not finite: the run has diverged")
