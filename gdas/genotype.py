"""Genotypes: the discrete cells that a search derives and that networks are built from.

Paper Eq. 1 and Fig. 4. A cell has two inputs (source 0 = output of the cell two back, source 1 =
output of the previous cell) and `nodes` computed nodes (sources 2, 3, ...). Every node adds the
results of two (operation, source) pairs; the cell's output is the concatenation of its nodes.

A recurrent cell has one input state and a step for every further state: one function of one
earlier state. Its output is the mean of its states.

The cells of NAS-Bench-201 are in gdas.bench201.genotype; files of all kinds are read here.

A genotype is also the interface between search and training, as a small JSON file; such files are
untrusted input and are checked field by field. What other projects write is read too
(gdas.genotype_text).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gdas.bench201.genotype import BENCH201_FORMAT, Bench201Genotype, bench201_from_json
from gdas.edge_lists import TWO_EDGES
from gdas.errors import InputError, one_line
from gdas.files import named_object
from gdas.genotype_text import FORMAT as FORMAT
from gdas.genotype_text import RECURRENT_FORMAT, genotype_value
from gdas.published_cells import published_cells, published_recurrent_cells

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
"""What a derived cell may hold: the search space and two operations of earlier published cells."""

EDGES_PER_NODE = 2
"""T = 2 incoming edges are kept for every node (paper, section 3.2)."""

RECURRENT_OPERATIONS = ("none", "tanh", "relu", "sigmoid", "identity")
"""The functions of a recurrent cell, in the order of the authors' code."""

MAX_BYTES = 1 << 20

Edge = tuple[str, int]


@dataclass(frozen=True)
class Genotype:
    """One normal cell and one reduction cell.

    Attributes:
        name: for people; no meaning to the code.
        normal: two (operation, source) pairs a node, node by node.
        reduce: the same for the reduction cell, or None for the fixed reduction cell (Fig. 3).
        normal_concat: the nodes that the normal cell's output concatenates, in this order; left
            out: all, as in the paper. Some earlier cells (NASNet, AmoebaNet) leave nodes out.
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

        A concatenation of all nodes is left out: cells had no other when their jobs got their ids.
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


@dataclass(frozen=True)
class RecurrentGenotype:
    """One recurrent cell (paper section 4.3 and Fig. 4).

    Attributes:
        name: for people; no meaning to the code.
        recurrent: (function, predecessor) of states 1, 2, ...; state 0 is the input state.
        concat: the states whose mean is the output; left out: all but the input state.
    """

    name: str
    recurrent: tuple[Edge, ...]
    concat: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.concat:
            object.__setattr__(self, "concat", tuple(range(1, len(self.recurrent) + 1)))
        _check_recurrent(self, f"genotype {self.name!r}")

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary, the inverse of `recurrent_from_json`."""
        return {
            "format": RECURRENT_FORMAT,
            "name": self.name,
            "recurrent": [list(edge) for edge in self.recurrent],
            "concat": list(self.concat),
        }


AnyGenotype = Genotype | RecurrentGenotype | Bench201Genotype


def _check_recurrent(genotype: RecurrentGenotype, where: str) -> None:
    steps = len(genotype.recurrent)
    if steps == 0:
        raise InputError(f'{where}: no steps; a recurrent cell needs one or more, as [["tanh", 0]]')
    for i, (operation, source) in enumerate(genotype.recurrent):
        if operation not in RECURRENT_OPERATIONS:
            raise InputError(
                f"{where}, step {i + 1}: unknown function {operation!r}; "
                f"known are {', '.join(RECURRENT_OPERATIONS)}"
            )
        if not 0 <= source <= i:
            raise InputError(
                f"{where}, step {i + 1}: predecessor {source}; this step may read states 0 to {i}"
            )
    for state in genotype.concat:
        if not 0 <= state <= steps or genotype.concat.count(state) > 1:
            raise InputError(
                f"{where}, concat: state {state}; must be different states from 0 to {steps}, "
                "or left out for all but 0"
            )


