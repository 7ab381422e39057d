"""From an image cell's logits to a genotype (paper section 3.2, "Architecture").

Shapes: E edges of one cell (node by node, then by source), K operations.

Decision: the paper's index set includes `none`. The authors' 2019 CNN code excludes it and keeps
distinct sources, which is the default here. Both are settings.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gdas.cnn.config import SearchConfig
from gdas.cnn.genotype import EDGES_PER_NODE, OPERATIONS, Genotype, eligible
from gdas.derive import DerivedCell, relative_entropy


def edge_list(nodes: int) -> list[tuple[int, int]]:
    """(node, source) of every edge, in the order of the logits' rows: 14 edges for 4 nodes."""
    return [(node, source) for node in range(nodes) for source in range(node + 2)]


def derive_cell(
    logits_EK: Tensor,
    *,
    nodes: int = 4,
    exclude_none: bool = True,
    distinct_sources: bool = True,
    operations: Sequence[str] = OPERATIONS,
) -> DerivedCell:
    """Keep the two most important edges of every node, each with its most probable operation.

    Args:
        logits_EK: E = 2 + 3 + ... + (nodes + 1) edges by K operations, on the CPU.
        exclude_none: whether `none` counts neither for importance nor as a choice (authors' code);
            False: the paper.
        distinct_sources: one operation per source; False: the best (operation, source) pairs of the
            node, which may share a source (authors' 2020 code).
        operations: the names of the K columns.

    If several are equal, the earlier index wins.
    """
    edges = edge_list(nodes)
    if logits_EK.shape != (len(edges), len(operations)):
        raise ValueError(
            f"logits are {tuple(logits_EK.shape)}, expected {(len(edges), len(operations))}"
        )
    p_EK = torch.softmax(logits_EK.detach().double(), dim=1)
    allowed = eligible(operations, exclude_none=exclude_none)
    columns = [k for k, name in enumerate(operations) if name in allowed]
    kept: list[tuple[int, int]] = []  # (edge, operation)
    for node in range(nodes):
        candidates: list[tuple[float, int, int]] = []  # (-probability, edge, operation)
        for e, (of_node, _) in enumerate(edges):
            if of_node != node:
                continue
            ranked = sorted((-float(p_EK[e, k]), e, k) for k in columns)
            candidates += ranked[:1] if distinct_sources else ranked
        kept += [(e, k) for _, e, k in sorted(candidates)[:EDGES_PER_NODE]]
    return DerivedCell(
        edges=tuple((operations[k], edges[e][1]) for e, k in kept),
        probabilities=tuple(float(p_EK[e, k]) for e, k in kept),
        margins=tuple(
            float(p_EK[e, k]) - max(float(p_EK[e, j]) for j in columns if j != k) for e, k in kept
        ),
        entropy=relative_entropy(p_EK),
    )


def derive_genotype(
    config: SearchConfig, logits: dict[str, Tensor]
) -> tuple[Genotype, dict[str, DerivedCell]]:
    """The genotype that is derived from the logits, and how decided each cell is."""
    cells = {
        kind: derive_cell(
            a,
            nodes=config.network.nodes,
            exclude_none=config.derivation.exclude_none,
            distinct_sources=config.derivation.distinct_sources,
            operations=config.operations,
        )
        for kind, a in logits.items()
    }
    reduce = cells["reduce"].edges if "reduce" in cells else None
    return Genotype(f"searched-seed{config.seed}", cells["normal"].edges, reduce), cells
