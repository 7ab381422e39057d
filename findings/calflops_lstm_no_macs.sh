#!/bin/sh
# calflops 0.3.2: the multiply-adds (MACs) of nn.LSTM, nn.GRU and nn.RNN are 0, while its FLOPs
# beside them count these layers. So MACs and FLOPs of one call differ by far more than the factor 2.
# Guessed: FLOPs are about twice the MACs, as for its linear layers.
# Of a small language model it gives 21,000 MACs, those of the last layer alone; an LSTM of 20 units
# over 21 words takes 67,200 more. A published count in MACs is that of a model without its recurrence.
# Seen with these versions; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  calflops==0.3.2 transformers==5.24.0 accelerate==1.15.0 torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import torch
from calflops import calculate_flops
from torch import nn


class LanguageModel(nn.Module):
    def __init__(self, recurrent):
        super().__init__()
        self.embedding = nn.Embedding(50, 20)
        self.recurrent = recurrent(20, 20, batch_first=True)
        self.decoder = nn.Linear(20, 50)

    def forward(self, words):
        return self.decoder(self.recurrent(self.embedding(words))[0])


print("calflops", version("calflops"), "torch", torch.__version__)
words = torch.zeros(3, 7, dtype=torch.long)
changed = False
for recurrent, gates in ((nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)):
    flops, macs, _ = calculate_flops(
        LanguageModel(recurrent), args=[words], print_results=False, output_as_string=False
    )
    layer, decoder = words.numel() * gates * 20 * (20 + 20), words.numel() * 20 * 50
    print(f"{recurrent.__name__}: guessed {layer + decoder} MACs; seen {macs} MACs beside {flops} FLOPs")
    changed |= macs != decoder or flops < 2 * (layer + decoder)
raise SystemExit("it counts recurrent layers otherwise now" if changed else 0)
PYTHON
