#!/bin/sh
# torchinfo 1.8.0 and thop 0.1.1.post2209072238: looking at a network in training whose batch norms are
# frozen (bn.eval()) puts these back to training, so that their running statistics move from then on.
# Guessed: each module has the mode after summary() or profile() that it had before.
# Both note the mode of the network alone and give it to all of its modules when they are done. Whoever
# fine-tunes with frozen statistics and prints a summary first trains another network.
# Seen with these versions; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torchinfo==1.8.0 thop==0.1.1.post2209072238 torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import thop
import torch
import torchinfo
from torch import nn

print(*(f"{p} {version(p)}" for p in ("torchinfo", "thop", "torch")))
images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def moves(look):
    """Whether the frozen statistics move in a training pass after a look at the network."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).train()
    network[1].eval()
    look(network)
    before = network[1].running_mean.clone()
    network(images)
    return not torch.equal(before, network[1].running_mean)


alone = moves(lambda network: None)
after_summary = moves(lambda n: torchinfo.summary(n, input_data=images, verbose=0))
after_profile = moves(lambda n: thop.profile(n, (images,), verbose=False))
print("frozen statistics move, nobody looked:", alone)
print("after torchinfo.summary: guessed False; seen", after_summary)
print("after thop.profile: guessed False; seen", after_profile)
changed = alone or not after_summary or not after_profile
raise SystemExit("frozen layers stay frozen now" if changed else 0)
PYTHON
