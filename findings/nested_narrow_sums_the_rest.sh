#!/bin/sh
# torch 2.14.1: torch.nested.narrow makes a jagged tensor of the first words of every sequence, and
# sum(), mean(), max() and any() of it take in the words that were left out.
# Guessed: they see what unbind() and numel() see, or say that they cannot; sum(dim=1) says that.
# A loss that is averaged over the words of padded sentences in this way has the padding's losses in it:
# the mean is divided by the count with the padding. contiguous() before the reduction helps.
# Seen with torch 2.14.1; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

import torch

warnings.simplefilter("ignore")
print("torch", torch.__version__)
losses = torch.tensor([[1.0, 90, 90, 90], [1, 1, 90, 90], [1, 1, 1, 90]])
lengths = torch.tensor([1, 2, 3])
words = torch.nested.narrow(losses, 1, torch.zeros(3, dtype=torch.long), lengths, torch.jagged)
parts = torch.cat(words.unbind())
print("sentences:", [part.tolist() for part in words.unbind()], "numel", words.numel())
for name, of_parts, seen in (
    ("sum", parts.sum(), words.sum()),
    ("mean", parts.mean(), words.mean()),
    ("max", parts.max(), words.max()),
    ("any above 50", (parts > 50).any(), (words > 50).any()),
    ("sum of contiguous()", parts.sum(), words.contiguous().sum()),
):
    print(f"{name}: guessed {of_parts.item()}, seen {seen.item()}")
whole = words.sum() == losses.sum() and words.mean() == losses.mean() and words.max() == 90
right = words.numel() == 6 and parts.sum() == 6 and words.contiguous().sum() == 6
raise SystemExit(0 if whole and right else "it leaves the rest out now")
PYTHON
