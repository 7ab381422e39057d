"""A value means the same in a file and in Python: both keep it, or both refuse it in one way."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from gdas.errors import InputError
from gdas.settings import BelowOne, OneOrMore, Positive, settings
from orchestrator.experiment.decode import decode


@settings
class Inner:
    count: OneOrMore = 1


@settings
class Sample:
    whole: int = 0
    positive: Positive = 0.1
    flag: bool = False
    name: str = "mine"
    order: Literal["weights_first", "alpha_first"] = "weights_first"
    perhaps: OneOrMore | None = None
    pair: tuple[BelowOne, BelowOne] = (0.5, 0.9)
    names: tuple[str, ...] = ()
    inner: Inner = Inner()


KEYS = list(Sample.__dataclass_fields__)
VALUES: list[Any] = [
    *(0, 1, 2.0, 0.5, -1, 10**400, float("inf"), True, None, "3", "alpha", "Weights_first", ""),
    *([], [0, 0.5], (0.5,), [0.5, "a"], ["a", "b"], ["a", 3], [0.5, 0.5, 0.5], [None, 0.5]),
]


def kept_or_refused(make: Any) -> str:
    try:
        return repr(make())
    except InputError as error:
        return str(error).removeprefix("inner: ")


@pytest.mark.parametrize("key", KEYS)
def test_python_takes_and_refuses_what_a_file_does_in_the_same_words(key: str) -> None:
    outcomes = set()
    for value in VALUES:
        in_python = kept_or_refused(lambda value=value: Sample(**{key: value}))
        from_file = kept_or_refused(lambda value=value: decode(Sample, {key: value}, ""))
        if key == "inner":  # which only a file writes as keys with values
            assert "must be" in in_python and "must be" in from_file
        else:
            listed = from_file.replace("[0.5]", "(0.5,)") if value == (0.5,) else from_file
            assert in_python == listed
        outcomes.add(in_python)
    assert len(outcomes) > 3
