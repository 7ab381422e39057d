"""The language model that is searched: the parts of a derived one, around a search cell.

Shapes: T time steps, B batch, N hidden, V words, E edges, K operations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from gdas.field_types import require_type
from gdas.rnn.cell import SearchCell
from gdas.rnn.derive import CELL_TYPE
from gdas.rnn.genotype import RECURRENT_OPERATIONS
from gdas.rnn.language_model import Words
from gdas.rnn.regularisation import NO_MASKS, Masks
from gdas.sampler import Pick

INITIAL_SPREAD = 1e-3


class RecurrentSupernet(nn.Module):
    """A language model whose cell runs the drawn operations."""

    def __init__(self, vocabulary: int, *, hidden: int = 300, steps: int = 8) -> None:
        super().__init__()
        require_type(steps, int, "steps", least=1)
        self.words = Words(vocabulary, hidden)
        self.cell = SearchCell(steps, hidden)

    def initial_logits(self, generator: Generator) -> dict[str, Tensor]:
        """E x K logits, normal with standard deviation 0.001 (authors' code), on the CPU."""
        shape = (self.cell.edges, len(RECURRENT_OPERATIONS))
        logits_EK = INITIAL_SPREAD * torch.randn(shape, generator=generator)
        return {CELL_TYPE: logits_EK.requires_grad_()}

    def initial_hidden(self, batch: int) -> Tensor:
        """The hidden state at the beginning of a text: zeros, B x N."""
        return self.words.weight_VN.new_zeros(batch, self.cell.hidden)

    def forward(
        self,
        tokens_TB: Tensor,
        hidden_BN: Tensor,
        picks: Sequence[Pick],
        gate_EK: Tensor | None = None,
        masks: Masks = NO_MASKS,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores T x B x V of the next words, the cell's outputs T x B x N, the next hidden state.

        Args:
            picks: (edge, operation) pairs that run.
            gate_EK: the factors of all (edge, operation) pairs; None: 1.
        """
        x_TBN = self.words.embed(tokens_TB, masks)
        outputs_TBN = self.cell(x_TBN, hidden_BN, picks, gate_EK, masks.input_BN, masks.hidden_BN)
        return self.words.score(outputs_TBN, masks), outputs_TBN, outputs_TBN[-1]
