#!/bin/sh
# NNI's GumbelDARTS is not GDAS: a layer's forward runs every candidate and adds all of them up, with
# the weights of a relaxed Gumbel-softmax (hard=False); no operation is drawn. Its probabilities, as
# export_probs gives and logs them, are another draw at each call: with equal logits none is equal.
# Guessed: hard=True, so that one operation runs, as in GDAS, which it cites; probabilities are the
# softmax of the logits.
# A search costs as many operations as DARTS does, and what it scores is a mixture, not a cell.
# Seen with nni 3.0, torch 2.14.1 and pytorch-lightning 2.6.6; fails if that has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  nni==3.0 pytorch-lightning==2.6.6 torch==2.14.1 setuptools==80.9.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
from nni.mutable.frozen import frozen_context
from nni.nas.oneshot.pytorch.supermodule.differentiable import DifferentiableMixedLayer
from nni.nas.strategy import GumbelDARTS
from torch import nn

print("nni", version("nni"), "torch", torch.__version__)
run = []


class Candidate(nn.Module):
    """An operation that gives its own number."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def forward(self, x):
        run.append(self.number)
        return 0 * x + self.number


softmax = GumbelDARTS().configure_softmax()
with frozen_context({"edge": 0}):
    candidates = [Candidate(number) for number in range(8)]
    layer = DifferentiableMixedLayer(candidates, nn.Parameter(torch.zeros(8)), softmax, "edge")
torch.manual_seed(0)
value = layer(torch.ones(1)).item()
probabilities = [list(layer.export_probs({})["edge"].values()) for _ in range(2)]
print("operations that run: guessed 1, seen", len(run))
print("output: guessed one of 0 to 7, seen", round(value, 3))
print("probabilities of equal logits: guessed", [0.125] * 4, "...")
for found in probabilities:
    print("                               seen   ", [round(p, 3) for p in found[:4]], "...")
if len(run) != 8 or value == round(value) or probabilities[0] == probabilities[1]:
    raise SystemExit("it searches otherwise now")
PYTHON
