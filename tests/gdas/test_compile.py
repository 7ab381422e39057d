"""`compile`: the same numbers up to rounding, from as many graphs as there are kinds of pieces.

The graphs are run by PyTorch's own operators: capturing is what is ours, and needs no C compiler.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

import gdas.cnn.train
from gdas.checkpoint import Segment
from gdas.cnn.genotype import PUBLISHED
from gdas.config import AlphaUpdate
from gdas.data.arrow import Images
from tests.gdas import tiny_text
from tests.gdas.tiny import CPU, run_search, search_config, seen, train_config


@pytest.fixture(autouse=True)
def captured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    yield
    torch.compiler.reset()


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def losses(segments: Iterator[Segment]) -> list[float]:
    return [v for s in segments for k, v in sorted(s.metrics.items()) if k.endswith("/loss")]


def searched(images: Images, **changes: Any) -> list[float]:
    """Losses of both steps; the logits move so little that rounding changes no draw.

    The reduction cell is the fixed one, so that all three kinds of piece are there.
    """
    alpha = AlphaUpdate(lr=1e-4)
    config = search_config(alpha=alpha, kernels="plain", reduction="fixed", **changes)
    return losses(run_search(config, images))


def test_a_search_compiles_its_operations(
    small_digits: Images, caplog: pytest.LogCaptureFixture
) -> None:
    """Two of them, one with weights and one without."""
    few: dict[str, Any] = {"epochs": 1, "operations": ("max_pool_3x3", "sep_conv_3x3")}
    plain = searched(small_digits, **few)
    assert graphs() == 0
    compiled = searched(small_digits, **few, compile=True)
    assert compiled == pytest.approx(plain, rel=1e-3)
    assert 5 < graphs() < 50, "pieces of one kind and shape share a graph"
    assert "recompile_limit" not in caplog.text


@pytest.mark.slow
def test_a_search_compiles_all_of_the_papers_operations(
    small_digits: Images, caplog: pytest.LogCaptureFixture
) -> None:
    plain = searched(small_digits, epochs=2)
    assert graphs() == 0
    compiled = searched(small_digits, epochs=2, compile=True)
    assert compiled[:2] == pytest.approx(plain[:2], rel=1e-3)
    # PyTorch 2.9 rounds so that a few ReLUs part the second epochs.
    assert compiled == pytest.approx(plain, rel=2e-2)
    assert 20 < graphs() < 200, "pieces of one kind and shape share a graph"
    assert "recompile_limit" not in caplog.text


@pytest.mark.slow
def test_an_interrupted_compiled_search_ends_as_one_left_alone(small_digits: Images) -> None:
    config = search_config(nodes=1, epochs=2, compile=True)
    segments = run_search(config, small_digits)
    state = deepcopy(next(segments).state)
    expected = seen(next(segments))
    torch.compiler.reset()
    assert seen(next(run_search(config, small_digits, state))) == expected


def trained(images: Images, **changes: Any) -> list[float]:
    rows = torch.arange(64)
    return losses(
        gdas.cnn.train.train_image(
            train_config(epochs=2, auxiliary_weight=0.0, kernels="plain", **changes),
            PUBLISHED["GDAS_V1"],
            images,
            rows,
            images,
            rows,
            evaluated_on="valid",
            device=CPU,
        )
    )


@pytest.mark.slow
def test_a_training_compiles_its_network(small_digits: Images) -> None:
    plain = trained(small_digits)
    assert graphs() == 0
    assert trained(small_digits, compile=True) == pytest.approx(plain, rel=1e-3)
    assert graphs() > 0


def test_a_language_model_compiles_its_time_step() -> None:
    plain = losses(tiny_text.training(tiny_text.train_config()))
    assert graphs() == 0
    compiled = losses(tiny_text.training(tiny_text.train_config(compile=True)))
    assert compiled == pytest.approx(plain, rel=1e-3)
    assert graphs() > 0
