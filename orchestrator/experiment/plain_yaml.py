"""Decode YAML that has only mappings with text keys, lists and plain values. It is untrusted."""

from __future__ import annotations

import re
from typing import Any

import yaml

from gdas.errors import InputError, one_line

MAX_VALUES = 20_000


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 3e-4 is a number, as in YAML 1.2, and no key may be repeated."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a repeated key, of which PyYAML would silently use the last value."""
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key.value, str) and key.value in seen and key.value != "<<":
                line = key.start_mark.line + 1
                raise InputError(f"line {line}: {key.value} is there twice; keep one of the two")
            seen |= {key.value} if isinstance(key.value, str) else set()
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


OLD_NUMBER = re.compile(r"[-+]?(0[0-9_]*[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
"""What YAML 1.1 reads as a number of base 8 or 60: 010 for 8, 1:30 for 90."""


def _refuse_old_number(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """A number; refused if YAML 1.1 alone reads it as one that its digits do not show."""
    kind = node.tag.rpartition(":")[2]
    make = loader.construct_yaml_int if kind == "int" else loader.construct_yaml_float
    value = make(node)
    if OLD_NUMBER.fullmatch(node.value) and node.value.strip("+-0_") != "":
        line = node.start_mark.line + 1
        raise InputError(
            f"line {line}: {node.value} is read as {value}, as YAML 1.1 has it; write the number "
            "without a leading 0 and without a colon, or put a text in quotes"
        )
    return value


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _refuse_old_number)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def plain_yaml(text: str, where: str) -> Any:
    """Decode YAML that has only mappings with text keys, lists, and plain values.

    Raises:
        InputError: it has anything else, or more than `MAX_VALUES` values. A value that is repeated
            by reference counts each time.
    """
    try:
        value = yaml.load(text, Loader=_Loader)
    except InputError as problem:
        raise InputError(f"{where}, {problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = one_line(error, 500)
        raise InputError(
            f"{where}: not a YAML file ({said}); it must have keys and values, indented with "
            "blanks, such as those in experiments/"
        ) from None
    waiting, seen = [value], 0
    while waiting:
        inner = waiting.pop()
        seen += 1
        if seen > MAX_VALUES:
            raise InputError(f"{where}: more than {MAX_VALUES} values, not an experiment")
        if isinstance(inner, dict):
            if odd := [key for key in inner if not isinstance(key, str)]:
                raise InputError(f"{where}: the key {odd[0]!r} is no text; put it in quotes")
            waiting += inner.values()
        elif isinstance(inner, list):
            waiting += inner
        elif not isinstance(inner, str | int | float | None):
            kind = type(inner).__name__
            raise InputError(f"{where}: {str(inner)[:40]!r} is read as a {kind}; put it in quotes")
    return value
