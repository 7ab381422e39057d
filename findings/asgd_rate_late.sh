#!/bin/sh
# torch.optim.ASGD makes the rate of a step at the end of the step before: a rate that is set in
# param_groups before every step, as by the length of a sequence, arrives one step late.
# Guessed: each step uses the rate that its group has when step() is called, as torch.optim.SGD.
# Whoever scales the rate batch by batch under ASGD steps each batch with the rate of the one before.
# Seen with torch 2.14.1; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch

print("torch", torch.__version__)


def moved(optimizer_of, rates):
    """How far a weight whose gradient is 1 moves in each step."""
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = optimizer_of([weight], rates[0])
    moves = []
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        before = weight.item()
        weight.grad = torch.ones(())
        optimizer.step()
        moves.append(round(before - weight.item(), 4))
    return moves


rates = [20.0, 10.0, 10.0, 20.0]
sgd = moved(lambda p, lr: torch.optim.SGD(p, lr=lr), rates)
asgd = moved(lambda p, lr: torch.optim.ASGD(p, lr=lr, t0=0, lambd=0.0), rates)
print("rates set:    ", rates)
print("SGD moved:    ", sgd)
print("ASGD, guessed:", rates)
print("ASGD, seen:   ", asgd)
if sgd != rates or asgd != [20.0, 20.0, 10.0, 10.0]:
    raise SystemExit("it steps with another rate now")
PYTHON
