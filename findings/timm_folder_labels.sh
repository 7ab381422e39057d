#!/bin/sh
# timm 1.0.31 and torchvision 0.29.1 give the classes of one folder of photos different labels:
# timm's create_dataset sorts folders as people do (1, 2, 10, and a before B), torchvision's
# ImageFolder as bytes (1, 10, 2, and B before a).
# Guessed: both sort folders as strings, so that a label means the same in both.
# ImageNet's folders have names of one length, so nobody sees it there. A network that is trained with
# the one and scored with the other on folders of numbers is right about as often as chance, and no
# file says which order it was. (datasets' imagefolder sorts as torchvision does.)
# Seen with these versions; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  timm==1.0.31 torch==2.14.1 torchvision==0.29.1 pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import timm
import torchvision
from PIL import Image
from timm.data import create_dataset

print("timm", timm.__version__, "torchvision", torchvision.__version__)
for name in ("1", "2", "10", "a", "B"):
    Path("photos", name).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(f"photos/{name}/photo.png")
theirs = torchvision.datasets.ImageFolder("photos").class_to_idx
timms = create_dataset("", "photos").reader.class_to_idx
print("torchvision:", theirs)
print("timm: guessed the same; seen", timms)
expected = {"1": 0, "10": 1, "2": 2, "B": 3, "a": 4}, {"1": 0, "2": 1, "10": 2, "a": 3, "B": 4}
raise SystemExit(0 if (theirs, timms) == expected else "labels are given otherwise now")
PYTHON
