"""What a field's annotation takes: the same values, refused in the same words, as from a file.

The values that JSON and YAML have are taken as Pydantic takes them from a file, strictly: a whole
number may stand for a float, and a list for a tuple; nothing else is converted. What only Python
has: NumPy's numbers and booleans become Python's, so that settings can be compared, hashed and
written as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np

from gdas.errors import InputError, one_line

MUST = {
    "int": "a whole number, such as 3, without quotes",
    "float": "a number, such as 0.1, without quotes",
    "bool": "true or false, without quotes",
    "string": "text, such as mine; put a number or a date in quotes",
    "tuple": "a list, such as [0, 1]",
    "dict": "keys with values, such as {name: mine}",
    "dataclass": "keys with values, such as {name: mine}",
}
"""What a value of each type must be."""


CLOSE, CLOSER = 0.5, 0.2
"""How alike a word and an option are if it was meant, and how much less the next option is."""


@dataclass(frozen=True)
class FieldType:
    """What an annotation takes.

    Attributes:
        must: what a value must be, in words.
        take: returns a value as the field keeps it. It gets the key too, and raises InputError,
            `key=value: must be ...`.
    """

    must: str
    take: Callable[[object, str], object]


def field_type(hint: Any) -> FieldType | None:
    """What an annotation takes; None if it does not say so, as Any or a Protocol."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return field_type(inner[0])
    if origin is Literal:
        return _literal(inner)
    if origin in (Union, UnionType):
        return _union(inner)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin is tuple:
        return _tuple(inner)
    if origin is dict:
        return _dict(*inner)
    return _class(origin or hint)


def require_kind(value: object, kind: type, what: str) -> None:
    """Raise InputError unless something is of a class of settings."""
    if not isinstance(value, kind):
        raise refused(what, value, f"{kind.__name__}(...) of {kind.__module__}")


def require_type(value: Any, hint: Any, key: str, least: int | None = None) -> None:
    """Raise InputError unless an argument is what its annotation says, and `least` or more."""
    kind = field_type(hint)
    if kind is not None:
        kind.take(value, key)
    if least is not None and value < least:
        raise InputError(f"{key}={value}: must be {least} or more")


def refused(key: str, value: object, must: str) -> InputError:
    """The error about a value of a wrong type."""
    return InputError(f"{key}={one_line(repr(value), 60)}: must be {must}")


def no_option(key: str, value: object, options: Sequence[object]) -> InputError:
    """The error about a value that is none of the few that there are."""
    names = [str(option) for option in options]
    if not isinstance(value, str):
        return refused(key, value, _either(names))
    meant = _meant(value.lower(), names)
    return InputError(f"{key}={one_line(value, 60)}: must be {_either(names)}{meant}")


def _meant(word: str, names: Sequence[str]) -> str:
    """Which of a few names was meant, if one is close and no other nearly as close."""
    ratios = {name: SequenceMatcher(None, word, name).ratio() for name in names}
    best, *others = sorted(names, key=ratios.__getitem__, reverse=True)
    if not others or ratios[best] < CLOSE or ratios[best] - ratios[others[0]] < CLOSER:
        return ""
    return f"; did you mean {best}?"


def values_must(count: int) -> str:
    """What a list of a wrong length must be."""
    return f"a list of {count} values"


def _either(names: Sequence[str]) -> str:
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _int(value: object, key: str) -> object:
    if type(value) is int:
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    raise refused(key, value, MUST["int"])


def _float(value: object, key: str) -> object:
    if type(value) is float:
        return value
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # a whole number of more than 308 digits
            return math.inf if value > 0 else -math.inf
    raise refused(key, value, MUST["float"])


def _bool(value: object, key: str) -> object:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise refused(key, value, MUST["bool"])


def _text(value: object, key: str) -> object:
    if isinstance(value, str):
        return value if type(value) is str else str(value)
    raise refused(key, value, MUST["string"])


def _none(value: object, key: str) -> object:
    if value is not None:
        raise refused(key, value, "null")
    return value


_PLAIN: dict[object, FieldType] = {
    int: FieldType(MUST["int"], _int),
    float: FieldType(MUST["float"], _float),
    bool: FieldType(MUST["bool"], _bool),
    str: FieldType(MUST["string"], _text),
    NoneType: FieldType("null", _none),
}


def _literal(options: tuple[object, ...]) -> FieldType:
    def take(value: object, key: str) -> object:
        for option in options:
            alike = type(value) is type(option) or isinstance(value, str)
            if value is option or (alike and value == option):
                return option
        raise no_option(key, value, options)

    return FieldType(_either([str(option) for option in options]), take)


def _union(hints: tuple[Any, ...]) -> FieldType | None:
    """X | None takes what X takes, and says so in X's words; else whatever takes it first."""
    optional = NoneType in hints
    found = [field_type(hint) for hint in hints if hint is not NoneType]
    types = [one for one in found if one is not None]
    if len(types) < len(found):
        return None
    must = " or ".join(one.must for one in types)

    def take(value: object, key: str) -> object:
        if value is None and optional:
            return None
        if len(types) == 1:
            return types[0].take(value, key)
        for one in types:
            try:
                return one.take(value, key)
            except InputError:
                continue
        raise refused(key, value, must)

    return FieldType(must, take)


def _tuple(hints: tuple[Any, ...]) -> FieldType:
    """A tuple, or a list, which becomes one; a wrong value in it is named by its index, from 0."""
    any_length = len(hints) == 2 and hints[1] is Ellipsis
    types = [field_type(hint) for hint in hints if hint is not Ellipsis]

    def take(value: object, key: str) -> object:
        if not isinstance(value, tuple | list):
            raise refused(key, value, MUST["tuple"])
        if not any_length and len(value) != len(types):
            raise refused(key, value, values_must(len(types)))
        each = types * len(value) if any_length else types
        taken = tuple(
            one if kind is None else kind.take(one, f"{key}.{i}")
            for i, (one, kind) in enumerate(zip(value, each, strict=True))
        )
        same = type(value) is tuple and all(a is b for a, b in zip(taken, value, strict=True))
        return value if same else taken

    return FieldType(MUST["tuple"], take)


def _dict(key_hint: Any, value_hint: Any) -> FieldType:
    names, values = field_type(key_hint), field_type(value_hint)

    def take(value: object, key: str) -> object:
        if not isinstance(value, dict):
            raise refused(key, value, MUST["dict"])
        taken = {
            (names.take(name, key) if names else name): (
                values.take(one, f"{key}.{name}") if values else one
            )
            for name, one in value.items()
        }
        return value if all(taken[name] is one for name, one in value.items()) else taken

    return FieldType(MUST["dict"], take)


def _class(kind: Any) -> FieldType | None:
    try:
        isinstance(None, kind)
    except TypeError:  # a Protocol, a TypedDict, or no class at all
        return None
    if kind is object:
        return None
    must = f"{kind.__name__}(...) of {kind.__module__}"

    def take(value: object, key: str) -> object:
        if not isinstance(value, kind):
            raise refused(key, value, must)
        return value

    return FieldType(must, take)
