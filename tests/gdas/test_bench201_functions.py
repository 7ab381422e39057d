"""The canonical form of NAS-Bench-201's cells, against their functions with fixed random maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from gdas.bench201.functions import FUNCTIONS, function_key, functions_N
from gdas.bench201.genotype import CELL_OPERATIONS, CELLS, EDGES, NODES, bench201_cell
from gdas.bench201.table import Table

X = np.random.default_rng(0).normal(size=12)
POOL = np.random.default_rng(1).normal(size=(12, 12)) / 3
"""Stands for average pooling: any linear map."""
CONVOLUTIONS = {
    kind: np.random.default_rng(n + 2).normal(size=(6, 12, 12)) / 3
    for n, kind in enumerate(("nor_conv_1x1", "nor_conv_3x3"))
}
"""For each kind six maps, as for six convolutions with weights of their own."""


def evaluate(operations: Sequence[str], weights: Sequence[int]) -> NDArray[np.float64]:
    """A cell's output; `weights` says which of the six maps the convolution of each edge has."""
    values = [X]
    for node in range(1, NODES):
        total = np.zeros_like(X)
        for (at, source), operation, number in zip(EDGES, operations, weights, strict=True):
            if at != node or operation == "none":
                continue
            value = values[source]
            if operation == "avg_pool_3x3":
                value = POOL @ value
            elif operation != "skip_connect":
                # Odd and not linear, and zero of zero, as ReLU, convolution and batch norm.
                value = np.tanh(CONVOLUTIONS[operation][number] @ value)
            total = total + value
        values.append(total)
    return values[-1]


def outputs(operations: Sequence[str]) -> frozenset[tuple[float, ...]]:
    """A cell's outputs under every way to give its convolutions the first maps of their kinds."""
    edges = [e for e, operation in enumerate(operations) if operation in CONVOLUTIONS]
    base = evaluate(operations, range(6))
    # Convolutions whose weights do not matter need none.
    live = [e for e in edges if not np.array_equal(base, _without(operations, e))]
    found = set()
    for order in permutations(range(len(live))):
        weights = [5] * len(EDGES)
        of_kind: dict[str, list[int]] = {}
        for place in order:
            kind = operations[live[place]]
            of_kind.setdefault(kind, []).append(live[place])
        for mine in of_kind.values():
            for number, edge in enumerate(mine):
                weights[edge] = number
        found.add(tuple(np.round(evaluate(operations, weights), 8) + 0.0))
    return frozenset(found)


def _without(operations: Sequence[str], edge: int) -> NDArray[np.float64]:
    """The output if a convolution had other weights."""
    weights = list(range(6))
    weights[edge] = (edge + 1) % 6
    return evaluate(operations, weights)


def check(cells: Iterable[int]) -> int:
    """Cells have a key in common if and only if they have their outputs; returns how many keys."""
    by_key: dict[str, frozenset[tuple[float, ...]]] = {}
    for number in cells:
        operations = bench201_cell(number).operations
        found, key = outputs(operations), function_key(operations)
        assert by_key.setdefault(key, found) == found, operations
    every = [output for found in by_key.values() for output in found]
    assert len(every) == len(set(every)), "two keys have an output in common"
    return len(by_key)


def test_keys_are_equal_exactly_if_functions_are_in_a_sample() -> None:
    """A cell that differs in an edge that leads nowhere, and uniformly drawn ones."""
    drawn = np.random.default_rng(3).integers(0, CELLS, 150).tolist()
    assert check([*drawn, *range(0, 125)]) > 100


@pytest.mark.slow
def test_keys_are_equal_exactly_if_functions_are_in_all_cells() -> None:
    assert check(range(CELLS)) == FUNCTIONS


@cache
def key(text: str) -> str:
    """The key of a cell by the letters of its operations: none, skip, 1, 3, pool."""
    return function_key([CELL_OPERATIONS["ns13p".index(letter)] for letter in text])


def test_what_is_alike_and_what_is_not() -> None:
    # Edges: 0-1, 0-2, 1-2, 0-3, 1-3, 2-3.
    assert key("3nn33n") == key("n3n3n3"), "nodes have no names"
    assert key("3nnnss") != key("33nnss"), "one convolution twice, or two of a kind"
    assert key("nnnpnn") == key("psnnsn"), "a skip is the identity"
    assert key("1snnps") != key("1snnpp") != key("3snnpp")
    assert key("sssnnp") == key("ssnnpp"), "a sum pooled is the sum of the poolings"
    assert key("nnnnnn") == key("333nnn") == key("n3nn1n") == "", "nothing reaches the output"


def test_a_functions_percentile_counts_it_once() -> None:
    """Of 5,044 functions with accuracies 0 to 50.43, the cells of one share its mean."""
    function_N = functions_N()
    accuracy_N = function_N / 100 + np.where(np.arange(CELLS) % 2, 0.002, 0.0)
    table = Table({"cifar10_test_200": accuracy_N})
    for number in (0, 8_000, 15_624):
        found = table.standing(bench201_cell(number), "cifar10_test_200").function_percentile
        assert found == pytest.approx(100 * (function_N[number] + 0.5) / FUNCTIONS)
