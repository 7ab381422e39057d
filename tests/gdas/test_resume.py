"""Interrupted is uninterrupted, bit for bit; a damaged checkpoint is passed over; digests."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from gdas.checkpoint import digest
from gdas.cnn.config import TrainConfig
from gdas.cnn.genotype import PUBLISHED
from gdas.cnn.train import learning_rate, train_image
from gdas.config import AlphaUpdate, SamplerConfig, WeightUpdate
from gdas.data.arrow import Images
from gdas.data.settings import IMAGE_DATA
from gdas.errors import InputError
from tests.gdas.tiny import (
    CPU,
    Seen,
    latest,
    run_search,
    search_config,
    seen,
    train_config,
    until,
)

SEARCHES = {
    "both cells": search_config(nodes=3),
    "fixed reduction": search_config("fixed"),
    # Two nodes a cell make the variants quick.
    "alpha first": search_config(nodes=2, order="alpha_first"),
    # So low that the logits' gradient in the norm tells.
    "clip all": search_config(nodes=2, weights=WeightUpdate(clip_scope="all", clip=0.01)),
    "clip all, alpha first": search_config(
        nodes=2, weights=WeightUpdate(clip_scope="all", clip=0.01), order="alpha_first"
    ),
    "clip all, fixed reduction": search_config(
        "fixed", weights=WeightUpdate(clip_scope="all", clip=0.01)
    ),
    "undrawn decay": search_config(nodes=2),
    "undrawn skip": search_config(nodes=2, weights=WeightUpdate(undrawn="skip")),
    "alpha images drawn with replacement": search_config(
        nodes=2, alpha=AlphaUpdate(lr=0.05, images="replacement")
    ),
    "one draw a cell type": search_config(nodes=2, sampler=SamplerConfig(scope="cell_type")),
    "softmax": search_config(nodes=2, sampler=SamplerConfig(relaxation="softmax")),
    # Passes over D_V that do not end with an epoch.
    "odd sizes": search_config(
        nodes=2, train_images=70, valid_images=50, weights=WeightUpdate(nesterov=True)
    ),
}


SPARE = ("alpha first", "undrawn decay", "fixed reduction")
"""What others have in them too: with another clipping, and with more nodes."""


@pytest.fixture(scope="module")
def first_epochs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the whole runs save their first epochs."""
    return tmp_path_factory.mktemp("first")


@pytest.fixture(scope="module")
def uninterrupted(small_digits: Images, first_epochs: Path) -> dict[str, list[Seen]]:
    """Every search's whole run; it saves its first epoch."""
    runs = {}
    for name, config in SEARCHES.items():
        segments = run_search(config, small_digits)
        first = until(segments, 1, first_epochs / name)
        runs[name] = first + [seen(segment) for segment in segments]
    return runs


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SPARE)) for name in SEARCHES],
)
def test_a_search_stopped_after_any_epoch_goes_on_as_if_it_had_not_been(
    uninterrupted: dict[str, list[Seen]],
    first_epochs: Path,
    small_digits: Images,
    name: str,
) -> None:
    config, whole, folder = SEARCHES[name], uninterrupted[name], first_epochs / name
    assert [epoch[0] for epoch in whole] == [1, 2, 3]
    # Stopped after the first epoch, and what went on from there stopped after the second.
    passed = whole[:1]
    for position in (1, 2):
        checkpoint = latest(folder)
        assert checkpoint.position == position
        passed += until(run_search(config, small_digits, checkpoint.state), position + 1, folder)
    assert passed == whole
    end = latest(folder).state
    assert end["history"] == [epoch[1] for epoch in whole]
    assert list(run_search(config, small_digits, end)) == []


def test_every_search_ends_somewhere_else(uninterrupted: dict[str, list[Seen]]) -> None:
    ends = {name: run[-1][3] for name, run in uninterrupted.items()}
    assert len(set(ends.values())) == len(ends)


def test_a_search_leaves_the_state_it_went_on_from_as_it_was(
    small_digits: Images, tmp_path: Path
) -> None:
    config = SEARCHES["clip all, alpha first"]
    until(run_search(config, small_digits), 2, tmp_path)
    state = latest(tmp_path).state
    before = digest(state)
    next(run_search(config, small_digits, state))
    assert digest(state) == before


def test_another_seed_gives_another_search(
    uninterrupted: dict[str, list[Seen]], small_digits: Images
) -> None:
    first = seen(next(run_search(search_config(nodes=2, seed=1), small_digits)))
    assert first[3] != uninterrupted["undrawn decay"][0][3]


# Training


def run_training(
    config: TrainConfig, name: str, images: Images, checkpoint: dict[str, Any] | None = None
) -> Any:
    rows = torch.arange(64)
    return train_image(
        config,
        PUBLISHED[name],
        images,
        rows,
        images,
        rows + 64,
        evaluated_on="valid",
        device=CPU,
        checkpoint=checkpoint,
    )


TRAININGS = {
    "everything": train_config(),
    "warm-up and label smoothing": train_config(
        warmup_epochs=2, label_smoothing=0.1, nesterov=True, macro="3n", pooling_norm=False
    ),
    "exponential, evaluated every other epoch": train_config(
        schedule="exponential", lr_decay=0.5, evaluate_every=2, auxiliary_weight=0.0
    ),
}


