"""From a recurrent cell's logits to a genotype (paper section 3.2, "Architecture", with T = 1).

Shapes: E edges (step by step, then by predecessor), K operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gdas.cell_json import Edge
from gdas.derive import DerivedCell, relative_entropy
from gdas.rnn.config import TextSearchConfig
from gdas.rnn.genotype import RECURRENT_OPERATIONS, RecurrentGenotype

CELL_TYPE = "recurrent"


def first_edge(step: int) -> int:
    """The row of the logits at which a step (1, 2, ...) begins; step i has i predecessors."""
    return step * (step - 1) // 2


def edge_count(steps: int) -> int:
    """The number of edges of a search cell: 36 for 8 steps."""
    return first_edge(steps + 1)


def derive_recurrent(
    logits_EK: Tensor, *, steps: int = 8, exclude_none: bool = True
) -> DerivedCell:
    """Keep every step's most important predecessor, with its most probable function.

    Args:
        logits_EK: E = 1 + 2 + ... + steps edges by the 5 operations, on the CPU.
        exclude_none: whether `none` counts neither for importance nor as a choice; False: the paper
            and the authors' recurrent code.

    If several are equal, the earlier index wins.
    """
    shape = (edge_count(steps), len(RECURRENT_OPERATIONS))
    if logits_EK.shape != shape:
        raise ValueError(f"logits are {tuple(logits_EK.shape)}, expected {shape}")
    p_EK = torch.softmax(logits_EK.detach().double(), dim=1)
    first = 1 if exclude_none else 0
    kept, probabilities, margins = list[Edge](), list[float](), list[float]()
    for step in range(1, steps + 1):
        rows = p_EK[first_edge(step) : first_edge(step + 1), first:].tolist()
        predecessor = max(range(step), key=lambda p: max(rows[p]))
        row = rows[predecessor]
        operation = row.index(max(row))
        kept.append((RECURRENT_OPERATIONS[first + operation], predecessor))
        probabilities.append(row[operation])
        margins.append(row[operation] - max(p for k, p in enumerate(row) if k != operation))
    return DerivedCell(
        edges=tuple(kept),
        probabilities=tuple(probabilities),
        margins=tuple(margins),
        entropy=relative_entropy(p_EK),
    )


def derive_recurrent_genotype(
    config: TextSearchConfig, logits: dict[str, Tensor]
) -> tuple[RecurrentGenotype, DerivedCell]:
    """The genotype that is derived from the logits, and how decided the cell is."""
    cell = derive_recurrent(logits[CELL_TYPE], steps=config.steps, exclude_none=config.exclude_none)
    return RecurrentGenotype(f"searched-seed{config.seed}", cell.edges), cell
