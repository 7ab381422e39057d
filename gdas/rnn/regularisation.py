"""Dropout of a language model: every mask is drawn once per sequence and shared by its time steps.

Source: authors' code. Masks are drawn on the CPU from an explicit generator and moved to the
device, so that they depend only on the run's position. Kept values are scaled by 1 / (1 - p).

Shapes: T time steps, B batch, N hidden, V words.

Source: authors' code. Masks are drawn on the CPU from an explicit generator and moved, so that
they depend on nothing but where the run stands; kept values are scaled by 1 / (1 - p).

Shapes: T time steps, B batch, N hidden, V words.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from gdas.rnn.config import Dropouts


class Masks(NamedTuple):
    """The factors for a sequence; None if nothing is dropped.

    Attributes:
        word_V: for whole words of the embedding.
        embedded_BN: for the embedded words (locked dropout).
        input_BN: for the cell's input.
        hidden_BN: for every state that the cell multiplies with a matrix.
        output_BN: for the cell's outputs (locked dropout).
    """

    word_V: Tensor | None = None
    embedded_BN: Tensor | None = None
    input_BN: Tensor | None = None
    hidden_BN: Tensor | None = None
    output_BN: Tensor | None = None

    def share(self, columns: slice) -> Masks:
        """The masks of some columns of the batch; a dropped word is dropped in all columns."""
        word_V, *others = self
        return Masks(word_V, *(None if mask is None else mask[columns] for mask in others))


NO_MASKS = Masks()


def draw_masks(
    dropouts: Dropouts,
    *,
    vocabulary: int,
    batch: int,
    hidden: int,
    generator: Generator,
    device: torch.device,
) -> Masks:
    """Draw all masks of one sequence."""

    def mask(p: float, *shape: int) -> Tensor | None:
        if p == 0:
            return None
        kept = torch.rand(shape, generator=generator) >= p
        return (kept / (1 - p)).to(device, non_blocking=True)

    return Masks(
        word_V=mask(dropouts.word, vocabulary),
        embedded_BN=mask(dropouts.embedded, batch, hidden),
        input_BN=mask(dropouts.input, batch, hidden),
        hidden_BN=mask(dropouts.hidden, batch, hidden),
        output_BN=mask(dropouts.output, batch, hidden),
    )


def dropped(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x` times its mask, if there is one."""
    return x if mask is None else x * mask


def temporal_penalty(outputs_TBN: Tensor) -> Tensor:
    """The mean square of the change from one time step to the next; 0 for a single step."""
    if len(outputs_TBN) < 2:
        return outputs_TBN.new_zeros(())
    return (outputs_TBN[1:] - outputs_TBN[:-1]).float().pow(2).mean()