def all_nodes(edges: Sequence[Edge]) -> tuple[int, ...]:
    """The computed nodes of a cell, as sources and concatenations number them: 2, 3, ..."""
    return tuple(range(2, len(edges) // EDGES_PER_NODE + 2))


def _unread(edges: Sequence[Edge], concat: Sequence[int]) -> list[int]:
    """Nodes whose operations the output does not depend on: their weights would never learn."""
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
    """Raise InputError unless `edges` is a cell: known operations, sources that come before."""
    if not edges or len(edges) % EDGES_PER_NODE:
        raise InputError(
            f"{where}: {len(edges)} edges; a cell needs {EDGES_PER_NODE} (operation, source) "
            "pairs for every node"
        )
    for i, (operation, source) in enumerate(edges):
        if operation not in DERIVED_OPERATIONS:
            raise InputError(
                f"{where}, edge {i}: unknown operation {operation!r}; "
                f"known are {', '.join(DERIVED_OPERATIONS)}"
            )
        last = i // EDGES_PER_NODE + 1
        if not 0 <= source <= last:
            raise InputError(
                f"{where}, edge {i}: source {source}; this node may read sources 0 to {last}"
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
            _edges(fields.get("normal"), f"{where}, normal"),
            None if reduce == "fixed" else _edges(reduce, f"{where}, reduce"),
            *(_concat(fields, key, where) for key in concats),
        )
    except InputError as error:
        raise InputError(f"{where}: {error}" if where not in str(error) else str(error)) from None


def _edges(value: object, where: str) -> tuple[Edge, ...]:
    if not isinstance(value, list):
        raise InputError(
            f"{where}: is {one_line(value, 60)}; must be a list of [operation, source] pairs, such "
            f"as {TWO_EDGES}"
        )
    edges: list[Edge] = []
    for i, edge in enumerate(value):
        match edge:
            case [str(operation), int(source)] if not isinstance(source, bool):
                edges.append((operation, source))
            case _:
                raise InputError(
                    f"{where}, edge {i}: is {one_line(edge, 60)}; must be [operation, source], "
                    'such as ["sep_conv_3x3", 0]'
                )
    return tuple(edges)


def _concat(fields: dict[str, Any], key: str, where: str) -> tuple[int, ...]:
    """A list of nodes or states; empty if it is left out, which stands for all."""
    if key not in fields:
        return ()
    states = fields[key]
    if not isinstance(states, list) or not states or any(type(s) is not int for s in states):
        raise InputError(
            f"{where}, {key}: must be a list of one or more whole numbers, such as [2, 3, 4, 5], "
            f"or left out for all; got {one_line(states, 60)}"
        )
    return tuple(states)


def recurrent_from_json(value: object, where: str = "genotype") -> RecurrentGenotype:
    """Check a decoded JSON value and build the genotype.

    Args:
        value: what `RecurrentGenotype.to_json` returned, or anything else; `concat` may be left
            out.
        where: what to call it in an error, usually the file.

    Raises:
        InputError: a key is missing or unknown, or the cell is malformed.
    """
    name, fields = named_object(
        value, RECURRENT_FORMAT, ("recurrent",), where, optional=("concat",)
    )
    recurrent = _edges(fields.get("recurrent"), f"{where}, recurrent")
    try:
        return RecurrentGenotype(name, recurrent, _concat(fields, "concat", where))
    except InputError as error:
        raise InputError(f"{where}: {error}" if where not in str(error) else str(error)) from None


def any_from_json(value: object, where: str = "genotype") -> AnyGenotype:
    """Build the genotype of the kind that a decoded JSON value's `format` names.

    Raises:
        InputError: an unknown format, or malformed.
    """
    form = value.get("format") if isinstance(value, dict) else None
    if form == RECURRENT_FORMAT:
        return recurrent_from_json(value, where)
    if form == BENCH201_FORMAT:
        return bench201_from_json(value, where)
    return from_json(value, where)


def load(path: str | os.PathLike[str]) -> AnyGenotype:
    """Read a genotype file of any kind: one of this project's, or as other projects write them.

    Args:
        path: the file; or FILE:NAME, the genotype that a Python file assigns to a name.

    Raises:
        InputError: the file is missing, larger than 1 MiB, or has not one genotype.
    """
    path, named = Path(path), None
    try:
        if not path.exists() and ":" in path.name:
            file, _, name = str(path).rpartition(":")
            if Path(file).is_file():
                path, named = Path(file), name
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{path}: larger than {MAX_BYTES} bytes, not a genotype file; keep one line of a "
                f"log: grep Genotype {path.name} | tail -1 > cell.txt"
            )
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read the genotype file ({error.strerror})") from None
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))  # what PowerShell writes
    if b"\0" in content and not utf16:
        raise InputError(
            f"{path}: is no text (a zero byte is in it); name the log or the genotype file, not a "
            "checkpoint, or save it as UTF-8"
        )
    # A log may hold anything beside a genotype, whose own words are plain ASCII.
    text = content.decode("utf-16" if utf16 else "utf-8", errors="replace")
    return read(text, str(path), named=named)


def read(text: str, where: str, *, named: str | None = None) -> AnyGenotype:
    """The one genotype in a text, in any of the forms that gdas.genotype_text reads.

    Args:
        where: what to call the text in an error, usually the file.
        named: which of several that are assigned to names.

    Raises:
        InputError: the text has not one genotype, or it is malformed.
    """
    return any_from_json(genotype_value(text, where, named=named), where)


def random_genotype(
    seed: int,
    *,
    nodes: int = 4,
    fixed_reduction: bool = False,
    distinct_sources: bool = True,
    exclude_none: bool = True,
) -> Genotype:
    """A cell drawn uniformly from what a search may derive, by that search's settings.

    Args:
        nodes: B.
        fixed_reduction: draw the normal cell alone.
        distinct_sources: of a node; False: any two different (operation, source) pairs of it.
        exclude_none: no edge is `none`.
    """
    rng = np.random.default_rng([seed, 0x9DA5])
    operations = OPERATIONS[1:] if exclude_none else OPERATIONS

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


def random_recurrent_genotype(
    seed: int, *, steps: int = 8, exclude_none: bool = True
) -> RecurrentGenotype:
    """A cell drawn uniformly from what a search may derive, by that search's settings."""
    rng = np.random.default_rng([seed, 0x9DA5])
    operations = RECURRENT_OPERATIONS[1:] if exclude_none else RECURRENT_OPERATIONS
    recurrent = []
    for i in range(steps):
        operation = operations[int(rng.integers(len(operations)))]
        recurrent.append((operation, int(rng.integers(i + 1))))
    return RecurrentGenotype(f"random-{seed}", tuple(recurrent))


PUBLISHED = {
    name: Genotype(name, normal, reduce) for name, (normal, reduce) in published_cells().items()
}
"""Published image cells; gdas.published_cells says where each is from."""

PUBLISHED_RECURRENT = {
    name: RecurrentGenotype(name, steps, concat)
    for name, (steps, concat) in published_recurrent_cells().items()
}
"""Published recurrent cells. RNN_GDAS: paper Fig. 4. Rest: their authors' code."""
