"""Read genotypes in the formats of other projects, as the JSON value of this project's own files.

These formats are read; what they hold is then checked like a file of our own
(gdas.genotype.any_from_json):

- `Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=...)`, which DARTS
  and its followers print in their logs and keep in their `genotypes.py`; a recurrent cell's
  `Genotype(recurrent=[...], concat=range(1, 9))`;
- the same fields as a dictionary, printed by Python (authors' 2020 code) or as JSON (`_asdict`);
- a NAS-Bench-201 cell, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.

gdas.edge_lists reads the lists of edges. The text is untrusted, and nothing in it is evaluated
(gdas.python_text).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from gdas.bench201.genotype import BENCH201_FORMAT
from gdas.cnn.genotype import FORMAT
from gdas.edge_lists import (
    MOST_NODES,
    one_list,
    operations_and_sources,
    to_nodes,
    two_a_node,
    whole_numbers,
)
from gdas.errors import InputError, one_line
from gdas.python_text import Called, Repeated, read_value
from gdas.rnn.genotype import RECURRENT_FORMAT

FORMATS = (FORMAT, RECURRENT_FORMAT, BENCH201_FORMAT)

SMALLEST = (
    '{"normal": [["sep_conv_3x3", 0], ["skip_connect", 1]], '
    '"reduce": [["max_pool_3x3", 0], ["max_pool_3x3", 1]]}'
)
"""The smallest file of a convolutional cell, as an example in errors."""

CELL_KEYS = ("normal", "normal_concat", "reduce", "reduce_concat")
RECURRENT_KEYS = ("recurrent", "concat")
UNUSED_KEYS = ("connectN", "connects")
"""Fields of the authors' namedtuple that are None in their cells."""

_BENCH201 = re.compile(r"\|[^|~\s]{1,99}~\d{1,9}\|[^\s'\"),\]}]{0,999}")
_START = re.compile(
    r"\b[A-Za-z_]\w{0,99}\((?=\s*(?:normal|reduce|recurrent)\w{0,20}\s*=)"
    r"|\bGenotype\w{0,30}\((?=\s*[\[(])"
    r"|\bOrderedDict\((?=\s*\[\s*\(\s*['\"](?:normal|reduce|recurrent))"
    r"|\{(?=\s*['\"](?:normal|reduce|recurrent)(?:_concat)?['\"]\s*:)"
)
"""Where a genotype may begin in a text: a call or a dictionary, up to its bracket."""
_SAME = re.compile(r"^([A-Za-z_]\w{0,99})[ \t]*=[ \t]*([A-Za-z_]\w{0,99})[ \t]*(?:#.*)?$", re.M)
"""`DARTS = DARTS_V2`: another name for the same genotype."""
_ASSIGNED = re.compile(r"([A-Za-z_]\w{0,99})\s{0,9}=\s{0,9}\\?\s{0,99}$")


def genotype_value(text: str, where: str, *, named: str | None = None) -> Any:
    """Read the one genotype in a text as a JSON value of one of FORMATS.

    Args:
        text: a file's content, or a command line argument.
        where: what to call it in an error.
        named: which of several assigned genotypes (`NAME = Genotype(...)`); None: the only one.

    Raises:
        InputError: there is none, there is more than one, or it is malformed.
    """
    text = text.removeprefix("\ufeff").strip()
    if not text:
        raise InputError(f"{where}: is empty; the smallest file is {SMALLEST}")
    why = "no genotype in it"
    if named is None:
        if text.startswith("|") and not re.search(r"\s", text):
            return _bench201(text)
        if text[:1] in ("{", "[", "(", '"') or text in ("null", "true", "false"):
            try:
                return _of_decoded(_decoded(text), where)
            except Repeated as error:
                raise Repeated(where, error.key) from None
            except _NotDecoded as error:  # a log's line may begin with its time in brackets
                why = str(error)
    found = _all_in(text, where)
    if named is not None:
        found = [_of_name(found, named, text, where)]
    if not found:
        raise InputError(f"{where}: {_not_json(why)}")
    different = {json.dumps({**value, "name": ""}) for value in found}
    if len(different) > 1:
        raise InputError(
            f"{where}: {len(different)} different genotypes; name one of those that are assigned "
            "(FILE:NAME, such as genotypes.py:PC_DARTS_cifar), or keep the line that you mean: "
            "grep Genotype FILE | tail -1 > cell.txt"
        )
    return found[-1]


UNNAMED = "unnamed"


