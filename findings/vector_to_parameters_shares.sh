#!/bin/sh
# torch 2.14.1: after torch.nn.utils.vector_to_parameters(vector, parameters) the parameters lie in the
# vector: the next optimiser step changes it.
# Guessed: its values are copied in, as load_state_dict does; parameters_to_vector, its inverse, copies.
# Whoever keeps the best weights as a vector, goes back to them, trains on and goes back once more is not
# back: the second return does nothing. A population of vectors (evolution, cross-entropy method, line
# search) whose member is trained for a while has lost that member. Give it vector.clone().
# Seen with torch 2.14.1; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

print("torch", torch.__version__)
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
inputs, target = torch.randn(16, 4), torch.randn(16, 2)


def loss():
    return torch.nn.functional.mse_loss(network(inputs), target)


def step():
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()


best = parameters_to_vector(network.parameters()).detach()
kept, at_best = best.clone(), loss().item()
step()
before_return = torch.equal(best, kept)
vector_to_parameters(best, network.parameters())
back_once = loss().item()
step()
vector_to_parameters(best, network.parameters())
back_twice = loss().item()
print(f"loss at the best weights: {at_best:.6f}; after the first return {back_once:.6f}")
print(f"after a step and the second return: guessed {at_best:.6f}; seen {back_twice:.6f}")
print("the kept vector is unchanged before the first return:", before_return)
print("and after the step that followed it:", torch.equal(best, kept))
shares = before_return and back_once == at_best and back_twice != at_best
raise SystemExit(0 if shares and not torch.equal(best, kept) else "the vector is copied now")
PYTHON
