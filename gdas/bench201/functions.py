"""Which cells of NAS-Bench-201 compute the same function, so that each function is counted once.

Two cells are one function if their convolutions can be matched so that, with equal weights, both
give equal outputs for every input. Edges that lead nowhere or carry only zeros do not count, a
skip is the identity, sums have no order, and average pooling of a sum is the sum of the poolings.
A convolution that is used twice is another function than two convolutions with weights of their
own.

By this 15,625 cells are 5,044 functions. The benchmark's own count of 6,466 compares strings in
which a sum with an edge of zeros differs from the same sum without it, and in which two
convolutions of a kind with the same input are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from gdas.bench201.genotype import CELL_OPERATIONS, CELLS, EDGES, NODES, bench201_cell

FUNCTIONS = 5044
"""How many different functions the cells are."""

Term = tuple["int | str", "Value"]
"""What a sum has: ("pool", value), (a convolution's edge, its input), or ("x", ())."""
Value = tuple[Term, ...]
"""The terms of a sum; () is zero."""

INPUT: Value = (("x", ()),)


def function_key(operations: Sequence[str]) -> str:
    """A text that cells have in common if and only if they are one function.

    Args:
        operations: one for each of EDGES.
    """
    output = _output(operations)
    edges = sorted(set(_convolutions(output)))
    kinds = {edge: operations[edge] for edge in edges}
    # Convolutions can only be matched if they are equal but for the names of convolutions.
    alike: dict[str, list[int]] = {}
    inputs = dict(_inputs(output))
    for edge in edges:
        alike.setdefault(_text(((edge, inputs[edge]),), kinds), []).append(edge)
    groups = [alike[text] for text in sorted(alike)]
    return min(
        _text(output, {edge: f"{kinds[edge]}.{n}" for n, edge in enumerate(sum(order, ()))})
        for order in product(*(permutations(group) for group in groups))
    )


def _output(operations: Sequence[str]) -> Value:
    """The output as a sum of terms, in which convolutions are named by their edges."""
    values: list[Value] = [INPUT]
    for node in range(1, NODES):
        terms: list[Term] = []
        for edge, ((at, source), operation) in enumerate(zip(EDGES, operations, strict=True)):
            value = values[source] if at == node and operation != "none" else ()
            if not value:
                continue
            match operation:
                case "skip_connect":
                    terms += value
                case "avg_pool_3x3":
                    terms += [("pool", (term,)) for term in value]
                case _:
                    terms.append((edge, value))
        values.append(tuple(terms))
    return values[-1]


def _inputs(value: Value) -> Iterator[tuple[int, Value]]:
    """Every convolution below a value, with its input."""
    for name, inner in value:
        if isinstance(name, int):
            yield name, inner
        yield from _inputs(inner)


def _convolutions(value: Value) -> Iterator[int]:
    return (edge for edge, _ in _inputs(value))


def _text(value: Value, names: dict[int, str]) -> str:
    """A sum as text, its terms in the order of their texts."""
    terms = [
        f"{names[name] if isinstance(name, int) else name}({_text(inner, names)})"
        for name, inner in value
    ]
    return "+".join(sorted(terms))


@cache
def functions_N() -> NDArray[np.int64]:
    """For every cell, by number, the number of its function, counted from 0."""
    keys = [function_key(bench201_cell(number).operations) for number in range(CELLS)]
    numbers = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    assert len(numbers) == FUNCTIONS, "the canonical form or the space has changed"
    found_N = np.array([numbers[key] for key in keys])
    found_N.setflags(write=False)
    return found_N


assert len(CELL_OPERATIONS) == 5, "a new operation needs its case in _output"
