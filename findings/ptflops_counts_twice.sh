#!/bin/sh
# ptflops counts a ReLU or pooling layer twice: once by its hook on the layer, and once by its patch
# of the function that the layer calls. Convolutions and linear layers it counts once.
# Guessed: one operation a number for nn.ReLU, as its documentation's table of layers reads, and the
# input's size once for nn.MaxPool2d.
# Whoever compares multiply-adds with a paper's that used it gets several percent too many.
# Seen with ptflops 0.7.5 and torch 2.14.1; fails if that has changed. Needs python3 with venv, PyPI.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  ptflops==0.7.5 numpy==2.4.6 torch==2.14.1
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from ptflops import get_model_complexity_info
from torch import nn
from torch.nn import functional as F


class Function(nn.Module):
    """ReLU without a layer."""

    def forward(self, x):
        return F.relu(x)


def counted(layer):
    options = {"as_strings": False, "print_per_layer_stat": False, "backend": "pytorch"}
    return int(get_model_complexity_info(nn.Sequential(layer), (4, 8, 8), **options)[0])


print("ptflops", version("ptflops"), "torch", version("torch"))
numbers = 4 * 8 * 8
found = {
    "F.relu": counted(Function()) / numbers,
    "nn.ReLU": counted(nn.ReLU()) / numbers,
    "nn.MaxPool2d": counted(nn.MaxPool2d(2)) / numbers,
    "nn.Conv2d, of 4 products": counted(nn.Conv2d(4, 4, 1, bias=False)) / numbers,
}
print("a number of the input:", found)
guessed = {"F.relu": 1, "nn.ReLU": 1, "nn.MaxPool2d": 1, "nn.Conv2d, of 4 products": 4}
print("guessed:", guessed)
if found != guessed | {"nn.ReLU": 2, "nn.MaxPool2d": 2}:
    raise SystemExit("it counts otherwise now")
PYTHON
