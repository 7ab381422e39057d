#!/bin/sh
# safetensors gives a state back in the order of its names, not in the order in which it was saved:
# load_file(...).values() no longer runs beside network.parameters(), as torch.save's state does.
# Guessed: a dictionary comes back in its own order, as from torch.save, JSON and pickle.
# Whoever zips the two, as code that averages or compares networks does, pairs the wrong weights; if
# their shapes are alike, without an error. (Layers 0 to 10 come back as 0, 1, 10, 2.)
# Seen with safetensors 0.8.0 and torch 2.14.1; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  safetensors==0.8.0 torch==2.14.1 numpy==2.4.6 packaging==26.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import torch
from safetensors.torch import load_file, save_file
from torch import nn

print("safetensors", version("safetensors"), "torch", torch.__version__)
network = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(12)))
state = network.state_dict()
torch.save(state, "state.pt")
save_file(state, "state.safetensors")
saved = list(state)
by_torch = list(torch.load("state.pt", weights_only=True))
by_safetensors = list(load_file("state.safetensors"))
pairs = zip(network.parameters(), load_file("state.safetensors").values(), strict=True)
wrong = sum(not torch.equal(own, loaded) for own, loaded in pairs)
print("saved, guessed:", saved[:4])
print("torch.save:    ", by_torch[:4])
print("safetensors:   ", by_safetensors[:4])
print(f"layers paired with another's weights: guessed 0, seen {wrong} of {len(saved)}")
if by_torch != saved or by_safetensors != sorted(saved) or wrong == 0:
    raise SystemExit("it orders otherwise now")
PYTHON
