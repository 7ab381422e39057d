"""What a value is, said once to the reader, to the type checker and as an assertion."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def present(value: T | None) -> T:
    """The value, which is not None."""
    assert value is not None
    return value


def narrow(value: object, kind: type[T]) -> T:
    """The value, which is of this class; for settings that are one of several."""
    assert isinstance(value, kind), f"{type(value).__name__} is no {kind.__name__}"
    return value
