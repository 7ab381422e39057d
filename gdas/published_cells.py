"""Cells that papers published, as text; gdas.cnn.genotype and gdas.rnn.genotype build them.

GDAS_V1, GDAS_F1: paper Fig. 4. GDAS_GF, GDAS_FG: Table 5, rows 2 and 3. RNN_GDAS: Fig. 4. DARTS,
P-DARTS and the other recurrent cells: the code of GDAS's authors. PC_DARTS: Xu et al., ICLR 2020.
SGAS_CRI1, SGAS_CRI2: Li et al., CVPR 2020, the best cells of criterion 1 and 2. DRNAS: Chen et al.,
ICLR 2021, with progressive learning. The cells of these last three come from their authors' code.
Their numbers of parameters (without the auxiliary head, on CIFAR-10 with 36 channels and 20 cells,
or on ImageNet with 48 and 14) agree with the published figures to the last digit, as that code or a
later project's comments give them (tests/gdas/test_golden.py); the papers themselves were not
available.
"""

from __future__ import annotations

Edges = tuple[tuple[str, int], ...]

SHORT = {
    "skip": "skip_connect",
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
}

_V1_NORMAL = "skip@0 skip@1 skip@0 sep5@2 sep3@3 skip@0 sep5@4 sep3@3"
_V1_REDUCE = "sep5@0 sep3@1 sep5@2 sep5@1 dil5@2 sep3@1 sep5@0 sep5@1"
_F1_NORMAL = "skip@0 skip@1 skip@0 sep3@2 skip@0 sep3@2 skip@0 sep3@2"

IMAGE_CELLS: dict[str, tuple[str, str | None]] = {
    "GDAS_V1": (_V1_NORMAL, _V1_REDUCE),
    "GDAS_F1": (_F1_NORMAL, None),
    "GDAS_GF": (_V1_NORMAL, None),
    "GDAS_FG": (_F1_NORMAL, _V1_REDUCE),
    "DARTS_V1": (
        "sep3@1 sep3@0 skip@0 sep3@1 skip@0 sep3@1 sep3@0 skip@2",
        "max@0 max@1 skip@2 max@0 max@0 skip@2 skip@2 avg@0",
    ),
    "DARTS_V2": (
        "sep3@0 sep3@1 sep3@0 sep3@1 sep3@1 skip@0 skip@0 dil3@2",
        "max@0 max@1 skip@2 max@1 max@0 skip@2 skip@2 max@1",
    ),
    "PDARTS": (
        "skip@0 dil3@1 skip@0 sep3@1 sep3@1 sep3@3 sep3@0 dil5@4",
        "avg@0 sep5@1 sep3@0 dil5@2 max@0 dil3@1 dil3@1 dil5@3",
    ),
    "PC_DARTS_CIFAR": (
        "sep3@1 skip@0 sep3@0 dil3@1 sep5@0 sep3@1 avg@0 dil3@1",
        "sep5@1 max@0 sep5@1 sep5@2 sep3@0 sep3@3 sep3@1 sep3@2",
    ),
    "PC_DARTS_IMAGENET": (
        "skip@1 sep3@0 sep3@0 skip@1 sep3@1 sep3@3 sep3@1 dil5@4",
        "sep3@0 skip@1 dil5@2 max@1 sep3@2 sep3@1 sep5@0 sep3@3",
    ),
    "SGAS_CRI1": (
        "sep3@0 dil3@1 sep3@0 sep3@1 sep5@1 sep5@3 skip@0 dil5@2",
        "max@0 dil5@1 sep3@0 skip@2 sep3@1 skip@2 max@0 max@1",
    ),
    "SGAS_CRI2": (
        "sep3@0 sep3@1 sep3@0 sep3@2 max@0 sep3@3 sep3@2 sep3@3",
        "sep3@0 max@1 dil3@0 max@1 max@0 sep3@2 max@0 sep5@2",
    ),
    "DRNAS_CIFAR": (
        "sep3@0 sep5@1 sep3@1 sep3@2 skip@0 sep3@1 sep3@2 dil5@3",
        "max@0 sep5@1 dil5@2 sep5@1 sep5@1 dil5@3 skip@4 sep5@1",
    ),
    "DRNAS_IMAGENET": (
        "sep3@1 sep3@0 sep3@0 sep3@1 sep3@0 dil3@3 skip@0 sep3@1",
        "max@0 sep3@1 sep3@0 skip@2 sep3@0 sep3@2 sep3@3 sep3@1",
    ),
}
"""Normal and reduction cells (None: the fixed one) as operation@source, two for every node."""

RECURRENT_CELLS: dict[str, tuple[str, tuple[int, ...]]] = {
    "RNN_GDAS": ("relu@0 relu@0 identity@1 relu@1 tanh@0 relu@2 identity@4 identity@2", ()),
    "RNN_DARTS_V1": ("relu@0 relu@1 tanh@2 relu@3 relu@4 identity@1 relu@5 relu@1", ()),
    "RNN_DARTS_V2": ("sigmoid@0 relu@1 relu@1 identity@1 tanh@2 sigmoid@5 tanh@3 relu@5", ()),
    "RNN_ENAS": (
        "tanh@0 tanh@1 relu@1 tanh@3 tanh@3 relu@3 relu@4 relu@7 relu@8 relu@8 relu@8",
        (2, 5, 6, 9, 10, 11),
    ),
}
"""States as function@predecessor, and the states whose mean is the output (empty: all)."""


def _edges(text: str) -> Edges:
    pairs = (item.split("@") for item in text.split())
    return tuple((SHORT.get(operation, operation), int(source)) for operation, source in pairs)


def published_cells() -> dict[str, tuple[Edges, Edges | None]]:
    """The normal and the reduction cell, by name; None stands for the fixed reduction cell."""
    return {
        name: (_edges(normal), None if reduce is None else _edges(reduce))
        for name, (normal, reduce) in IMAGE_CELLS.items()
    }


def published_recurrent_cells() -> dict[str, tuple[Edges, tuple[int, ...]]]:
    """The recurrent cell's states and its concatenation, by name."""
    return {name: (_edges(text), concat) for name, (text, concat) in RECURRENT_CELLS.items()}
