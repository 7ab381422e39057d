#!/bin/sh
# Hugging Face datasets: a map() whose function looks at a photo and returns something else writes
# the photo anew: a JPEG that the table held is saved again at Pillow's quality of 75, over the
# first, without a word. So does every later map that looks; filter() and a map that does not look
# keep the bytes, and so does map(..., input_columns=["image"]).
# Guessed: a column that the function does not return keeps its bytes.
# Whoever adds a column of sizes or hashes to a data set, then ships it, ships other photos.
# Image(decode=False) hands the bytes over and keeps them.
# Seen with datasets 5.2.0 and Pillow 13.0.0; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  datasets==5.2.0 pillow==13.0.0 numpy==2.4.6 pyarrow==25.0.1
HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import io

import datasets
import numpy as np
import PIL
from PIL import Image

print("datasets", datasets.__version__, "Pillow", PIL.__version__)
datasets.disable_progress_bars()
blocks = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
photo = Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), dtype=np.uint8)))
buffer = io.BytesIO()
photo.save(buffer, "JPEG", quality=95)
jpeg = buffer.getvalue()
table = datasets.Dataset.from_dict(
    {"image": [{"bytes": jpeg, "path": None}], "label": [0]},
    features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")}),
)


def stored(table):
    undecoded = table.cast_column("image", datasets.Image(decode=False))
    return undecoded[0]["image"]["bytes"]


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content))).astype(int)


looked = stored(table.map(lambda row: {"width": row["image"].size[0]}))
kept = {
    "map that does not look": stored(table.map(lambda row: {"twice": 2 * row["label"]})),
    "filter that looks": stored(table.filter(lambda row: row["image"].size[0] > 0)),
    "map of that column alone": stored(
        table.map(lambda image: {"width": image.size[0]}, input_columns=["image"])
    ),
    "map, undecoded": stored(
        table.cast_column("image", datasets.Image(decode=False)).map(
            lambda row: {"length": len(row["image"]["bytes"])}
        )
    ),
}
print("bytes: guessed", len(jpeg), "seen", len(looked))
print("largest change of a pixel: guessed 0, seen", abs(pixels(looked) - pixels(jpeg)).max())
print("kept by:", ", ".join(name for name, content in kept.items() if content == jpeg))
if looked == jpeg or any(content != jpeg for content in kept.values()):
    raise SystemExit("it keeps other bytes now")
PYTHON
