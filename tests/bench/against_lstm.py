"""The published recurrent cell beside torch.nn.LSTM: one training loop, about equal parameters.

    python -m tests.bench.against_lstm --data DIR [--model cell|lstm] [--epochs 5]

Prints a line of JSON an epoch. The LSTM takes the cell's place inside gdas.rnn.train, so that
data, draws of lengths, dropout of words, inputs and outputs, clipping, optimiser and evaluation
are the same; its hidden state is not dropped (cuDNN's and PyTorch's fused LSTM cannot).

Shapes: T time steps, B batch, N hidden.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import gdas.rnn.train
from gdas.data.text import open_tokens
from gdas.metrics import count_parameters
from gdas.presets import text_train_preset
from gdas.randomness import initial_weights
from gdas.rnn.cell import INITIAL_RANGE
from gdas.rnn.config import Dropouts, TextTrainConfig
from gdas.rnn.genotype import PUBLISHED_RECURRENT, RecurrentGenotype
from gdas.rnn.language_model import Words
from gdas.rnn.regularisation import NO_MASKS, Masks

CELL_HIDDEN = 200
LSTM_HIDDEN = 236  # 2.82 million parameters with 10,000 words; the cell's model has 2.81


class LSTMModel(nn.Module):
    """gdas.rnn.language_model.LanguageModel with an LSTM; the state is [h, c], B x 2N."""

    def __init__(self, vocabulary: int, hidden: int) -> None:
        super().__init__()
        self.words = Words(vocabulary, hidden)
        self.lstm = nn.LSTM(hidden, hidden)
        for p in self.lstm.parameters():
            nn.init.uniform_(p, -INITIAL_RANGE, INITIAL_RANGE)
        self.hidden = hidden

    def initial_hidden(self, batch: int) -> Tensor:
        return self.words.weight_VN.new_zeros(batch, 2 * self.hidden)

    def forward(
        self, tokens_TB: Tensor, state_B2N: Tensor, masks: Masks = NO_MASKS
    ) -> tuple[Tensor, Tensor, Tensor]:
        x_TBN = self.words.embed(tokens_TB, masks)
        if masks.input_BN is not None:
            x_TBN = x_TBN * masks.input_BN
        h_BN, c_BN = state_B2N.chunk(2, dim=1)
        outputs_TBN, (h_1BN, c_1BN) = self.lstm(x_TBN, (h_BN[None], c_BN[None].contiguous()))
        state_B2N = torch.cat([h_1BN[0], c_1BN[0]], dim=1)
        return self.words.score(outputs_TBN, masks), outputs_TBN, state_B2N


def build_lstm(config: TextTrainConfig, genotype: RecurrentGenotype, vocabulary: int) -> LSTMModel:
    """In place of gdas.rnn.train.build_language_model."""
    with initial_weights(config.seed):
        return LSTMModel(vocabulary, config.hidden)


def main() -> None:
    """Train one of the two and print its validation perplexity by epoch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", choices=("cell", "lstm"), default="cell")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=None)
    parser.add_argument("--lr", type=float, default=20.0)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    lstm = args.model == "lstm"
    config = replace(
        text_train_preset("paper", "ptb"),
        epochs=args.epochs,
        hidden=LSTM_HIDDEN if lstm else CELL_HIDDEN,
        batch_size=args.batch,
        train_tokens=args.tokens,
        lr=args.lr,
        # A fifth of the width of the recipe's network, and few epochs: little to regularise.
        dropouts=Dropouts(output=0.2, hidden=0.0, input=0.2, embedded=0.0, word=0.0),
    )
    if lstm:
        gdas.rnn.train.build_language_model = build_lstm  # type: ignore[assignment]
    genotype = PUBLISHED_RECURRENT["RNN_GDAS"]
    train = open_tokens("ptb", "train", args.data)
    valid = open_tokens("ptb", "valid", args.data)
    model = gdas.rnn.train.build_language_model(config, genotype, train.vocabulary)
    print(json.dumps({"model": args.model, "parameters": count_parameters(model)}), flush=True)
    began = time.process_time()
    for segment in gdas.rnn.train.train_text(
        config, genotype, train, valid, device=torch.device("cpu")
    ):
        line = {
            "epoch": segment.position,
            "train": round(segment.metrics["train/perplexity"], 2),
            "valid": round(segment.metrics["valid/perplexity"], 2),
            "cpu_seconds": round(time.process_time() - began),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
