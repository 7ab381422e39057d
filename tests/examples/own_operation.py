"""Looks at a checkout whose search space has one operation more, and asserts what follows of it.

    python own_operation.py NAME

It runs from the root of that checkout (tests/test_extending.py makes one).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from gdas.cnn.config import SearchConfig, SupernetConfig
from gdas.cnn.derive import derive_cell, edge_list
from gdas.cnn.genotype import OPERATIONS, Genotype, from_json, random_genotype
from gdas.cnn.graph.search import covered
from gdas.cnn.network import Network
from gdas.cnn.space import build_supernet
from gdas.derive import parameter_free
from gdas.drawing.draw import draw
from gdas.metrics import count_multiply_adds
from orchestrator.cost.images import cell_size, every_operation_in_turn
from orchestrator.report.figures.probabilities import probability_figure
from orchestrator.report.health import alarms
from orchestrator.settings_page import page
from orchestrator.store.results import Record

NAME = sys.argv[1]
OWN = OPERATIONS.index(NAME)
EDGES = len(edge_list(4))
CONFIG = SearchConfig(network=SupernetConfig(channels=4, normals_per_block=1))

supernet = build_supernet(CONFIG, 10)
logits = supernet.initial_logits(torch.Generator().manual_seed(0))
assert {kind: tuple(a_EK.shape) for kind, a_EK in logits.items()} == {
    "normal": (EDGES, len(OPERATIONS)),
    "reduce": (EDGES, len(OPERATIONS)),
}
picks = [[(e, OWN) for e in range(EDGES)]] * len(supernet.cells)
scores_BK = supernet(torch.randn(2, 3, 16, 16), picks)
scores_BK.sum().backward()
assert scores_BK.shape == (2, 10)
assert len(every_operation_in_turn(*cell_size(CONFIG), len(supernet.cells))) == len(OPERATIONS)

refused = covered(CONFIG, torch.device("cuda"), elsewhere=True)
assert refused is not None and refused.startswith("operations: only none"), "graphs lack its kernel"

a_EK = torch.zeros(EDGES, len(OPERATIONS))
a_EK[:, OWN], a_EK[:, OWN - 1] = 2.0, 1.0
cell = derive_cell(a_EK)
p_K = torch.softmax(a_EK[0].double(), dim=0)
assert {operation for operation, _ in cell.edges} == {NAME}
assert abs(cell.margins[0] - float(p_K[OWN] - p_K[OWN - 1])) < 1e-12
assert parameter_free(cell.edges) == len(cell.edges), "counted as an operation without parameters"

genotype = Genotype("own", cell.edges, None)
assert from_json(genotype.to_json()) == genotype
drawn = {name for seed in range(20) for name, _ in random_genotype(seed).normal}
assert drawn == set(OPERATIONS) - {"none"}, "random cells draw it"
network = Network(genotype, 10, channels=4, normals_per_block=1)
assert count_multiply_adds(network, torch.zeros(1, 3, 16, 16)) > 0
draw(genotype, Path("cell.svg"))
assert NAME in Path("cell.svg").read_text(encoding="utf-8")

record: Record = {
    "position": 1,
    "of": 1,
    "metrics": {},
    "details": {"genotype": genotype.to_json(), "logits": {"normal": a_EK.tolist()}},
    "started": 0.0,
    "time": 1.0,
    "seconds": 1.0,
    "host": "here",
    "pid": 1,
}
assert any(f"{NAME} is the most probable" in alarm.text for alarm in alarms([record], CONFIG))
assert probability_figure(Path("edges.svg"), [record], "normal", OPERATIONS)
assert NAME in Path("edges.svg").read_text(encoding="utf-8")
assert NAME in page()
print(f"{NAME}: operation {OWN} of {len(OPERATIONS)}")
