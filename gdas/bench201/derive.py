"""From the logits of a cell of NAS-Bench-201 to a genotype.

Shapes: E edges, K operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.genotype import CELL_OPERATIONS, EDGES, Bench201Genotype
from gdas.bench201.network import CELL_TYPE
from gdas.derive import DerivedCell, relative_entropy


def derive_bench201_cell(logits_EK: Tensor) -> DerivedCell:
    """Keep the most probable operation of every edge, which may be `none` (the benchmark's code).

    If several are equal, the earlier index wins.

    Raises:
        ValueError: the logits are not 6 edges by 5 operations.
    """
    shape = (len(EDGES), len(CELL_OPERATIONS))
    if logits_EK.shape != shape:
        raise ValueError(f"logits are {tuple(logits_EK.shape)}, expected {shape}")
    p_EK = torch.softmax(logits_EK.detach().double(), dim=1)
    rows: list[list[float]] = p_EK.tolist()
    kept = [row.index(max(row)) for row in rows]
    return DerivedCell(
        edges=tuple(
            (CELL_OPERATIONS[k], source) for k, (_, source) in zip(kept, EDGES, strict=True)
        ),
        probabilities=tuple(max(row) for row in rows),
        margins=tuple(
            row[k] - max(p for j, p in enumerate(row) if j != k)
            for row, k in zip(rows, kept, strict=True)
        ),
        entropy=relative_entropy(p_EK),
    )


def derive_bench201_genotype(
    config: Bench201SearchConfig, logits: dict[str, Tensor]
) -> tuple[Bench201Genotype, DerivedCell]:
    """The genotype that is derived from the logits, and how decided the cell is."""
    cell = derive_bench201_cell(logits[CELL_TYPE])
    operations = tuple(operation for operation, _ in cell.edges)
    return Bench201Genotype(f"searched-seed{config.seed}", operations), cell
