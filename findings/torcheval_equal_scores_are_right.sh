#!/bin/sh
# torcheval 0.0.7: top-k accuracy of a network that gives all classes the same score is 100 % for every
# k above 1, and so is that of a network whose outputs are not numbers.
# Guessed: k of the classes, as torch.topk or torchmetrics would take them: the accuracy of chance.
# It counts how many scores are larger than the right class's and asks whether these are fewer than k;
# none is, of equal scores, and nothing is larger than NaN. With k = 1 it takes another way (argmax) and
# gives chance. A search that ranks networks by top-5 accuracy picks a cell of operations "none", or one
# whose training has diverged, above all others. hit_rate has the same rule.
# Seen with these versions; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torcheval==0.0.7 torchmetrics==1.9.0 torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import torch
from torcheval.metrics import MulticlassAccuracy
from torchmetrics.functional.classification import multiclass_accuracy

print(*(f"{p} {version(p)}" for p in ("torcheval", "torchmetrics", "torch")))
labels = torch.arange(1000) % 100
outputs = {
    "all zero": torch.zeros(1000, 100),
    "not numbers": torch.full((1000, 100), float("nan")),
    "random": torch.randn(1000, 100, generator=torch.Generator().manual_seed(0)),
}
seen = {}
for name, scores in outputs.items():
    for k in (1, 5):
        metric = MulticlassAccuracy(k=k)
        metric.update(scores, labels)
        seen[name, k] = metric.compute().item()
        print(f"outputs {name}, top-{k}: torcheval {seen[name, k]:.3f}")
        if name != "not numbers":
            theirs = multiclass_accuracy(scores, labels, 100, average="micro", top_k=k).item()
            print(f"outputs {name}, top-{k}: torchmetrics {theirs:.3f}")
print("guessed for equal scores, top-5: 0.050; seen", seen["all zero", 5])
perfect = seen["all zero", 5] == seen["not numbers", 5] == 1.0
chance = max(seen["all zero", 1], seen["not numbers", 1], seen["random", 5]) < 0.1
raise SystemExit(0 if perfect and chance else "ties are counted otherwise now")
PYTHON
