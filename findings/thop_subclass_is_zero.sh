#!/bin/sh
# thop finds a layer's rule by its exact type: a subclass of nn.Conv2d that adds nothing counts 0
# multiply-adds and 0 parameters, without a word unless report_missing=True.
# Guessed: a subclass is counted as its base, as by isinstance.
# Whoever counts a network with layers of its own gets a fraction of the truth that looks like one.
# Seen with thop 0.1.1.post2209072238 and torch 2.14.1; fails if that has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  thop==0.1.1.post2209072238 setuptools==80.9.0 torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import torch
from thop import profile
from torch import nn


class Mine(nn.Conv2d):
    """nn.Conv2d under another name."""


print("thop", version("thop"), "torch", version("torch"))
image = torch.zeros(1, 4, 8, 8)
plain, mine = (
    profile(nn.Sequential(kind(4, 4, 1, bias=False)), (image,), verbose=False)
    for kind in (nn.Conv2d, Mine)
)
print("nn.Conv2d: (multiply-adds, parameters)", plain)
print("subclass, guessed:", plain)
print("subclass, seen:   ", mine)
if plain != (1024.0, 16.0) or mine[0] != 0:
    raise SystemExit("it counts subclasses otherwise now")
PYTHON
