"""Genotypes: the discrete cells that a search derives and that networks are built from.

Paper Eq. 1 and Fig. 4. A cell has two inputs (source 0 = output of the cell two back, source 1 =
output of the previous cell) and `nodes` computed nodes (sources 2, 3, ...). Every node adds the
results of two (operation, source) pairs; the cell's output is the concatenation of its nodes.

A recurrent cell has one input state and a step for every further state: one function of one
earlier state. Its output is the mean of its states.

The cells of NAS-Bench-201 are in gdas.bench201.genotype; files of all kinds are read here.

A genotype is also the interface between search and training, as a small JSON file; such files are
untrusted input and are checked field by field.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gdas.bench201.genotype import BENCH201_FORMAT, Bench201Genotype, bench201_from_json
from gdas.errors import InputError
from gdas.files import named_object

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

FORMAT = "gdas-genotype/1"
RECURRENT_FORMAT = "gdas-recurrent-genotype/1"
MAX_BYTES = 1 << 20

Edge = tuple[str, int]


@dataclass(frozen=True)
class Genotype:
    """One normal cell and one reduction cell.

    Attributes:
        name: for people; no meaning to the code.
        normal: two (operation, source) pairs a node, node by node.
        reduce: the same for the reduction cell, or None for the fixed reduction cell (Fig. 3).
    """

    name: str
    normal: tuple[Edge, ...]
    reduce: tuple[Edge, ...] | None

    def __post_init__(self) -> None:
        check_cell(self.normal, f"genotype {self.name!r}, normal cell")
        if self.reduce is not None:
            check_cell(self.reduce, f"genotype {self.name!r}, reduction cell")

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary, the inverse of `from_json`."""
        return {
            "format": FORMAT,
            "name": self.name,
            "normal": [list(edge) for edge in self.normal],
            "reduce": "fixed" if self.reduce is None else [list(edge) for edge in self.reduce],
        }


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
        raise InputError(f"{where}: no steps; a recurrent cell needs at least one")
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
                f"{where}, concat: state {state}; expected different states from 0 to {steps}"
            )


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
    name, fields = named_object(value, FORMAT, ("normal", "reduce"), where)
    reduce = fields.get("reduce")
    try:
        return Genotype(
            name=name,
            normal=_edges(fields.get("normal"), f"{where}, normal"),
            reduce=None if reduce == "fixed" else _edges(reduce, f"{where}, reduce"),
        )
    except InputError as error:
        raise InputError(f"{where}: {error}" if where not in str(error) else str(error)) from None