@pytest.mark.parametrize(
    ("variant", "name"),
    [("everything", "GDAS_V1"), *((variant, "GDAS_F1") for variant in TRAININGS)],
)
def test_a_training_stopped_after_any_epoch_goes_on_as_if_it_had_not_been(
    digits: Images, tmp_path: Path, variant: str, name: str
) -> None:
    config = TRAININGS[variant]
    segments = run_training(config, name, digits)
    passed = until(segments, 1, tmp_path)
    whole = passed + [seen(segment) for segment in segments]
    assert [epoch[0] for epoch in whole] == [1, 2, 3]
    for position in (1, 2):
        state = latest(tmp_path).state
        passed += until(run_training(config, name, digits, state), position + 1, tmp_path)
    assert passed == whole
    assert [metrics["lr"] for _, metrics, *_ in whole] == [
        learning_rate(config, epoch) for epoch in range(3)
    ]
    assert [metrics["drop_path"] for _, metrics, *_ in whole] == pytest.approx([0.0, 0.1, 0.2])
    evaluated = ["valid/top1" in metrics for _, metrics, *_ in whole]
    assert evaluated == ([False, True, True] if config.evaluate_every == 2 else [True] * 3)


def test_a_training_leaves_the_state_it_went_on_from_as_it_was(
    digits: Images, tmp_path: Path
) -> None:
    config = TRAININGS["everything"]
    until(run_training(config, "GDAS_F1", digits), 2, tmp_path)
    state = latest(tmp_path).state
    before = digest(state)
    next(run_training(config, "GDAS_F1", digits, state))
    assert digest(state) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"drop_path": 0.0},
        {"auxiliary_weight": 0.3},
        {"label_smoothing": 0.1},
        {"data": IMAGE_DATA["digits"]},
    ],
    ids=["drop path", "auxiliary weight", "label smoothing", "cutout"],
)
def test_every_regulariser_of_a_training_changes_its_result(
    digits: Images, changes: dict[str, Any]
) -> None:
    ends = []
    for config in (train_config(), train_config(**changes)):
        segments = run_training(config, "GDAS_F1", digits)
        next(segments)
        ends.append(digest(next(segments).state["weights"]))
    assert ends[0] != ends[1]


def test_learning_rates_follow_warm_up_and_schedule() -> None:
    cosine = train_config(epochs=4, lr=0.4, lr_min=0.0)
    rates = [learning_rate(cosine, epoch) for epoch in range(4)]
    assert rates == pytest.approx([0.4, 0.2 + 0.1 * 2**0.5, 0.2, 0.2 - 0.1 * 2**0.5])
    warm = train_config(epochs=6, lr=0.4, warmup_epochs=2)
    assert [learning_rate(warm, epoch) for epoch in range(6)] == pytest.approx([0.2, 0.4, *rates])
    falling = train_config(epochs=3, lr=0.1, schedule="exponential", lr_decay=0.97)
    assert [learning_rate(falling, epoch) for epoch in range(3)] == pytest.approx(
        [0.1, 0.097, 0.09409]
    )


def test_a_training_that_cannot_be_built_is_refused_before_it_starts(
    digits: Images, small_digits: Images
) -> None:
    with pytest.raises(InputError, match="channels=6"):
        next(run_training(train_config(channels=6), "GDAS_F1", digits))
    with pytest.raises(InputError, match="16 x 16"):
        next(run_training(train_config(), "GDAS_F1", small_digits))
    next(run_training(train_config(channels=6), "GDAS_V1", digits))


def test_a_training_that_diverges_says_where(digits: Images) -> None:
    config = train_config(lr=1e30, clip=1e30)
    with pytest.raises(FloatingPointError, match=r"GDAS_V1, epoch 1: .* learning rate lr=1e\+30"):
        list(run_training(config, "GDAS_V1", digits))


def test_an_evaluation_that_is_not_finite_says_where_and_at_which_rate(
    digits: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gdas.cnn.train.normalise", lambda pixels, data: pixels.float() * math.nan)
    monkeypatch.setattr("gdas.cnn.train.augment", lambda pixels, data, moves: pixels / 255)
    config = train_config(epochs=3, evaluate_every=2, lr=0.05, lr_min=0.05)
    with pytest.raises(FloatingPointError) as caught:
        list(run_training(config, "GDAS_V1", digits))
    for said in ("training of GDAS_V1, epoch 2", "loss is nan", "learning rate lr=0.05", "lower"):
        assert said in str(caught.value)


def test_a_search_that_diverges_says_where(small_digits: Images) -> None:
    config = search_config(weights=WeightUpdate(lr=1e30, lr_min=0.0, clip=1e30))
    with pytest.raises(FloatingPointError) as caught:
        list(run_search(config, small_digits))
    for said in ("search, epoch 1", "weights.lr=1e+30 and alpha.lr=0.05", "lower the rate"):
        assert said in str(caught.value)


def test_a_saved_search_does_not_say_how_its_optimizer_is_computed(small_digits: Images) -> None:
    """Its digest would change although no weight does."""
    segment = next(run_search(search_config(nodes=1), small_digits))
    assert segment.state is not None
    (group,) = segment.state["weight_optimizer"]["param_groups"]
    assert group["foreach"] is None and group["fused"] is None
