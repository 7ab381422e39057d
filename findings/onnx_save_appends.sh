#!/bin/sh
# onnx.save_model with external data, over a model that is there: the weights are added at the end of
# the data file, so that it grows with every save, and all but its last part is dead. The model reads
# right, so nothing tells. There is a check that refuses a data file that is there, but it looks in
# the working directory, not beside the model: only who saves into that directory meets it.
# Guessed: the second save replaces the first, as it replaces the .onnx beside it; or is refused
# wherever the model lies.
# Seen with onnx 1.23.2; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  onnx==1.23.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

print("onnx", onnx.__version__)


def model(value):
    """y = x W with 4,000,000 bytes of weights."""
    weights = np.full((1000, 1000), value, dtype=np.float32)
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1000])]
        for name in ("x", "y")
    ]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return helper.make_model(
        helper.make_graph([node], "graph", *ends, [numpy_helper.from_array(weights, "w")])
    )


def save(path, value):
    onnx.save_model(model(value), path, save_as_external_data=True, location="model.data")


data, graph = [], []
Path("runs").mkdir()
for epoch in range(3):
    save("runs/model.onnx", epoch)
    data.append(Path("runs/model.data").stat().st_size)
    graph.append(Path("runs/model.onnx").stat().st_size)
last = numpy_helper.to_array(onnx.load("runs/model.onnx").graph.initializer[0])
save("model.onnx", 0)
try:
    save("model.onnx", 1)
    refused = "no"
except FileExistsError as error:
    refused = f"{type(error).__name__}: {error}"
print("model.onnx:", graph)
print("model.data, guessed:", [4_000_000] * 3)
print("model.data, seen:   ", data)
print("a second save into the working directory is refused:", refused)
print("what is read back is the last one's:", bool((last == 2).all()))
if data != [4_000_000, 8_000_000, 12_000_000] or not (last == 2).all() or refused == "no":
    raise SystemExit("it writes otherwise now")
PYTHON
