"""From logits to a genotype, and how decided it was (paper section 3.2, "Architecture").

Shapes: E edges of one cell (node by node, then by source), K operations.

Decision: the paper's index set counts `none`; the authors' 2019 CNN code excludes it and keeps
distinct sources, which is the default here. Both are settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gdas.genotype import EDGES_PER_NODE, OPERATIONS, AnyGenotype, Edge, RecurrentGenotype

PARAMETER_FREE = ("none", "skip_connect", "max_pool_3x3", "avg_pool_3x3")
"""Operations on images that carry no parameters at stride 1, of all search spaces."""


@dataclass(frozen=True)
class DerivedCell:
    """A derived cell and how decided the logits were.

    Attributes:
        edges: the kept (operation, source) pairs; of an image cell two a node, most important
            first; of a recurrent cell (function, predecessor) of states 1, 2, ...
        probabilities: of each kept operation under softmax(logits).
        margins: that probability minus the next best eligible operation's on the same edge.
        entropy: mean entropy of the edges' distributions, divided by log K: 1 is undecided.
    """

    edges: tuple[Edge, ...]
    probabilities: tuple[float, ...]
    margins: tuple[float, ...]
    entropy: float


def edge_list(nodes: int) -> list[tuple[int, int]]:
    """(node, source) of every search edge, in the order of the logits' rows: 14 for 4 nodes."""
    return [(node, source) for node in range(nodes) for source in range(node + 2)]


def derive_cell(
    logits_EK: Tensor,
    *,
    nodes: int = 4,
    exclude_none: bool = True,
    distinct_sources: bool = True,
) -> DerivedCell:
    """Keep for every node its two most important edges, on each the most probable operation.

    Args:
        logits_EK: E = 2 + 3 + ... + (nodes + 1) edges by the operations, on the CPU.
        exclude_none: leave `none` out of importance and choice (authors' code); False: the paper.
        distinct_sources: one operation a source; False: the best (operation, source) pairs of the
            node, which may share a source (authors' 2020 code).

    Ties keep the earlier index.
    """
    edges = edge_list(nodes)
    if logits_EK.shape != (len(edges), len(OPERATIONS)):
        raise ValueError(
            f"logits are {tuple(logits_EK.shape)}, expected {(len(edges), len(OPERATIONS))}"
        )
    p_EK = torch.softmax(logits_EK.detach().double(), dim=1)
    eligible = range(1 if exclude_none else 0, len(OPERATIONS))
    kept: list[tuple[int, int]] = []  # (edge, operation)
    for node in range(nodes):
        candidates: list[tuple[float, int, int]] = []  # (-probability, edge, operation)
        for e, (of_node, _) in enumerate(edges):
            if of_node != node:
                continue
            ranked = sorted((-float(p_EK[e, k]), e, k) for k in eligible)
            candidates += ranked[:1] if distinct_sources else ranked
        kept += [(e, k) for _, e, k in sorted(candidates)[:EDGES_PER_NODE]]
    return DerivedCell(
        edges=tuple((OPERATIONS[k], edges[e][1]) for e, k in kept),
        probabilities=tuple(float(p_EK[e, k]) for e, k in kept),
        margins=tuple(
            float(p_EK[e, k]) - max(float(p_EK[e, j]) for j in eligible if j != k) for e, k in kept
        ),
        entropy=relative_entropy(p_EK),
    )


def relative_entropy(p_EK: Tensor) -> float:
    """Mean entropy of the edges' distributions, divided by log K."""
    entropy_E = -(p_EK * p_EK.clamp_min(1e-300).log()).sum(1)
    return float(entropy_E.mean() / torch.tensor(float(p_EK.shape[1])).log())


def describe(
    genotype: AnyGenotype, cells: Mapping[str, DerivedCell], logits: Mapping[str, Tensor]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and details of a derived genotype, as gdas.search.SearchSpace.derived returns them.

    Args:
        cells: by cell type.
    """
    metrics = {}
    for kind, cell in cells.items():
        metrics[f"{kind}/entropy"] = cell.entropy
        metrics[f"{kind}/mean_margin"] = sum(cell.margins) / len(cell.margins)
        if not isinstance(genotype, RecurrentGenotype):  # a function never has parameters
            metrics[f"{kind}/parameter_free"] = float(parameter_free(cell.edges))
    details = {
        "genotype": genotype.to_json(),
        "probabilities": {kind: list(cell.probabilities) for kind, cell in cells.items()},
        "margins": {kind: list(cell.margins) for kind, cell in cells.items()},
        "logits": {kind: a.detach().tolist() for kind, a in logits.items()},
    }
    return metrics, details


def parameter_free(edges: tuple[Edge, ...]) -> int:
    """How many of the operations carry no parameters: many are the sign of a collapse."""
    return sum(operation in PARAMETER_FREE for operation, _ in edges)
