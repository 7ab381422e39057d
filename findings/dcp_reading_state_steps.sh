#!/bin/sh
# torch.distributed.checkpoint.state_dict.get_optimizer_state_dict of an optimiser that has not taken
# a step changes the training that follows, also with SGD, which counts no steps.
# Guessed: reading a state changes nothing; at most Adam's step count, which a zero step moves.
# To have something to save it takes a step with gradients and rate zero. Weight decay is added to
# those gradients, so SGD's momentum begins with decay x weights in place of nothing; and whoever
# saves a checkpoint "before the first step" does not train what another trains who did not save.
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
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

print("torch", torch.__version__)


def first_step(optimizer_class, *, read, **options):
    """A weight of 1 after one step with a gradient of 1."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = optimizer_class(model.parameters(), lr=0.1, **options)
    if read:
        get_optimizer_state_dict(model, optimizer)
    model.weight.grad = torch.ones(1, 1)
    optimizer.step()
    return round(model.weight.item(), 4)


sgd = {"momentum": 0.9, "weight_decay": 0.5}
seen = {}
for name, kind, options in (
    ("SGD, momentum and weight decay", torch.optim.SGD, sgd),
    ("SGD, momentum", torch.optim.SGD, {"momentum": 0.9}),
    ("Adam", torch.optim.Adam, {}),
):
    seen[name] = tuple(first_step(kind, read=read, **options) for read in (False, True))
    print(f"{name}: {seen[name][0]} after a step; state read before: guessed the same, seen {seen[name][1]}")
# 1 - 0.1 (1 + 0.5) = 0.85; with momentum 0.9 x 0.5 from the reading: 0.85 - 0.045 = 0.805.
if seen["SGD, momentum and weight decay"] != (0.85, 0.805) or seen["SGD, momentum"] != (0.9, 0.9):
    raise SystemExit("reading SGD's state does something else now")
if seen["Adam"][0] == seen["Adam"][1]:
    raise SystemExit("reading Adam's state changes nothing now")
PYTHON
