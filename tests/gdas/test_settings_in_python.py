"""Settings made in Python are checked field by field, as those from a file are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import pytest

import gdas.bench201.config
import gdas.cnn.config
import gdas.config
import gdas.data.settings
import gdas.rnn.config
from gdas.bench201.config import Bench201SearchConfig
from gdas.cnn.config import SearchConfig, SupernetConfig
from gdas.config import AlphaUpdate, SamplerConfig, WeightUpdate
from gdas.data.settings import IMAGE_DATA, ImageData, PhotoData
from gdas.errors import InputError
from gdas.rnn.config import TextSearchConfig
from gdas.settings import Positive, settings

IMAGE = partial(ImageData, name="mine", mean=(0.5,) * 3, std=(0.25,) * 3, crop_padding=2, flip=True)
WHOLE = "must be a whole number, such as 3, without quotes"
NUMBER = "must be a number, such as 0.1, without quotes"

REFUSED: list[tuple[Callable[..., Any], str, Any, str]] = [
    (SamplerConfig, "relaxation", "DARTS", "relaxation=DARTS: must be hard, soft or softmax"),
    (
        SamplerConfig,
        "relaxation",
        "sofmax",
        "relaxation=sofmax: must be hard, soft or softmax; did you mean softmax?",
    ),
    (
        SearchConfig,
        "order",
        "alpha",
        "order=alpha: must be weights_first or alpha_first; did you mean alpha_first?",
    ),
    (AlphaUpdate, "gates", "ALL", "gates=ALL: must be drawn or all; did you mean all?"),
    (SupernetConfig, "reduction", "frc", "reduction=frc: must be searched or fixed"),
    (SearchConfig, "precision", "float64", "precision=float64: must be float32 or bfloat16"),
    (WeightUpdate, "undrawn", "zero", "undrawn=zero: must be decay or skip"),
    (SearchConfig, "task", "text", "task=text: must be image"),
    (SearchConfig, "order", ["alpha"], "order=['alpha']: must be weights_first or alpha_first"),
    (SearchConfig, "seed", "abc", f"seed='abc': {WHOLE}"),
    (SearchConfig, "seed", 1.0, f"seed=1.0: {WHOLE}"),
    (SearchConfig, "seed", True, f"seed=True: {WHOLE}"),
    (SearchConfig, "seed", np.float64(1), f"seed={np.float64(1)!r}: {WHOLE}"),
    (SearchConfig, "epochs", 2.5, f"epochs=2.5: {WHOLE}"),
    (SearchConfig, "epochs", "3", f"epochs='3': {WHOLE}"),
    (SearchConfig, "split_seed", "0", f"split_seed='0': {WHOLE}"),
    (AlphaUpdate, "lr", "0.1", f"lr='0.1': {NUMBER}"),
    (AlphaUpdate, "lr", True, f"lr=True: {NUMBER}"),
    (AlphaUpdate, "lr", 10**400, "lr=inf: must be finite and 0 or more"),
    (AlphaUpdate, "betas", [0.5], "betas=[0.5]: must be a list of 2 values"),
    (AlphaUpdate, "betas", 0.5, "betas=0.5: must be a list, such as [0, 1]"),
    (AlphaUpdate, "betas", ["a", 0.9], f"betas.0='a': {NUMBER}"),
    (AlphaUpdate, "betas", [0.5, 1], "betas=(0.5, 1.0): every value must be in [0, 1)"),
    (WeightUpdate, "nesterov", 1, "nesterov=1: must be true or false, without quotes"),
    (IMAGE, "mean", [0.5, 0.5], "mean=[0.5, 0.5]: must be a list of 3 values"),
    (IMAGE, "name", 3, "name=3: must be text, such as mine; put a number or a date in quotes"),
    (SearchConfig, "operations", "none", "operations='none': must be a list, such as [0, 1]"),
    (
        SearchConfig,
        "operations",
        ["none", 3],
        "operations.1=3: must be text, such as mine; put a number or a date in quotes",
    ),
    (
        SearchConfig,
        "network",
        {"channels": 4},
        "network={'channels': 4}: must be SupernetConfig(...) of gdas.cnn.config",
    ),
    (
        Bench201SearchConfig,
        "data",
        "cifar10",
        "data='cifar10': must be ImageData(...) of gdas.data.settings",
    ),
    (
        SearchConfig,
        "data",
        None,
        "data=None: must be ImageData(...) of gdas.data.settings or PhotoData(...) of "
        "gdas.data.settings",
    ),
]


@pytest.mark.parametrize(("make", "key", "value", "message"), REFUSED)
def test_a_value_of_another_type_is_refused_by_name(
    make: Callable[..., Any], key: str, value: Any, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        make(**{key: value})
    assert str(caught.value) == message
    with pytest.raises(InputError) as caught:
        dataclasses.replace(make(), **{key: value})
    assert str(caught.value) == message


MODULES = (gdas.config, gdas.cnn.config, gdas.rnn.config, gdas.bench201.config, gdas.data.settings)
CLASSES = sorted(
    {
        kind
        for module in MODULES
        for kind in vars(module).values()
        if isinstance(kind, type) and hasattr(kind, "__pydantic_config__")
    },
    key=lambda kind: kind.__name__,
)
NEEDED: dict[type, Any] = {ImageData: IMAGE, PhotoData: partial(PhotoData, name="a", classes=2)}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_field_of_every_settings_class_is_checked(kind: type) -> None:
    assert len(CLASSES) == 14
    made = NEEDED.get(kind, kind)()
    for field in dataclasses.fields(made):
        with pytest.raises(InputError, match=rf"^{field.name}=<object object at .*>: must be "):
            dataclasses.replace(made, **{field.name: object()})


def test_numbers_and_lists_are_kept_as_the_type_says() -> None:
    given: Any = {"mean": [0, np.float32(0.5), 1], "crop_padding": np.int64(2)}
    made: Any = IMAGE(flip=np.bool_(False), **given)  # type: ignore[arg-type]
    assert made == IMAGE(mean=(0.0, 0.5, 1.0), crop_padding=2, flip=False)
    kept = (*made.mean, made.crop_padding, made.flip)
    assert [type(value) for value in kept] == [float, float, float, int, bool]
    assert hash(made) == hash(dataclasses.replace(made))
    rates: Any = {"lr": 20, "lr_min": np.int32(20)}
    weights = WeightUpdate(**rates)
    assert (repr(weights.lr), repr(weights.lr_min)) == ("20.0", "20.0")
    search: Any = {"seed": np.uint8(7), "order": np.str_("alpha_first")}
    made = SearchConfig(**search)
    assert (repr(made.seed), repr(made.order)) == ("7", "'alpha_first'")


def test_what_is_of_its_type_is_not_copied() -> None:
    mean, alpha = (0.1, 0.2, 0.3), AlphaUpdate()
    assert IMAGE(mean=mean).mean is mean
    assert TextSearchConfig(alpha=alpha).alpha is alpha
    assert SearchConfig(data=IMAGE_DATA["digits"]).data is IMAGE_DATA["digits"]


class _Stem(Protocol):
    def build(self) -> int: ...


@settings
class OfOnesOwn:
    """What the classes of this package have no field of."""

    size: int | float = 1
    rate: Positive | Literal["auto"] = "auto"
    anything: Any = None
    stem: _Stem | None = None
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    rows: tuple[tuple[int, str], ...] = ()


def test_a_class_of_ones_own_is_checked_as_far_as_its_types_say() -> None:
    given: Any = {"size": np.int64(3), "rows": [[1, "a"]], "counts": {"a": 1}, "stem": 3}
    made: Any = OfOnesOwn(rate="auto", anything=[1], **given)
    assert (made.size, made.rows, made.counts, made.stem) == (3, ((1, "a"),), {"a": 1}, 3)
    wrong: list[tuple[str, Any, str]] = [
        ("size", "3", f"size='3': {WHOLE} or a number, such as 0.1, without quotes"),
        ("counts", {"a": "b"}, f"counts.a='b': {WHOLE}"),
        ("counts", {1: 1}, "counts=1: must be text"),
        ("counts", [1], r"counts=\[1\]: must be keys with values"),
        ("rows", [[1, "a"], [2]], r"rows.1=\[2\]: must be a list of 2 values"),
    ]
    for key, value, message in wrong:
        with pytest.raises(InputError, match=f"^{message}"):
            OfOnesOwn(**{key: value})