def _edges(value: object, where: str) -> tuple[Edge, ...]:
    if not isinstance(value, list):
        raise InputError(f"{where}: expected a list of [operation, source] pairs")
    edges: list[Edge] = []
    for i, edge in enumerate(value):
        match edge:
            case [str(operation), int(source)] if not isinstance(source, bool):
                edges.append((operation, source))
            case _:
                raise InputError(f"{where}, edge {i}: expected [operation, source], got {edge!r}")
    return tuple(edges)


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
    concat: tuple[int, ...] = ()
    if "concat" in fields:
        states = fields["concat"]
        if not isinstance(states, list) or not states or any(type(s) is not int for s in states):
            raise InputError(f"{where}, concat: expected a list of states, got {states!r}")
        concat = tuple(states)
    try:
        return RecurrentGenotype(name, recurrent, concat)
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
    """Read a genotype file of any kind.

    Raises:
        InputError: the file is missing, larger than 1 MiB, not JSON, or not a genotype.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES} bytes, not a genotype file")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read the genotype file ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # ValueError: also numbers beyond reading
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a JSON file ({error})") from None
    return any_from_json(value, str(path))


def random_genotype(seed: int, *, nodes: int = 4, fixed_reduction: bool = False) -> Genotype:
    """A cell drawn uniformly from what a search may derive: distinct sources, `none` excluded."""
    rng = np.random.default_rng([seed, 0x9DA5])

    def cell() -> tuple[Edge, ...]:
        edges: list[Edge] = []
        for node in range(nodes):
            for source in rng.choice(node + 2, size=EDGES_PER_NODE, replace=False):
                operation = OPERATIONS[1 + int(rng.integers(len(OPERATIONS) - 1))]
                edges.append((operation, int(source)))
        return tuple(edges)

    return Genotype(f"random-{seed}", cell(), None if fixed_reduction else cell())


def random_recurrent_genotype(seed: int, *, steps: int = 8) -> RecurrentGenotype:
    """A cell drawn uniformly from what a search may derive, `none` excluded."""
    rng = np.random.default_rng([seed, 0x9DA5])
    recurrent = []
    for i in range(steps):
        operation = RECURRENT_OPERATIONS[1 + int(rng.integers(len(RECURRENT_OPERATIONS) - 1))]
        recurrent.append((operation, int(rng.integers(i + 1))))
    return RecurrentGenotype(f"random-{seed}", tuple(recurrent))


def _cell(text: str) -> tuple[Edge, ...]:
    short = {
        "skip": "skip_connect",
        "sep3": "sep_conv_3x3",
        "sep5": "sep_conv_5x5",
        "dil3": "dil_conv_3x3",
        "dil5": "dil_conv_5x5",
        "max": "max_pool_3x3",
        "avg": "avg_pool_3x3",
    }
    pairs = (item.split("@") for item in text.split())
    return tuple((short[operation], int(source)) for operation, source in pairs)


_V1_NORMAL = _cell("skip@0 skip@1 skip@0 sep5@2 sep3@3 skip@0 sep5@4 sep3@3")
_V1_REDUCE = _cell("sep5@0 sep3@1 sep5@2 sep5@1 dil5@2 sep3@1 sep5@0 sep5@1")
_F1_NORMAL = _cell("skip@0 skip@1 skip@0 sep3@2 skip@0 sep3@2 skip@0 sep3@2")

PUBLISHED = {
    genotype.name: genotype
    for genotype in (
        Genotype("GDAS_V1", _V1_NORMAL, _V1_REDUCE),
        Genotype("GDAS_F1", _F1_NORMAL, None),
        Genotype("GDAS_GF", _V1_NORMAL, None),
        Genotype("GDAS_FG", _F1_NORMAL, _V1_REDUCE),
        Genotype(
            "DARTS_V1",
            _cell("sep3@1 sep3@0 skip@0 sep3@1 skip@0 sep3@1 sep3@0 skip@2"),
            _cell("max@0 max@1 skip@2 max@0 max@0 skip@2 skip@2 avg@0"),
        ),
        Genotype(
            "DARTS_V2",
            _cell("sep3@0 sep3@1 sep3@0 sep3@1 sep3@1 skip@0 skip@0 dil3@2"),
            _cell("max@0 max@1 skip@2 max@1 max@0 skip@2 skip@2 max@1"),
        ),
        Genotype(
            "PDARTS",
            _cell("skip@0 dil3@1 skip@0 sep3@1 sep3@1 sep3@3 sep3@0 dil5@4"),
            _cell("avg@0 sep5@1 sep3@0 dil5@2 max@0 dil3@1 dil3@1 dil5@3"),
        ),
    )
}
"""Published cells. V1, F1: paper Fig. 4. GF, FG: Table 5 rows 2 and 3. Rest: the authors' code."""


def _recurrent(name: str, text: str, concat: tuple[int, ...] = ()) -> RecurrentGenotype:
    pairs = (item.split("@") for item in text.split())
    steps = tuple((operation, int(source)) for operation, source in pairs)
    return RecurrentGenotype(name, steps, concat)


PUBLISHED_RECURRENT = {
    genotype.name: genotype
    for genotype in (
        _recurrent(
            "RNN_GDAS", "relu@0 relu@0 identity@1 relu@1 tanh@0 relu@2 identity@4 identity@2"
        ),
        _recurrent("RNN_DARTS_V1", "relu@0 relu@1 tanh@2 relu@3 relu@4 identity@1 relu@5 relu@1"),
        _recurrent(
            "RNN_DARTS_V2", "sigmoid@0 relu@1 relu@1 identity@1 tanh@2 sigmoid@5 tanh@3 relu@5"
        ),
        _recurrent(
            "RNN_ENAS",
            "tanh@0 tanh@1 relu@1 tanh@3 tanh@3 relu@3 relu@4 relu@7 relu@8 relu@8 relu@8",
            (2, 5, 6, 9, 10, 11),
        ),
    )
}
"""Published recurrent cells. RNN_GDAS: paper Fig. 4. Rest: the authors' code."""
