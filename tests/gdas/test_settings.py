"""Settings say what they take, and are refused by one line that names the key."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any

import pytest

from gdas.errors import InputError
from gdas.settings import (
    BelowOne,
    Interval,
    NotNegative,
    OneOrMore,
    Positive,
    TwoOrMore,
    ZeroOrMore,
    ranges,
    require,
    settings,
)


@settings
class Sample:
    rate: Positive = 0.1
    decay: NotNegative = 0.0
    share: BelowOne = 0.5
    angle: Annotated[float, Interval(ge=0, le=0.5)] = 0.2
    factor: Annotated[float, Interval(gt=0, le=1)] = 1.0
    epochs: OneOrMore = 1
    restarts: ZeroOrMore = 0
    images: TwoOrMore | None = None
    betas: tuple[BelowOne, BelowOne] = (0.5, 0.9)
    name: str = "sample"

    def __post_init__(self) -> None:
        require(self.epochs < 10, f"epochs={self.epochs}: must be less than 10")


REFUSED: list[tuple[str, Any, str]] = [
    ("rate", 0.0, "rate=0.0: must be more than 0"),
    ("rate", math.nan, "rate=nan: must be more than 0"),
    ("decay", -1.0, "decay=-1.0: must be 0 or more"),
    ("decay", math.nan, "decay=nan: must be 0 or more"),
    ("share", 1.0, "share=1.0: must be in [0, 1)"),
    ("angle", 0.6, "angle=0.6: must be from 0 to 0.5"),
    ("factor", 0.0, "factor=0.0: must be in (0, 1]"),
    ("factor", 1.5, "factor=1.5: must be in (0, 1]"),
    ("epochs", 0, "epochs=0: must be 1 or more"),
    ("epochs", 10, "epochs=10: must be less than 10"),
    ("restarts", -1, "restarts=-1: must be 0 or more"),
    ("images", 1, "images=1: must be 2 or more, or null"),
    ("betas", (0.5, 1.0), "betas=(0.5, 1.0): every value must be in [0, 1)"),
]


@pytest.mark.parametrize(("key", "value", "message"), REFUSED)
def test_a_value_outside_its_interval_is_refused(key: str, value: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Sample(**{key: value})
    assert str(caught.value) == message
    with pytest.raises(InputError):
        dataclasses.replace(Sample(), **{key: value})


def test_the_closed_ends_are_accepted() -> None:
    ends = {"decay": 0.0, "share": 0.0, "angle": 0.5, "factor": 1.0, "epochs": 1, "images": 2}
    assert dataclasses.asdict(Sample(**ends)).items() >= ends.items()  # type: ignore[arg-type]


def test_none_is_accepted_only_where_the_type_says_so() -> None:
    assert Sample(images=None).images is None
    with pytest.raises(InputError, match=r"^epochs=None: must be a whole number, such as 3"):
        Sample(epochs=None)  # type: ignore[arg-type]


def test_settings_are_frozen_and_by_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sample().epochs = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        Sample(0.1)  # type: ignore[call-arg]


def test_the_ranges_are_known_by_field() -> None:
    found = ranges(Sample)
    assert set(found) == {f.name for f in dataclasses.fields(Sample)} - {"name"}
    assert found["images"] == (Interval(ge=2), True)
    assert found["betas"] == (Interval(ge=0, lt=1), False)
