#!/bin/sh
# torchdata 0.11.0: a StatefulDataLoader with workers that goes on from its state in the middle of an
# epoch gives the right samples in the right order, but the workers' random draws begin again: the
# first batches after the stop have the augmentation that the epoch's first batches had.
# Guessed: either the draws of the run that was not stopped, or fresh ones.
# The seed of the workers is in the state and how far they have drawn is not. A data set that draws
# from an own generator, seeded by the index and the epoch, does not have that.
# Seen with torch 2.14.1; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torchdata==0.11.0 torch==2.14.1 numpy==2.4.6
cat > "$folder/resume.py" <<'PYTHON'
import warnings
from importlib.metadata import version

import torch
from torch.utils.data import Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

warnings.simplefilter("ignore")


class Images(Dataset):
    """Twelve images; each is cropped at random when it is read."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return index, int(torch.randint(1000, ()))


def loader(seed):
    torch.manual_seed(seed)
    return StatefulDataLoader(Images(), batch_size=2, shuffle=True, num_workers=1)


def taken(batches):
    return [(images.tolist(), crops.tolist()) for images, crops in batches]


if __name__ == "__main__":
    print("torchdata", version("torchdata"), "torch", torch.__version__)
    whole = taken(loader(0))
    stopped = loader(0)
    batches = iter(stopped)
    first = taken(next(batches) for _ in range(3))
    state = stopped.state_dict()
    resumed = loader(1)
    resumed.load_state_dict(state)
    rest = taken(resumed)
    print("order, not stopped:", [images for images, _ in whole])
    print("order, resumed:    ", [images for images, _ in first + rest])
    print("crops of the epoch's first three batches: ", [crops for _, crops in whole[:3]])
    print("crops of its last three, not stopped:     ", [crops for _, crops in whole[3:]])
    print("crops of its last three, stopped before:  ", [crops for _, crops in rest])
    same_order = [images for images, _ in whole] == [images for images, _ in first + rest]
    repeated = [crops for _, crops in rest] == [crops for _, crops in whole[:3]]
    raise SystemExit(0 if same_order and repeated else "it goes on otherwise now")
PYTHON
"$folder/venv/bin/python" "$folder/resume.py"
