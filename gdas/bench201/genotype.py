"""Cells of NAS-Bench-201 (Dong & Yang, ICLR 2020): four nodes, one operation on each of six edges.

Node 0 is the input, node 3 the output; a node is the sum of its edges' results from earlier nodes.
Such a cell is written `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`: the terms of nodes 1, 2 and 3, each
operation with its source. There are 5^6 = 15,625 cells, which are trained one by one in the
benchmark and drawn one by one here. They compute 5,044 different functions
(`gdas.bench201.functions`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from gdas.errors import InputError, one_line
from gdas.files import named_object

CELL_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""The operations, in the order of the authors' code (the columns of the logits)."""

NODES = 4
EDGES = tuple((node, source) for node in range(1, NODES) for source in range(node))
"""(node, source) of every edge, in the order of the logits' rows and of the cell's string."""

CELLS = len(CELL_OPERATIONS) ** len(EDGES)
PATTERN = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
EXAMPLE = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
"""For errors."""
BENCH201_FORMAT = "gdas-bench201-genotype/1"


Accuracy = Literal[
    "cifar10_test_200",
    "cifar100_test_200",
    "imagenet16_120_test_200",
    "cifar10_valid_12",
    "cifar10_test_12",
]
"""A column of the table: data set, split, and epochs of training."""

ACCURACIES: tuple[Accuracy, ...] = get_args(Accuracy)

IMAGES_OF: dict[Accuracy, str] = {
    "cifar10_test_200": "cifar10",
    "cifar100_test_200": "cifar100",
    "imagenet16_120_test_200": "imagenet16-120",
    "cifar10_valid_12": "cifar10",
    "cifar10_test_12": "cifar10",
}
"""The data set on which a column's accuracies were measured."""

CLASSES: dict[Accuracy, int] = {
    "cifar10_test_200": 10,
    "cifar100_test_200": 100,
    "imagenet16_120_test_200": 120,
    "cifar10_valid_12": 10,
    "cifar10_test_12": 10,
}
"""Classes of that data set."""


def own_accuracy(images: str) -> Accuracy:
    """The column in which a search on a data set is looked up; by default CIFAR-10's.

    If the search is on other images than its column, the report says so.
    """
    return next((column for column, of in IMAGES_OF.items() if of == images), "cifar10_test_200")


def reaches_output(operations: Sequence[int]) -> bool:
    """Whether a path of operations other than `none` leads from node 0 to the output.

    Without such a path, the cell's output is zero for every input.

    Args:
        operations: an index into CELL_OPERATIONS for each of EDGES.
    """
    reached = {0}
    for (node, source), k in zip(EDGES, operations, strict=True):
        if CELL_OPERATIONS[k] != "none" and source in reached:
            reached.add(node)
    return NODES - 1 in reached


@dataclass(frozen=True)
class Bench201Genotype:
    """One cell of NAS-Bench-201.

    Attributes:
        name: for people only.
        operations: one for each of EDGES.
    """

    name: str
    operations: tuple[str, ...]

    def __post_init__(self) -> None:
        where = f"genotype {self.name!r}"
        if len(self.operations) != len(EDGES):
            raise InputError(
                f"{where}: {len(self.operations)} operations; must be one for each of the "
                f"{len(EDGES)} edges, as in {EXAMPLE}"
            )
        for (node, source), operation in zip(EDGES, self.operations, strict=True):
            if operation not in CELL_OPERATIONS:
                raise InputError(
                    f"{where}, edge {source} to {node}: unknown operation {operation!r}; "
                    f"use {', '.join(CELL_OPERATIONS)}"
                )

    def __str__(self) -> str:
        """The benchmark's string for the cell, the inverse of `bench201_from_string`."""
        terms = iter(self.operations)
        return "+".join(
            "|" + "".join(f"{next(terms)}~{source}|" for source in range(node))
            for node in range(1, NODES)
        )

    @property
    def number(self) -> int:
        """The cell's number among all CELLS: its operations as digits, the first edge's first."""
        number = 0
        for operation in self.operations:
            number = number * len(CELL_OPERATIONS) + CELL_OPERATIONS.index(operation)
        return number

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary, the inverse of `bench201_from_json`."""
        return {"format": BENCH201_FORMAT, "name": self.name, "cell": str(self)}


def bench201_from_string(
    text: str, name: str = "unnamed", where: str = "genotype"
) -> Bench201Genotype:
    """Read a cell from its string.

    Args:
        where: what to call it in an error.

    Raises:
        InputError: the string has another form, or an operation is unknown.
    """
    terms = text.replace("|+|", "|").removeprefix("|").removesuffix("|").split("|")
    operations = tuple(term.partition("~")[0] for term in terms)
    if unknown := [operation for operation in operations if operation not in CELL_OPERATIONS]:
        raise InputError(
            f"{where}: unknown operation {unknown[0][:40]!r} in {text[:200]!r}; "
            f"use {', '.join(CELL_OPERATIONS)}"
        )
    if len(operations) == len(EDGES):
        genotype = Bench201Genotype(name, operations)
        if str(genotype) == text:
            return genotype
    raise InputError(
        f"{where}: {text[:200]!r} is not of the form {PATTERN}; write it such as {EXAMPLE}"
    )


def bench201_from_json(value: object, where: str = "genotype") -> Bench201Genotype:
    """Check a decoded JSON value and build the genotype.

    Args:
        value: what `Bench201Genotype.to_json` returned, or anything else.
        where: what to call it in an error, usually the file.

    Raises:
        InputError: a key is missing or unknown, or the cell is malformed.
    """
    name, fields = named_object(value, BENCH201_FORMAT, ("cell",), where)
    cell = fields.get("cell")
    if not isinstance(cell, str):
        raise InputError(
            f"{where}, cell: is {one_line(cell, 60)}; must be text of the form {PATTERN}, such as "
            f"{EXAMPLE}"
        )
    return bench201_from_string(cell, name, f"{where}, cell")


def bench201_cell(number: int, name: str | None = None) -> Bench201Genotype:
    """The cell with a `number` from 0 to CELLS - 1, by default named after it.

    Raises:
        ValueError: there is no such cell.
    """
    if not 0 <= number < CELLS:
        raise ValueError(f"cell {number}: there are cells 0 to {CELLS - 1}")
    rest, operations = number, list[str]()
    for _ in EDGES:
        rest, k = divmod(rest, len(CELL_OPERATIONS))
        operations.insert(0, CELL_OPERATIONS[k])
    return Bench201Genotype(f"cell-{number}" if name is None else name, tuple(operations))


def all_bench201_cells() -> Iterator[Bench201Genotype]:
    """All 15,625 cells, by number."""
    return (bench201_cell(number) for number in range(CELLS))


def random_bench201_genotype(seed: int) -> Bench201Genotype:
    """Draw a cell uniformly from all of them."""
    rng = np.random.default_rng([seed, 0x9DA5])
    return bench201_cell(int(rng.integers(CELLS)), f"random-{seed}")
