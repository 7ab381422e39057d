#!/bin/sh
# The module of torch.export.export(network).module() shares batch norm's running statistics with
# the network that it came from: a network exported in training mode moves the original's statistics
# whenever the export runs, and loading weights into the original changes the export.
# Guessed: an export is a copy, as a file would be.
# Whoever exports a snapshot every epoch, and tries it on a batch, trains with other statistics.
# Seen with torch 2.14.1; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch import nn

print("torch", torch.__version__)
torch.manual_seed(0)
network, batch = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), torch.randn(8, 3)


def moves(export):
    """By how much running the export moves the running mean of the network it came from."""
    norm = network[1]
    before = norm.running_mean.clone()
    export(batch + 5)
    return round(float((norm.running_mean - before).abs().max()), 3)


training = torch.export.export(network.train(), (batch,))
by_module = moves(training.module())
by_eval = moves(torch.export.export(network.eval(), (batch,)).module())
print("exported in training mode moves the original's mean by: guessed 0, seen", by_module)
print("exported in evaluation mode: guessed 0, seen", by_eval)
if by_module == 0 or by_eval != 0:
    raise SystemExit("it shares otherwise now")
PYTHON
