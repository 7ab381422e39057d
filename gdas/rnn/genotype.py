"""Genotypes of recurrent cells: what a search derives and what language models are built from.

Source: paper section 4.3 and Fig. 4. A recurrent cell has one input state and a step for every
further state: one function of one earlier state. Its output is the mean of its states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gdas.cell_json import Edge, edges_from_json, numbers_from_json, require_genotype
from gdas.errors import InputError
from gdas.files import named_object
from gdas.published_cells import published_recurrent_cells

RECURRENT_FORMAT = "gdas-recurrent-genotype/1"

RECURRENT_OPERATIONS = ("none", "tanh", "relu", "sigmoid", "identity")
"""The functions of a recurrent cell, in the order of the authors' code."""


@dataclass(frozen=True)
class RecurrentGenotype:
    """One recurrent cell (paper section 4.3 and Fig. 4).

    Attributes:
        name: for people only.
        recurrent: (function, predecessor) of states 1, 2, ...; state 0 is the input state.
        concat: the states whose mean is the output; by default all but the input state.
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


def _check_recurrent(genotype: RecurrentGenotype, where: str) -> None:
    steps = len(genotype.recurrent)
    if steps == 0:
        raise InputError(f'{where}: no steps; a recurrent cell needs one or more, as [["tanh", 0]]')
    for i, (operation, source) in enumerate(genotype.recurrent):
        if operation not in RECURRENT_OPERATIONS:
            raise InputError(
                f"{where}, step {i + 1}: unknown function {operation!r}; "
                f"use {', '.join(RECURRENT_OPERATIONS)}"
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
    recurrent = edges_from_json(fields.get("recurrent"), f"{where}, recurrent")
    try:
        return RecurrentGenotype(name, recurrent, numbers_from_json(fields, "concat", where))
    except InputError as error:
        raise InputError(f"{where}: {error}" if where not in str(error) else str(error)) from None


def random_recurrent_genotype(
    seed: int, *, steps: int = 8, exclude_none: bool = True
) -> RecurrentGenotype:
    """Draw a cell uniformly from those that a search with these settings may derive."""
    rng = np.random.default_rng([seed, 0x9DA5])
    operations = RECURRENT_OPERATIONS[1:] if exclude_none else RECURRENT_OPERATIONS
    recurrent = []
    for i in range(steps):
        operation = operations[int(rng.integers(len(operations)))]
        recurrent.append((operation, int(rng.integers(i + 1))))
    return RecurrentGenotype(f"random-{seed}", tuple(recurrent))


PUBLISHED_RECURRENT = {
    name: RecurrentGenotype(name, steps, concat)
    for name, (steps, concat) in published_recurrent_cells().items()
}
"""Published recurrent cells; gdas.published_cells gives the source of each."""


def check_recurrent_genotype(genotype: object) -> None:
    """Raise InputError unless this is a genotype of recurrent cells."""
    table = "gdas.rnn.genotype.PUBLISHED_RECURRENT"
    require_genotype(genotype, (RecurrentGenotype,), PUBLISHED_RECURRENT, table)
