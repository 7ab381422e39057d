"""What all settings are: frozen dataclasses with keyword arguments, whose types give the ranges.

    @settings
    class WeightUpdate:
        lr: Positive = 0.025
        momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9

A value of another type, or outside its interval, raises InputError wherever the object is made:
from a file, from the command line, in Python or by `dataclasses.replace`. Pydantic checks the types
of what comes from a file; gdas.field_types takes and refuses the same in Python, in the same words.
What depends on several fields is checked through `require` in the class's own `__post_init__`,
which runs afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Annotated, Any, TypeVar, dataclass_transform, get_args, get_type_hints

from gdas.errors import InputError
from gdas.field_types import FieldType, field_type

T = TypeVar("T")

STRICT = {"extra": "forbid", "strict": True}
"""Pydantic's options for settings from a file: no unknown keys, no silent conversion."""


@dataclass(frozen=True)
class Interval:
    """The numbers that a setting may have; NaN and the infinities are never among them.

    Attributes:
        gt, ge: a lower bound, exclusive or inclusive.
        lt, le: an upper bound, exclusive or inclusive.
    """

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            abs(value) < math.inf
            and (self.gt is None or value > self.gt)
            and (self.ge is None or value >= self.ge)
            and (self.lt is None or value < self.lt)
            and (self.le is None or value <= self.le)
        )

    def __str__(self) -> str:
        match self.gt, self.ge, self.lt, self.le:
            case None, low, None, None:
                return f"{low} or more"
            case low, None, None, None:
                return f"more than {low}"
            case None, low, None, high:
                return f"from {low} to {high}"
        low, opened = (self.ge, "[") if self.gt is None else (self.gt, "(")
        high, closed = (self.le, "]") if self.lt is None else (self.lt, ")")
        return f"in {opened}{low}, {high}{closed}"


ZeroOrMore = Annotated[int, Interval(ge=0)]
OneOrMore = Annotated[int, Interval(ge=1)]
TwoOrMore = Annotated[int, Interval(ge=2)]
Positive = Annotated[float, Interval(gt=0)]
NotNegative = Annotated[float, Interval(ge=0)]
BelowOne = Annotated[float, Interval(ge=0, lt=1)]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def settings(cls: type[T]) -> type[T]:
    """Turn a class into settings: a frozen dataclass whose fields' types and intervals are checked.

    Making such an object raises InputError, `key=value: must be ...`, for the first field whose
    value is not of its type or outside its interval. A whole number in a field of type float, a
    list in place of a tuple, and NumPy's numbers are kept as what the type says.
    """
    hints = get_type_hints(cls, include_extras=True)
    intervals = _ranges(hints)
    checks_itself = getattr(cls, "__post_init__", None)
    plan: list[tuple[str, FieldType | None, tuple[Interval, bool] | None]] = []

    def check(self: Any) -> None:
        for key, kind, interval in plan:
            value = getattr(self, key)
            if kind is not None:
                taken = kind.take(value, key)
                if taken is not value:
                    object.__setattr__(self, key, taken)
                    value = taken
            if interval is not None:
                _check_interval(key, value, *interval)
        if checks_itself is not None:
            checks_itself(self)

    cls.__post_init__ = check  # type: ignore[attr-defined]
    cls.__pydantic_config__ = STRICT  # type: ignore[attr-defined]
    made = dataclass(frozen=True, kw_only=True)(cls)
    keys = [f.name for f in fields(made) if f.init]  # type: ignore[arg-type]
    plan += [(key, field_type(hints[key]), intervals.get(key)) for key in keys]
    return made


def _check_interval(key: str, value: Any, interval: Interval, optional: bool) -> None:
    """Raise InputError unless a value, or each of a tuple, is in the interval.

    What is no number, which a type may have beside numbers, has no interval.
    """
    each = value if isinstance(value, tuple) else (value,)
    values = [number for number in each if isinstance(number, int | float)]
    if all(number in interval for number in values):
        return
    every = "every value " if isinstance(value, tuple) else ""
    null = ", or null" if optional else ""
    finite = "finite and " if any(abs(number) == math.inf for number in values) else ""
    raise InputError(f"{key}={value}: {every}must be {finite}{interval}{null}")


def ranges(cls: type) -> dict[str, tuple[Interval, bool]]:
    """The interval of every field that has one, and whether the field may be None instead.

    The interval of a tuple is that of each of its values.
    """
    return _ranges(get_type_hints(cls, include_extras=True))


def _ranges(hints: dict[str, Any]) -> dict[str, tuple[Interval, bool]]:
    found = {key: (next(_intervals(hint), None), hint) for key, hint in hints.items()}
    return {
        key: (interval, NoneType in get_args(hint))
        for key, (interval, hint) in found.items()
        if interval is not None
    }


def _intervals(hint: object) -> Iterator[Interval]:
    """All intervals inside a type."""
    if isinstance(hint, Interval):
        yield hint
    for part in get_args(hint):
        yield from _intervals(part)


def require(condition: bool, message: str) -> None:
    """Raise InputError with this message unless the condition holds."""
    if not condition:
        raise InputError(message)
