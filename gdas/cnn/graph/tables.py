"""An epoch's random numbers, drawn ahead on the CPU from the same generators as step by step.

They are copied to the device once an epoch and read there at the step's row: which images, how each
is augmented, and the Gumbel noise of every draw. So nothing of a step depends on the host.

Shapes: S steps, B batch, D draws of a pass, E edges, K operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gdas.cnn.config import SearchConfig
from gdas.cnn.halves import ImageHalves
from gdas.data.augment import Moves
from gdas.randomness import generator
from gdas.sampler import gumbel_noise
from gdas.search import Turn

TURNS: tuple[Turn, ...] = ("train", "valid")
STREAMS = {"train": "gumbel of weights", "valid": "gumbel of alpha"}


@dataclass
class Table:
    """An epoch of one of the two steps.

    Attributes:
        rows_SB: int64, numbers of images; a smaller batch fills the first columns.
        moves_SB5: int64, see gdas.data.augment.Moves.
        noise_SDEK: float32.
        sizes: of the S batches.
    """

    rows_SB: Tensor
    moves_SB5: Tensor
    noise_SDEK: Tensor
    sizes: list[int]

    def copy_(self, other: Table) -> None:
        """Take another epoch's numbers into these tensors."""
        for mine, theirs in (
            (self.rows_SB, other.rows_SB),
            (self.moves_SB5, other.moves_SB5),
            (self.noise_SDEK, other.noise_SDEK),
        ):
            mine.copy_(theirs, non_blocking=True)
        self.sizes = other.sizes

    def to(self, device: torch.device) -> Table:
        """The same table on `device`."""
        rows, moves, noise = self.rows_SB, self.moves_SB5, self.noise_SDEK
        return Table(rows.to(device), moves.to(device), noise.to(device), self.sizes)


def draw_table(
    config: SearchConfig, halves: ImageHalves, turn: Turn, epoch: int, draws: Sequence[int]
) -> Table:
    """Draw an epoch of one of the two steps, on the CPU.

    Args:
        draws: D, E, K of a pass.
    """
    steps, batch = halves.steps, config.batch_size
    table = Table(
        torch.zeros(steps, batch, dtype=torch.int64),
        torch.zeros(steps, batch, 5, dtype=torch.int64),
        torch.empty(steps, *draws),
        [],
    )
    wanted_of = halves._for_weights if turn == "train" else halves._for_alpha
    for step in range(steps):
        wanted = wanted_of(epoch, step)
        assert isinstance(wanted.moves, Moves)
        size = len(wanted.rows_B)
        table.rows_SB[step, :size] = wanted.rows_B
        table.moves_SB5[step, :size] = wanted.moves.moves_B5
        table.sizes.append(size)
        noise = generator(config.seed, STREAMS[turn], epoch, step)
        # One call gives the numbers of D calls: the generator goes on from number to number.
        table.noise_SDEK[step] = gumbel_noise(tuple(draws), generator=noise)
    return table
