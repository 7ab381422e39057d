"""Read Python values as programs print them: lists, dictionaries, a namedtuple, without `eval`.

A genotype of another project is often a line of its log. Such text is untrusted: it is parsed with
`ast`, and only literals are accepted, `range(...)` within bounds, and the number in
`np.float32(0.13)` or `tensor(0.13)`. Everything else is refused.
"""

from __future__ import annotations

import ast
import warnings
from typing import Any, NamedTuple

from gdas.errors import InputError, one_line

MOST_CHARACTERS = 1 << 16
MOST_IN_RANGE = 1000
LARGEST = 10**6
"""The largest integer that is accepted; no node or state of a cell has a larger number."""

CONTAINERS = ("list", "tuple", "range")


class Called(NamedTuple):
    """A call such as `Genotype(normal=[...], reduce=[...])`, as it is written.

    Attributes:
        name: the name of what is called.
        positional: values without a name.
        named: values by name.
    """

    name: str
    positional: list[Any]
    named: dict[str, Any]


class Repeated(InputError):
    """A mapping has a key twice, of which Python would silently take the last value."""

    def __init__(self, where: str, key: str) -> None:
        super().__init__(f"{where}: {one_line(key, 60)} is there twice; keep one of the two")
        self.key = key


def read_value(text: str, where: str) -> Any:
    """The value of a Python expression of literals; a call is returned as `Called`.

    Args:
        text: one expression.
        where: what to call it in an error.

    Raises:
        InputError: it is too long, not a Python expression, or not made of literals only.
    """
    if len(text) > MOST_CHARACTERS:
        raise InputError(
            f"{where}: {len(text)} characters; a genotype has {MOST_CHARACTERS} at most; copy its "
            "line alone"
        )
    try:
        with warnings.catch_warnings():  # other projects' strings may have invalid escapes
            warnings.simplefilter("ignore")
            body = ast.parse(text, mode="eval").body
        if isinstance(body, ast.Call) and _name(body.func) not in CONTAINERS:
            keywords = [(keyword.arg, keyword.value) for keyword in body.keywords]
            names = [name or "**" for name, _ in keywords]
            if "**" in names or any(isinstance(value, ast.Starred) for value in body.args):
                raise InputError(f"{where}: * and ** are not read; write the values themselves")
            if twice := [name for name in names if names.count(name) > 1]:
                raise InputError(f"{where}: {twice[0]} is given twice; give it once")
            positional = [_literal(value, where) for value in body.args]
            named = {name or "": _literal(value, where) for name, value in keywords}
            return Called(_name(body.func), positional, named)
        return _literal(body, where)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        said = one_line(error, 200) or type(error).__name__
        raise InputError(
            f"{where}: not what a program prints of a cell ({said}); must be names, numbers and "
            "lists, such as Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)])"
        ) from None


def _name(node: ast.expr) -> str:
    """The last part of the called name, such as `float32` for `np.float32`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _literal(node: ast.expr, where: str) -> Any:
    match node:
        case ast.Constant(value=str() | float() | None) as constant:
            return constant.value
        case ast.Constant(value=int() as number) if type(number) is int and number <= LARGEST:
            return number
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)) if (
            type(number) is not bool and number <= LARGEST
        ):
            return -number
        case ast.List(elts=values) | ast.Tuple(elts=values):
            return [_literal(value, where) for value in values]
        case ast.Dict(keys=keys, values=values):
            names = [None if key is None else _literal(key, where) for key in keys]
            if any(not isinstance(name, str) for name in names):
                raise InputError(f"{where}: a key that is no text; keys are such as 'normal'")
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise Repeated(where, str(twice))
            return dict(zip(names, (_literal(value, where) for value in values), strict=True))
        case ast.Call():
            return _call(node, where)
    raise InputError(
        f"{where}: {_shown(node)} is not read; write a number, a text, a list or range(2, 6) there"
    )


def _call(node: ast.Call, where: str) -> Any:
    """The value of `range(2, 6)`, `list(range(2, 6))`, or of a number in a library's notation."""
    name, values = _name(node.func), [_literal(value, where) for value in node.args]
    if name == "range" and 1 <= len(values) <= 3 and all(type(v) is int for v in values):
        if len(values) == 3 and values[2] == 0:
            raise InputError(f"{where}: {_shown(node)} has a step of 0; use range(2, 6)")
        states = range(*values)
        if len(states) > MOST_IN_RANGE:
            raise InputError(
                f"{where}: {_shown(node)} has more than {MOST_IN_RANGE} values; a cell's nodes are "
                "such as range(2, 6)"
            )
        return list(states)
    if name in ("list", "tuple") and len(values) == 1 and isinstance(values[0], list):
        return values[0]
    if len(values) >= 1 and isinstance(values[0], int | float) and name not in CONTAINERS:
        # np.int64(2): a source. np.float32(0.13), tensor(0.13, device='cuda:0'): a weight.
        return values[0] if name.startswith(("int", "uint")) else float(values[0])
    raise InputError(f"{where}: {_shown(node)} is not read; write the value itself")


def _shown(node: ast.expr) -> str:
    return one_line(ast.unparse(node), 60)
