"""Genotypes of image cells: what a search derives and what networks are built from.

Source: paper Eq. 1 and Fig. 4. A cell has two inputs (source 0 is the output of the cell two back,
source 1 that of the previous cell) and `nodes` computed nodes (sources 2, 3, ...). Every node adds
the results of two (operation, source) pairs; the cell's output is the concatenation of its nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gdas.cell_json import Edge, edges_from_json, numbers_from_json, require_genotype
from gdas.errors import InputError, one_line, suggestion
from gdas.files import named_object
from gdas.outside import EXAMPLE, is_outside
from gdas.published_cells import published_cells

FORMAT = "gdas-genotype/1"

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The search space F, in the order of the authors' code (the columns of the logits)."""

DERIVED_OPERATIONS = (*OPERATIONS, "sep_conv_7x7", "conv_7x1_1x7")
"""What a derived cell may have: the search space and two operations of earlier published cells."""

MIN_OPERATIONS = 2
EDGES_PER_NODE = 2
"""T = 2 incoming edges are kept for every node (paper, section 3.2)."""


@dataclass(frozen=True)
class Genotype:
    """One normal cell and one reduction cell.

    Attributes:
        name: for people only.
        normal: two (operation, source) pairs per node, node by node.
        reduce: the same for the reduction cell, or None for the fixed reduction cell (Fig. 3).
        normal_concat: the nodes that the normal cell's output concatenates, in this order; by
            default all, as in the paper. Some earlier cells (NASNet, AmoebaNet) leave nodes out.
        reduce_concat: the same for the reduction cell; empty for the fixed one.
    """

    name: str
    normal: tuple[Edge, ...]
    reduce: tuple[Edge, ...] | None
    normal_concat: tuple[int, ...] = ()
    reduce_concat: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_cell(self.normal, f"genotype {self.name!r}, normal cell")
        if self.reduce is not None:
            check_cell(self.reduce, f"genotype {self.name!r}, reduction cell")
        for kind, edges in (("normal", self.normal), ("reduce", self.reduce)):
            key, every = f"{kind}_concat", all_nodes(edges or ())
            concat = (getattr(self, key) or every) if edges is not None else ()
            object.__setattr__(self, key, concat)
            if not set(concat) <= set(every) or len(set(concat)) < len(concat):
                raise InputError(
                    f"genotype {self.name!r}, {key}: {list(concat)}; must be different nodes from "
                    f"{every[0]} to {every[-1]}, such as {list(every)}"
                )
            if unread := _unread(edges or (), concat):
                raise InputError(
                    f"genotype {self.name!r}, {key}: {list(concat)} leaves out node {unread[0]}, "
                    "which no concatenated node reads either; concatenate it, or leave "
                    f"{key} out for all nodes"
                )

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary, the inverse of `from_json`.

        A concatenation of all nodes is left out, so that jobs keep the ids that they had before
        cells could have another one.
        """
        value: dict[str, Any] = {
            "format": FORMAT,
            "name": self.name,
            "normal": [list(edge) for edge in self.normal],
            "reduce": "fixed" if self.reduce is None else [list(edge) for edge in self.reduce],
        }
        if self.normal_concat != all_nodes(self.normal):
            value["normal_concat"] = list(self.normal_concat)
        if self.reduce is not None and self.reduce_concat != all_nodes(self.reduce):
            value["reduce_concat"] = list(self.reduce_concat)
        return value


def operations_of(genotype: Genotype) -> tuple[str, ...]:
    """The operations of both cells, each once."""
    edges = (*genotype.normal, *(genotype.reduce or ()))
    return tuple(dict.fromkeys(name for name, _ in edges))


def all_nodes(edges: Sequence[Edge]) -> tuple[int, ...]:
    """The computed nodes of a cell, numbered as in sources and concatenations: 2, 3, ..."""
    return tuple(range(2, len(edges) // EDGES_PER_NODE + 2))


def _unread(edges: Sequence[Edge], concat: Sequence[int]) -> list[int]:
    """Nodes that the output does not depend on although they have operations.

    The weights of these operations would never learn.
    """
    read = set(concat)
    unread = []
    for node in reversed(all_nodes(edges)):
        first = EDGES_PER_NODE * (node - 2)
        pair = edges[first : first + EDGES_PER_NODE]
        if node in read:
            read |= {source for _, source in pair}
        elif any(operation != "none" for operation, _ in pair):
            unread.append(node)
    return unread


def check_cell(edges: Sequence[Edge], where: str) -> None:
    """Raise InputError unless `edges` is a cell: known operations, and earlier nodes as sources."""
    if not edges or len(edges) % EDGES_PER_NODE:
        raise InputError(
            f"{where}: {len(edges)} edges; a cell needs {EDGES_PER_NODE} (operation, source) "
            'pairs for every node, such as [["sep_conv_3x3", 0], ["skip_connect", 1]] for one'
        )
    for i, (operation, source) in enumerate(edges):
        if operation not in DERIVED_OPERATIONS and not is_outside(operation):
            raise InputError(
                f"{where}, edge {i}: unknown operation {operation!r}; "
                f"use {', '.join(DERIVED_OPERATIONS)}"
            )
        last = i // EDGES_PER_NODE + 1
        if not 0 <= source <= last:
            raise InputError(
                f"{where}, edge {i}: source {source}; this node may read sources 0 to {last}, "
                "which come before it"
            )


def check_names(names: Sequence[str]) -> None:
    """Raise InputError unless these can be the operations of a search; nothing is imported."""
    for name in names:
        if name not in DERIVED_OPERATIONS and not is_outside(name):
            close = suggestion(name, DERIVED_OPERATIONS)
            raise InputError(
                f"operations={one_line(name, 60)}: unknown{close} (yours: module:function, such as "
                f"{EXAMPLE})"
            )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"operations={list(names)}: {twice} is named twice; name each once")
    if len(set(names) - {"none"}) < MIN_OPERATIONS:
        raise InputError(
            f"operations={list(names)}: a search chooses between two or more besides none; such as "
            "[none, skip_connect, sep_conv_3x3]"
        )


def from_json(value: object, where: str = "genotype") -> Genotype:
    """Check a decoded JSON value and build the genotype.

    Args:
        value: what `Genotype.to_json` returned, or anything else.
        where: what to call it in an error, usually the file.

    Raises:
        InputError: a key is missing or unknown, or a cell is malformed.
    """
    concats = ("normal_concat", "reduce_concat")
    name, fields = named_object(value, FORMAT, ("normal", "reduce"), where, optional=concats)
    reduce = fields.get("reduce")
    try:
        return Genotype(
            name,
            edges_from_json(fields.get("normal"), f"{where}, normal"),
            None if reduce == "fixed" else edges_from_json(reduce, f"{where}, reduce"),
            *(numbers_from_json(fields, key, where) for key in concats),
        )
    except InputError as error:
        raise InputError(f"{where}: {error}" if where not in str(error) else str(error)) from None


def eligible(operations: Sequence[str], *, exclude_none: bool) -> tuple[str, ...]:
    """The operations that a derived cell may have."""
    return tuple(name for name in operations if not (exclude_none and name == "none"))


def random_genotype(
    seed: int,
    *,
    nodes: int = 4,
    fixed_reduction: bool = False,
    distinct_sources: bool = True,
    exclude_none: bool = True,
    operations: Sequence[str] = OPERATIONS,
) -> Genotype:
    """Draw a cell uniformly from those that a search with these settings may derive.

    Args:
        nodes: B.
        fixed_reduction: whether only the normal cell is drawn.
        distinct_sources: whether a node's two sources must differ; False: any two different
            (operation, source) pairs.
        exclude_none: whether no edge may be `none`.
        operations: those of the search.
    """
    rng = np.random.default_rng([seed, 0x9DA5])
    operations = eligible(operations, exclude_none=exclude_none)

    def cell() -> tuple[Edge, ...]:
        edges: list[Edge] = []
        for node in range(nodes):
            if distinct_sources:
                for source in rng.choice(node + 2, size=EDGES_PER_NODE, replace=False):
                    edges.append((operations[int(rng.integers(len(operations)))], int(source)))
                continue
            pairs = rng.choice((node + 2) * len(operations), size=EDGES_PER_NODE, replace=False)
            for source, k in (divmod(int(pair), len(operations)) for pair in pairs):
                edges.append((operations[k], source))
        return tuple(edges)

    return Genotype(f"random-{seed}", cell(), None if fixed_reduction else cell())


PUBLISHED = {
    name: Genotype(name, normal, reduce) for name, (normal, reduce) in published_cells().items()
}
"""Published image cells; gdas.published_cells gives the source of each."""


def check_genotype(genotype: object) -> None:
    """Raise InputError unless this is a genotype of image cells."""
    require_genotype(genotype, (Genotype,), PUBLISHED, "gdas.cnn.genotype.PUBLISHED")
