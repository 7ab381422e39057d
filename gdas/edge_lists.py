"""Read a cell's edges as other projects list them: two (operation, source) pairs for every node.

An edge is (operation, source), or has a third field: either its weight (a fraction), which is
ignored, or the node that it leads to (a whole number, as in FairDARTS). Edges are in one list, two
for every node, or grouped by node. If a node has fewer than two edges, `none` takes the place of
the missing ones; a node without edges is not concatenated (as in FairDARTS's code). A cell that
cannot be built is refused, and its edges are never regrouped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gdas.errors import InputError, one_line
from gdas.python_text import LARGEST

SAME_OPERATION = {
    "dua_sepc_3x3": "sep_conv_3x3",
    "dua_sepc_5x5": "sep_conv_5x5",
    "dil_sepc_3x3": "dil_conv_3x3",
    "dil_sepc_5x5": "dil_conv_5x5",
}
"""Names of operations in the authors' 2020 code, and ours for the same layers."""

MOST_NODES = 100
TWO_EDGES = '[["sep_conv_3x3", 0], ["skip_connect", 1]]'
"""For errors."""


def whole_numbers(value: Any) -> bool:
    """Whether a value is a list of integers, without booleans."""
    return isinstance(value, list) and all(type(number) is int for number in value)


def _is_edge(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


def one_list(value: Any) -> Any:
    """The edges in one list, even if they are grouped by node."""
    if not isinstance(value, list) or any(map(_is_edge, value)):
        return value
    by_node = all(isinstance(node, list) and all(map(_is_edge, node)) for node in value)
    return [edge for node in value for edge in node] if by_node else value


def to_nodes(value: Any) -> bool:
    """Whether the third field of every edge says which node it leads to."""
    return isinstance(value, list) and all(
        _is_edge(edge) and len(edge) == 3 and type(edge[2]) is int for edge in value
    )


def _shown(value: Any) -> str:
    return f"is {one_line(value, 60) or repr(value)}"


def two_a_node(value: Any, where: str) -> tuple[list[list[Any]], set[int]]:
    """Two (operation, source) pairs per node, and the nodes that have no edge at all."""
    if not isinstance(value, list) or not value:
        raise InputError(
            f"{where}: {_shown(value)}; must be a list of (operation, source) pairs, such as "
            f"{TWO_EDGES}"
        )
    if not any(map(_is_edge, value)):
        nodes = [
            operations_and_sources(node, f"{where}, node {i + 2}")
            if isinstance(node, list)
            else None
            for i, node in enumerate(value)
        ]
        if None in nodes:
            raise InputError(
                f"{where}: {_shown(value)}; must be (operation, source) pairs, or lists of them "
                f"by node, such as {TWO_EDGES}"
            )
        return _filled([node or [] for node in nodes], where)
    if to_nodes(value):
        return _filled(_by_target(value, where), where)
    pairs = operations_and_sources(value, where)
    if len(pairs) % 2:
        raise InputError(
            f"{where}: {len(pairs)} edges; must be two for every node, or have the node that they "
            'lead to as a third field, such as ("sep_conv_3x3", 0, 2)'
        )
    return pairs, set()


def operations_and_sources(edges: Any, where: str) -> list[list[Any]]:
    """[operation, source] of each edge, without its weight if it has one."""
    if not isinstance(edges, list):
        raise InputError(
            f"{where}: {_shown(edges)}; must be a list of (operation, source) pairs, such as "
            f"{TWO_EDGES}"
        )
    pairs = []
    for i, edge in enumerate(edges):
        match edge:
            case [str(operation), int(source)] | [str(operation), int(source), float()] if (
                type(source) is int and source <= LARGEST
            ):
                pairs.append([SAME_OPERATION.get(operation, operation), source])
            case _:
                raise InputError(
                    f"{where}, edge {i}: {_shown(edge)}; must be an operation and the whole number "
                    'of its source, such as ("sep_conv_3x3", 0), or with a weight, '
                    '("sep_conv_3x3", 0, 0.13)'
                )
    return pairs


def _by_target(edges: Sequence[list[Any]], where: str) -> list[list[list[Any]]]:
    """Edges with three fields, by the node that they lead to: the larger of the two numbers."""
    if all(edge[1] > edge[2] for edge in edges):
        target, source = 1, 2
    elif all(edge[1] < edge[2] for edge in edges):
        target, source = 2, 1
    else:
        raise InputError(
            f"{where}: of the two numbers of an edge one is its source and the other, larger one "
            "its node, in one order in all; write (operation, source) pairs, two for every node"
        )
    last = max(edge[target] for edge in edges)
    if last > MOST_NODES + 1 or min(edge[target] for edge in edges) < 2:
        raise InputError(
            f"{where}: an edge leads to node {last}, or to one below 2; nodes must be numbered "
            f"2, 3, ... to {MOST_NODES + 1} at most, for 0 and 1 are the cell's inputs"
        )
    nodes: list[list[list[Any]]] = [[] for _ in range(2, last + 1)]
    for edge in edges:
        operation = SAME_OPERATION.get(edge[0], edge[0])
        nodes[edge[target] - 2].append([operation, edge[source]])
    return nodes


def _filled(nodes: Sequence[list[list[Any]]], where: str) -> tuple[list[list[Any]], set[int]]:
    """Two edges per node, with `none` for missing ones, and the nodes that have no edge."""
    left_out = {i + 2 for i, node in enumerate(nodes) if not node}
    pairs = []
    for i, node in enumerate(nodes):
        if len(node) > 2:
            raise InputError(
                f"{where}, node {i + 2}: {len(node)} edges; a node here adds two, so this cell "
                "cannot be built; keep its two strongest edges"
            )
        if unread := [source for _, source in node if source in left_out]:
            raise InputError(
                f"{where}, node {i + 2}: reads node {unread[0]}, which has no edges itself; give "
                "that node an edge, or leave this one out"
            )
        pairs += [*node, *[["none", 0]] * (2 - len(node))]
    return pairs, left_out