def _of_name(found: Sequence[dict[str, Any]], named: str, text: str, where: str) -> dict[str, Any]:
    """The genotype of a name, or of the name that it is another one for: `DARTS = DARTS_V2`."""
    of = {value["name"]: value for value in found if value["name"] != UNNAMED}  # the last holds
    others = {name: of[same] for name, same in _SAME.findall(text) if same in of}
    if named not in of and named not in others:
        known = ", ".join([*of, *others]) or "none is assigned to a name"
        raise InputError(f"{where}: no genotype {named}; those in it are {known}")
    return of[named] if named in of else others[named]


class _NotDecoded(Exception):
    """A text is neither JSON nor a Python literal; the message says why it is not JSON."""


def _decoded(text: str) -> Any:
    """Decode a whole text as JSON or, if that fails, as a Python literal."""
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except Repeated:
        raise
    except (ValueError, RecursionError) as error:
        try:
            return read_value(text, "")
        except Repeated:
            raise
        except InputError:
            raise _NotDecoded(str(error)) from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object's fields; Python would silently take the last of those with one key."""
    keys = [key for key, _ in pairs]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise Repeated("", twice)
    return dict(pairs)


def _not_json(why: object) -> str:
    return (
        f"not a JSON file ({one_line(why, 200)}), and no Genotype(...) or NAS-Bench-201 cell "
        f"either; the smallest file is {SMALLEST}"
    )


def _all_in(text: str, where: str) -> list[dict[str, Any]]:
    """Every genotype in a text, in order."""
    found, at = [], 0
    while start := _START.search(text, at):
        opened = start.end() - 1
        end = _closed(text, opened)
        if end is None:
            raise InputError(
                f"{where}: {one_line(text[start.start() :], 40)!r} ... has no closing bracket, so "
                "a part is missing; copy the whole of it, to its last )"
            )
        value = _fields(read_value(text[start.start() : end], where), where)
        before = _ASSIGNED.search(text[max(0, start.start() - 120) : start.start()])
        genotype = {"name": UNNAMED} | _of_decoded(value, where)
        if before and before[1] != "genotype" and genotype["name"] == UNNAMED:
            genotype["name"] = before[1]
        found.append(genotype)
        at = end
    if not found:
        found = [_bench201(match[0]) for match in _BENCH201.finditer(text)]
    return found


def _closed(text: str, opened: int) -> int | None:
    """The position after the bracket that closes the one at `opened`, ignoring quotes; or None."""
    depth, quote, comment = 0, "", False
    for at in range(opened, len(text)):
        character = text[at]
        if comment or quote:
            comment = comment and character != "\n"
            quote = "" if character == quote else quote
        elif character == "#":
            comment = True
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth == 0:
                return at + 1
    return None


def _fields(value: Any, where: str) -> Any:
    """A call's values by name; values without a name get those of DARTS's namedtuple."""
    if not isinstance(value, Called):
        return value
    if value.name == "OrderedDict":  # `_asdict` returns it in older versions of Python
        pairs = value.positional[0]
        if all(
            isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
        ):
            return dict(pairs)
    of_cell = "recurrent" not in value.named and len(value.positional) != 2
    names = CELL_KEYS if of_cell else RECURRENT_KEYS
    if len(value.positional) > len(names):
        raise InputError(
            f"{where}: {len(value.positional)} values in {value.name}(...); they are "
            f"{', '.join(names)}"
        )
    by_place = dict(zip(names, value.positional, strict=False))
    if twice := set(by_place) & set(value.named):
        raise InputError(f"{where}: {min(twice)} is given twice; give it once")
    return by_place | value.named


