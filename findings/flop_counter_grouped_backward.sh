#!/bin/sh
# torch 2.14.1: FlopCounterMode counts the gradient of a depthwise convolution's weights as many times
# over as there are channels, that of one with G groups G times. The forward pass is right.
# Guessed: the backward pass of a convolution is twice its forward pass, as it is without groups.
# Of a separable convolution over 64 channels (depthwise, then 1x1) a training step is counted 3.6
# times too large, of the depthwise layer alone 22 times. It is met by who compares what cells cost in
# training, or reports how much of a GPU is used; counts of inference alone are right.
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
from torch.utils.flop_counter import FlopCounterMode

print("torch", torch.__version__)
PIXELS = 2 * 8 * 8


def counted(network):
    """What is counted for a forward pass, and for the backward pass behind it."""
    images = torch.randn(2, 64, 8, 8, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        out = network(images)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


changed = False
for groups in (1, 4, 64):
    forward, backward = counted(nn.Conv2d(64, 64, 3, padding=1, groups=groups, bias=False))
    true = 2 * PIXELS * 64 * 64 * 9 // groups
    print(f"{groups} groups: forward {forward}; backward guessed {2 * true}, seen {backward}")
    changed |= forward != true or backward != true * (1 + groups)
depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False)
separable = sum(counted(nn.Sequential(depthwise, nn.Conv2d(64, 64, 1, bias=False))))
dense = sum(counted(nn.Conv2d(64, 64, 3, padding=1, bias=False)))
exact = 3 * 2 * PIXELS * (64 * 9 + 64 * 64)
print(f"a training step, separable: guessed {exact}, seen {separable}; dense 3x3: {dense}")
raise SystemExit("it counts groups otherwise now" if changed or separable <= 2 * exact else 0)
PYTHON
