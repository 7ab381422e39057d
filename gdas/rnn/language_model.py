"""A language model around a derived cell: embedding, cell, and a decoder tied to the embedding.

Source: authors' code (DARTS, AWD-LSTM): one layer, embedding size = hidden size.

Shapes: T time steps, B batch, N hidden, V words.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.field_types import require_type
from gdas.rnn.cell import INITIAL_RANGE, DerivedCell
from gdas.rnn.genotype import RecurrentGenotype
from gdas.rnn.regularisation import NO_MASKS, Masks, dropped


class Words(nn.Module):
    """The table of words, which embeds the input and scores the output."""

    def __init__(self, vocabulary: int, hidden: int) -> None:
        super().__init__()
        require_type(vocabulary, int, "vocabulary", least=1)
        require_type(hidden, int, "hidden", least=1)
        initial_VN = torch.empty(vocabulary, hidden).uniform_(-INITIAL_RANGE, INITIAL_RANGE)
        self.weight_VN = nn.Parameter(initial_VN)
        self.bias_V = nn.Parameter(torch.zeros(vocabulary))

    def embed(self, tokens_TB: Tensor, masks: Masks) -> Tensor:
        """T x B x N embedded words."""
        x_TBN = F.embedding(tokens_TB, self.weight_VN)
        if masks.word_V is not None:
            x_TBN = x_TBN * masks.word_V[tokens_TB, None]
        return dropped(x_TBN, masks.embedded_BN)

    def score(self, outputs_TBN: Tensor, masks: Masks) -> Tensor:
        """T x B x V scores of the next word, before the softmax."""
        return F.linear(dropped(outputs_TBN, masks.output_BN), self.weight_VN, self.bias_V)


class LanguageModel(nn.Module):
    """The language model of a genotype."""

    def __init__(self, genotype: RecurrentGenotype, vocabulary: int, hidden: int) -> None:
        super().__init__()
        self.words = Words(vocabulary, hidden)
        self.cell = DerivedCell(genotype, hidden)

    def initial_hidden(self, batch: int) -> Tensor:
        """The hidden state at the beginning of a text: zeros, B x N."""
        return self.words.weight_VN.new_zeros(batch, self.cell.hidden)

    def forward(
        self, tokens_TB: Tensor, hidden_BN: Tensor, masks: Masks = NO_MASKS
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores T x B x V of the next words, the cell's outputs T x B x N, the next hidden state.

        The hidden state is not detached.
        """
        x_TBN = self.words.embed(tokens_TB, masks)
        outputs_TBN = self.cell(x_TBN, hidden_BN, masks.input_BN, masks.hidden_BN)
        return self.words.score(outputs_TBN, masks), outputs_TBN, outputs_TBN[-1]
