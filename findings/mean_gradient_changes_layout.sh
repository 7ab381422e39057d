#!/bin/sh
# The mean over all pixels, as torch.nn.AdaptiveAvgPool2d(1) or Tensor.mean((2, 3)), hands a
# channels-last map a gradient in the usual layout: autograd divides an expanded tensor, and what is
# not dense has no layout to keep. A ReLU before it then goes backwards from one layout to the other.
# Guessed: a map that is channels-last gets a channels-last gradient, as from AvgPool2d of the whole
# map, which computes the same.
# Whoever keeps a network channels-last on a CPU pays for it in its last layers: the ReLU's backward
# pass took nine to nineteen times longer here (printed, not checked).
# Seen with torch 2.14.1; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import time

import torch
from torch import nn

print("torch", torch.__version__)
torch.set_num_threads(1)
LAYOUTS = {"usual": torch.contiguous_format, "channels-last": torch.channels_last}


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3), keepdim=True)


def layout_of_gradient(last):
    """The layout of the gradient that a channels-last map gets, and the ReLU's milliseconds."""
    x = torch.randn(64, 64, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    active = torch.relu(x)
    seen = []
    active.register_hook(seen.append)
    last(active).square().sum().backward()
    (gradient,) = seen
    start = time.thread_time()
    for _ in range(50):
        torch.ops.aten.threshold_backward(gradient, active, 0)
    milliseconds = (time.thread_time() - start) * 20
    (layout,) = (k for k, own in LAYOUTS.items() if gradient.is_contiguous(memory_format=own))
    return layout, milliseconds


found = {
    "AdaptiveAvgPool2d(1)": layout_of_gradient(nn.AdaptiveAvgPool2d(1)),
    "mean((2, 3))": layout_of_gradient(Mean()),
    "AvgPool2d(8)": layout_of_gradient(nn.AvgPool2d(8)),
}
print("guessed: channels-last from all three")
for name, (layout, milliseconds) in found.items():
    print(f"seen:    {name}: {layout}, the ReLU's backward pass {milliseconds:.2f} ms")
if [layout for layout, _ in found.values()] != ["usual", "usual", "channels-last"]:
    raise SystemExit("gradients have other layouts now")
PYTHON
