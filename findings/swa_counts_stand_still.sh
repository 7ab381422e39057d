#!/bin/sh
# torch.optim.swa_utils.AveragedModel(use_buffers=True) averages integer buffers too, and cuts the
# fraction off each time: a count, as batch norm's num_batches_tracked, stays at its first value for
# ever under the equal average, and lags by one under the exponential one.
# Guessed: what is not a floating point number is copied from the model, as with use_buffers=False.
# Whoever keeps a schedule, a codebook's usage or a step in a buffer averages it to a standstill; and
# batch norm with momentum=None, trained on from the average, weighs its next batch by that count.
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
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

print("torch", torch.__version__)


def counts(**options):
    """num_batches_tracked of the model and of its average after every batch."""
    model = nn.BatchNorm1d(2)
    average = AveragedModel(model, **options)
    found = []
    for _ in range(6):
        model(torch.randn(8, 2))
        average.update_parameters(model)
        found.append((int(model.num_batches_tracked), int(average.module.num_batches_tracked)))
    return found


copied = [(n, n) for n in range(1, 7)]
equal = counts(use_buffers=True)
exponential = counts(use_buffers=True, multi_avg_fn=get_ema_multi_avg_fn(0.5))
print("without use_buffers:  ", counts())
print("guessed:              ", copied)
print("seen, equal average:  ", equal)
print("seen, exponential:    ", exponential)
if counts() != copied or equal != [(n, 1) for n in range(1, 7)]:
    raise SystemExit("it averages counts otherwise now")
if exponential != [(1, 1), *((n, n - 1) for n in range(2, 7))]:
    raise SystemExit("it averages counts otherwise now")
PYTHON
