#!/bin/sh
# archai's Gumbel-softmax search does not learn its logits, and derives another operation than they
# say. It copies the logits of a node into a new tensor before it draws, so that no gradient comes
# back; and it draws over logits sorted by size, but gives the draws to the operations in their own
# order: the largest logit's draw always goes to the first operation, max pooling.
# Guessed: after backward the logits have gradients, and a logit far above the others is derived.
# Its cells are draws from the first logits; where one logit stands out, max pooling.
# Seen with archai 1.0.0 and torch 2.14.1; fails if that has changed. Needs python3 with venv.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  archai==1.0.0 overrides==3.1.0 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6 \
  setuptools==80.9.0 scikit-learn==1.7.2
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version
from types import SimpleNamespace

import torch
from archai.supergraph.algos.gumbelsoftmax import gs_finalizers
from archai.supergraph.algos.gumbelsoftmax.gs_arch_trainer import GsArchTrainer
from archai.supergraph.algos.gumbelsoftmax.gs_op import GsOp
from archai.supergraph.nas.model_desc import ConvMacroParams, OpDesc

print("archai", version("archai"), "torch", torch.__version__)
conv = ConvMacroParams(4, 4)
settings = {"conv": conv, "stride": 1, "gs_num_sample": 1}
about = OpDesc("gs_op", params=settings, in_len=1, trainables=None, children=None)
operation = GsOp(about, None, affine=False)
operation.desc = about
edge = SimpleNamespace(_op=operation, input_ids=[0])
(logits,) = operation._alphas

# One step of the search, as its trainer does it, for a network of one edge.
trainer = GsArchTrainer.__new__(GsArchTrainer)
trainer._gs_num_sample = 1
trainer._metrics = SimpleNamespace(pre_step=lambda x, y: None)
trainer.model = SimpleNamespace(cells=[SimpleNamespace(dag=[[edge]])])
trainer.pre_step(None, None)
operation(torch.randn(2, 4, 8, 8)).sum().backward()
trained = any(weight.grad is not None for weight in operation._ops.parameters())
print("weights have gradients:", trained)
print("logits have gradients: guessed True, seen", logits.grad is not None)

# Deriving, with a logit of 50 for one operation and -50 for all others.
gs_finalizers.get_conf = lambda: {
    "nas": {"search": {"model_desc": {"cell": {"gs": {"num_sample": 1}}}}}
}
found = {}
for k, name in enumerate(GsOp.PRIMITIVES):
    with torch.no_grad():
        logits.fill_(-50.0)[k] = 50.0
    finalizer = gs_finalizers.GsFinalizers.__new__(gs_finalizers.GsFinalizers)
    node = finalizer.finalize_node([edge], 0, SimpleNamespace(conv_params=conv), 2)
    found[name] = node.edges[0].op_desc.children[0].name
print("derived, guessed:", {name: name for name in GsOp.PRIMITIVES})
print("derived, seen:   ", found)
if not trained or logits.grad is not None or set(found.values()) != {"max_pool_3x3"}:
    raise SystemExit("it searches otherwise now")
PYTHON
