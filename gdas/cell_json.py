"""What all cells share: their lists of edges and nodes as JSON, and what is no cell at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gdas.errors import InputError, closest, one_line

Edge = tuple[str, int]
"""(operation, source)."""


def require_genotype(
    genotype: object, kinds: tuple[type, ...], published: Mapping[str, object], table: str
) -> None:
    """Raise InputError unless something is a genotype of one of these kinds.

    Args:
        published: the published cells of these kinds, by name.
        table: what Python calls them.
    """
    if isinstance(genotype, kinds):
        return
    names = " or ".join(kind.__name__ for kind in kinds)
    fixes = ["any_from_json(...) of gdas.genotype for JSON", "load(...) for a file"]
    if hasattr(genotype, "_asdict") or isinstance(genotype, dict):
        fixes.append('read(str(genotype), "cell") for what another project\'s code has')
    if published:
        meant = closest(genotype, list(published)) if isinstance(genotype, str) else None
        fixes.append(f"{table}[{meant or next(iter(published))!r}] for a published cell")
    raise InputError(
        f"genotype={one_line(genotype, 60)}: must be a {names}; use {', '.join(fixes)}"
    )


def edges_from_json(value: object, where: str) -> tuple[Edge, ...]:
    """Read a list of edges; operations and sources are not checked further.

    Args:
        where: what to call it in an error.

    Raises:
        InputError: it is not a list, or an item is not a pair of a text and a whole number.
    """
    if not isinstance(value, list):
        raise InputError(
            f"{where}: is {one_line(value, 60)}; must be a list of [operation, source] pairs, such "
            'as [["sep_conv_3x3", 0], ["skip_connect", 1]]'
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


def numbers_from_json(fields: dict[str, Any], key: str, where: str) -> tuple[int, ...]:
    """Read a list of nodes or states; if it is left out, an empty tuple, which stands for all.

    Raises:
        InputError: it is not a list or is empty, or an item is not a whole number.
    """
    if key not in fields:
        return ()
    states = fields[key]
    if not isinstance(states, list) or not states or any(type(s) is not int for s in states):
        raise InputError(
            f"{where}, {key}: is {one_line(states, 60)}; must be a list of one or more whole "
            "numbers, such as [2, 3, 4, 5], or left out for all"
        )
    return tuple(states)
