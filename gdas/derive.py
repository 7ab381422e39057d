"""A cell derived from logits, and how decided the logits were (section 3.2, "Architecture").

Each space derives cells in its own way: gdas.cnn.derive, gdas.rnn.derive, gdas.bench201.derive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gdas.cell_json import Edge
from gdas.genotype import AnyGenotype
from gdas.rnn.genotype import RecurrentGenotype

PARAMETER_FREE = ("none", "skip_connect", "max_pool_3x3", "avg_pool_3x3")
"""Operations on images, from all search spaces, that have no parameters at stride 1."""


@dataclass(frozen=True)
class DerivedCell:
    """A derived cell and how decided the logits were.

    Attributes:
        edges: the kept (operation, source) pairs. An image cell has two per node, the more
            important one first; a recurrent cell has the (function, predecessor) of states 1, 2,
            ...
        probabilities: the probability of each kept operation under softmax(logits).
        margins: that probability minus the next best eligible operation's on the same edge.
        entropy: mean entropy of the edges' distributions, divided by log K: 1 is undecided.
    """

    edges: tuple[Edge, ...]
    probabilities: tuple[float, ...]
    margins: tuple[float, ...]
    entropy: float


def relative_entropy(p_EK: Tensor) -> float:
    """Mean entropy of the edges' distributions, divided by log K."""
    entropy_E = -(p_EK * p_EK.clamp_min(1e-300).log()).sum(1)
    return float(entropy_E.mean() / torch.tensor(float(p_EK.shape[1])).log())


def describe(
    genotype: AnyGenotype, cells: Mapping[str, DerivedCell], logits: Mapping[str, Tensor]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and details of a derived genotype, as gdas.search.SearchSpace.derived returns them.

    Args:
        cells: the derived cells, by cell type.
        logits: E x K each, by cell type.
    """
    metrics = {}
    for kind, cell in cells.items():
        metrics[f"{kind}/entropy"] = cell.entropy
        metrics[f"{kind}/mean_margin"] = sum(cell.margins) / len(cell.margins)
        if not isinstance(genotype, RecurrentGenotype):  # whose functions have no parameters
            metrics[f"{kind}/parameter_free"] = float(parameter_free(cell.edges))
    details = {
        "genotype": genotype.to_json(),
        "probabilities": {kind: list(cell.probabilities) for kind, cell in cells.items()},
        "margins": {kind: list(cell.margins) for kind, cell in cells.items()},
        "logits": {kind: a.detach().tolist() for kind, a in logits.items()},
    }
    return metrics, details


def parameter_free(edges: tuple[Edge, ...]) -> int:
    """How many of the operations have no parameters; many are a sign of a collapse."""
    return sum(operation in PARAMETER_FREE for operation, _ in edges)