def _of_decoded(value: Any, where: str) -> dict[str, Any]:
    """Convert a decoded value to our own format; one that has it already is left as it is."""
    if isinstance(value, str):  # a text in quotes; each recursion has a shorter one
        inner: dict[str, Any] = genotype_value(value, where)
        return inner
    if isinstance(value, list):
        value = _of_list(value, where)
    if not isinstance(value, dict):
        raise InputError(
            f"{where}: {one_line(value, 60)} is no cell; must be a JSON object with normal and "
            f"reduce, or recurrent; the smallest is {SMALLEST}"
        )
    if "format" in value:
        if value["format"] not in FORMATS:
            shown = one_line(value["format"], 60)
            raise InputError(
                f"{where}: format is {shown!r}; use {' or '.join(map(repr, FORMATS))}, or leave it "
                "out"
            )
        return value
    if isinstance(value.get("genotype"), dict | str | list) and "normal" not in value:
        return _of_decoded(value["genotype"], where)  # a result, or another program's record
    recurrent = "recurrent" in value
    keys = RECURRENT_KEYS if recurrent else CELL_KEYS
    used = {k: v for k, v in value.items() if not (k in UNUSED_KEYS and v is None)}
    if unknown := sorted(set(used) - {*keys, "name"}):
        raise InputError(
            f"{where}: unknown field {one_line(unknown[0], 40)!r}; a cell's are {', '.join(keys)}, "
            f"such as {SMALLEST}"
        )
    if keys[0] not in used:
        raise InputError(
            f"{where}: no normal cell and no recurrent one; the smallest is {SMALLEST}"
        )
    if recurrent:
        return _recurrent(used, where)
    return _cells(used, where)


def _of_list(value: list[Any], where: str) -> Any:
    """A genotype from a list, since JSON has no namedtuples and writes their values in order."""
    for keys in (CELL_KEYS, RECURRENT_KEYS):
        concats = all(v and whole_numbers(v) for v in value[1::2])
        if len(value) == len(keys) and concats and not any(map(whole_numbers, value[::2])):
            return dict(zip(keys, value, strict=True))
    match value:  # NAS-Bench-201's code: the edges of nodes 1, 2 and 3
        case [[_], [_, _], [_, _, _]]:
            edges = [
                operations_and_sources(node, f"{where}, node {i + 1}")
                for i, node in enumerate(value)
            ]
            terms = ["".join(f"{operation}~{source}|" for operation, source in n) for n in edges]
            return {"format": BENCH201_FORMAT, "cell": "+".join(f"|{term}" for term in terms)}
    return value


def _bench201(text: str) -> dict[str, Any]:
    return {"format": BENCH201_FORMAT, "name": UNNAMED, "cell": text}


def _recurrent(used: dict[str, Any], where: str) -> dict[str, Any]:
    states = one_list(used["recurrent"])
    out = {
        "format": RECURRENT_FORMAT,
        "name": used.get("name", UNNAMED),
        "recurrent": operations_and_sources(states, f"{where}, recurrent"),
    }
    if used.get("concat") is not None:
        out["concat"] = used["concat"]
    return out


def _cells(used: dict[str, Any], where: str) -> dict[str, Any]:
    out = {"format": FORMAT, "name": used.get("name", UNNAMED)}
    for kind in ("normal", "reduce"):
        edges, concat = used.get(kind), used.get(f"{kind}_concat")
        if kind == "reduce" and edges in (None, "fixed"):
            out["reduce"] = "fixed"  # the authors' 2020 search for the normal cell alone
            continue
        pairs, left_out = two_a_node(edges, f"{where}, {kind}")
        out[kind] = pairs
        if concat is not None and whole_numbers(concat) and to_nodes(edges):
            # Nodes behind the last one that an edge leads to have no edges either.
            left_out |= set(range(len(pairs) // 2 + 2, MOST_NODES + 2))
        if left_out and (concat is None or whole_numbers(concat)):
            nodes = concat or range(2, len(pairs) // 2 + 2)
            concat = [state for state in nodes if state not in left_out]
        if concat is not None:
            out[f"{kind}_concat"] = concat
    return out


def darts_text(value: dict[str, Any]) -> str:
    """Write a genotype as DARTS's namedtuple prints itself; a NAS-Bench-201 cell as its string.

    Args:
        value: what `to_json` of a genotype returned. The fixed reduction cell, which DARTS cannot
            express, is written `reduce=None`.
    """
    if value["format"] == BENCH201_FORMAT:
        return str(value["cell"])
    if value["format"] == RECURRENT_FORMAT:
        return f"Genotype(recurrent={_printed(value['recurrent'])}, concat={value['concat']})"
    parts = []
    for kind in ("normal", "reduce"):
        edges = value[kind]
        if edges == "fixed":
            parts.append("reduce=None, reduce_concat=None")
            continue
        every = list(range(2, len(edges) // 2 + 2))
        concat = value.get(f"{kind}_concat", every)
        states = f"range(2, {len(edges) // 2 + 2})" if concat == every else str(concat)
        parts.append(f"{kind}={_printed(edges)}, {kind}_concat={states}")
    return f"Genotype({', '.join(parts)})"


def _printed(edges: Sequence[Sequence[Any]]) -> str:
    return str([tuple(edge) for edge in edges])
