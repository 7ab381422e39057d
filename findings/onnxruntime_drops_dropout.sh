#!/bin/sh
# onnxruntime takes a Dropout that is in training mode out of the graph at every level of optimisation
# but ORT_DISABLE_ALL, if another node is before it and another behind it; first or last in the
# graph, the same Dropout drops at every level, as by the ONNX standard it must.
# Guessed: it drops at every level, wherever it is, since optimising keeps what a graph means.
# Whoever tests an export with the usual session does not see that dropout was left on: another
# runtime, or a session without optimisation, gives noise.
# Seen with onnxruntime 1.32.0 and onnx 1.23.2; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

print("onnxruntime", onnxruntime.__version__, "onnx", onnx.__version__)
ends = [
    [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1000])] for name in ("x", "y")
]
constants = [
    numpy_helper.from_array(np.array(0.5, dtype=np.float32), "ratio"),
    numpy_helper.from_array(np.array(True), "training"),
]
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL")


def drops(kinds):
    """At which levels a chain of nodes with a Dropout among them sets ones to zero."""
    names = ["x", *(f"after{i}" for i in range(len(kinds) - 1)), "y"]
    nodes = []
    for kind, came, goes in zip(kinds, names, names[1:], strict=False):
        more = ["ratio", "training"] if kind == "Dropout" else []
        nodes.append(helper.make_node(kind, [came, *more], [goes]))
    graph = helper.make_graph(nodes, "graph", *ends, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    ones, found = np.ones(1000, dtype=np.float32), {}
    for level in LEVELS:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        found[level] = bool((session.run(None, {"x": ones})[0] == 0).any())
    return found


ends_of_graph = [drops(["Dropout", "Abs"]), drops(["Abs", "Dropout"]), drops(["Dropout"])]
between = drops(["Abs", "Dropout", "Abs"])
print("first, last or alone: guessed", dict.fromkeys(LEVELS, True))
print("first, last or alone: seen   ", *ends_of_graph)
print("between two nodes: guessed", dict.fromkeys(LEVELS, True))
print("between two nodes: seen   ", between)
if between != dict(zip(LEVELS, (True, False, False), strict=True)):
    raise SystemExit("it treats dropout otherwise now")
if any(not all(found.values()) for found in ends_of_graph):
    raise SystemExit("it treats dropout otherwise now")
PYTHON
