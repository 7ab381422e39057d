"""The training of language models: steps, averaging, resume, restarts after a NaN."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from gdas.checkpoint import Segment, State, digest
from gdas.data.text import Tokens, batch_tokens, bptt_lengths
from gdas.distributed import Workers
from gdas.errors import InputError
from gdas.randomness import generator
from gdas.rnn.language_model import LanguageModel
from gdas.rnn.regularisation import draw_masks
from gdas.rnn.train import (
    RunningMean,
    averaging_begins,
    build_language_model,
    evaluate,
    train_text,
)
from tests.gdas.test_recurrent_cells import F
from tests.gdas.test_recurrent_search import value
from tests.gdas.tiny import CPU
from tests.gdas.tiny_text import (
    CELL,
    GDAS,
    NO_DROPOUT,
    WORDS,
    interrupted,
    random_text,
    seen,
    train_config,
    training,
)
from tests.narrow import present

# Training


def averaged_steps(rates: list[float], rule: Literal["step", "authors", "torch"]) -> list[Tensor]:
    """Weights and their mean after a few steps, whose rates are set one by one before each."""
    model = nn.Linear(3, 2)
    nn.init.constant_(model.weight, 0.3)
    nn.init.constant_(model.bias, 0.1)
    theirs = torch.optim.ASGD(model.parameters(), lr=rates[0], t0=0, lambd=0.0, weight_decay=0.01)
    ours = torch.optim.SGD(model.parameters(), lr=rates[0], weight_decay=0.01)
    optimizer: torch.optim.Optimizer = theirs if rule == "torch" else ours
    mean = RunningMean(model)
    g = generator(0, "data")
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate if rule == "torch" else mean.rate(rate, rule)
        optimizer.zero_grad()
        model(torch.randn(4, 3, generator=g)).square().sum().mul(0.05).backward()
        optimizer.step()
        mean.add(model)
    weights = [p.detach() for p in model.parameters()]
    if rule == "torch":
        return weights + [theirs.state[p]["ax"] for p in model.parameters()]
    return weights + list(mean.weights.values())


def test_averaged_sgd_is_pytorchs_whose_rate_is_one_step_late() -> None:
    constant, varied = [0.5] * 7, [0.5, 0.1, 0.7, 0.3, 0.9, 0.2, 0.6]
    for rates, rule in ((constant, "step"), (constant, "authors"), (varied, "authors")):
        ours, theirs = averaged_steps(rates, rule), averaged_steps(rates, "torch")  # type: ignore[arg-type]
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
        assert not torch.allclose(ours[0], ours[2]), "or the mean is the weights"
    step, late = averaged_steps(varied, "step"), averaged_steps(varied, "torch")
    assert not torch.allclose(step[0], late[0], rtol=1e-3)
    # By hand: the same steps with the rates moved by one.
    moved = averaged_steps([varied[0], *varied[:-1]], "step")
    for a, b in zip(moved, late, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_an_epoch_of_training_is_plain_sgd_written_out() -> None:
    """Embedding, masks, cell, decoder, both losses, clipping, decay and rate, step by step."""
    config = train_config(epochs=1, weight_decay=0.01, temporal=2.0, clip=0.05)
    train = random_text(400, 2)
    model = build_language_model(config, CELL, WORDS)
    text_TB = train.ids_N.long().view(4, 100).t()
    lengths = bptt_lengths(99, 12, seed=0, epoch=0, varied=True)
    assert len(set(lengths)) > 1, "or the rate is the same everywhere"
    start, hidden_BN, total = 0, torch.zeros(4, 6), 0.0
    for step, length in enumerate(lengths):
        masks = draw_masks(
            config.dropouts,
            vocabulary=WORDS,
            batch=4,
            hidden=6,
            generator=generator(0, "dropout", 0, step, 0),
            device=CPU,
        )
        word_V, embedded_BN, input_BN, hidden_mask_BN, output_BN = (
            m for m in masks if m is not None
        )
        tokens_TB = text_TB[start : start + length]
        targets_TB = text_TB[start + 1 : start + 1 + length]
        words = model.words
        x_TBN = (words.weight_VN * word_V[:, None])[tokens_TB] * embedded_BN
        cell = model.cell
        outputs = []
        for x in x_TBN:
            both = torch.cat([x * input_BN, hidden_BN * hidden_mask_BN], dim=1)
            c, h = (both @ cell.input_weight).chunk(2, dim=1)
            states = [hidden_BN + torch.sigmoid(c) * (torch.tanh(h) - hidden_BN)]
            for (function, p), w in zip(CELL.recurrent, cell.step_weights, strict=True):
                c, h = ((states[p] * hidden_mask_BN) @ w).chunk(2, dim=1)
                states.append(states[p] + torch.sigmoid(c) * (F[function](h) - states[p]))
            hidden_BN = torch.stack(states[1:]).mean(0)
            outputs.append(hidden_BN)
        outputs_TBN = torch.stack(outputs)
        scores_TBV = (outputs_TBN * output_BN) @ words.weight_VN.T + words.bias_V
        log_p = torch.log_softmax(scores_TBV, dim=2).gather(2, targets_TB[..., None])
        entropy = -log_p.mean()
        total += value(entropy) * length
        change = (outputs_TBN[1:] - outputs_TBN[:-1]).square().mean()
        gradient = torch.autograd.grad(entropy + 2.0 * change, list(model.parameters()))
        norm = torch.cat([g.flatten() for g in gradient]).norm()
        assert norm > 0.05, "or nothing is clipped"
        with torch.no_grad():
            for weight, g in zip(model.parameters(), gradient, strict=True):
                weight.sub_(2.0 * length / 12 * (g * 0.05 / (norm + 1e-6) + 0.01 * weight))
        hidden_BN = hidden_BN.detach()
        start += length
    last, *_ = train_text(config, CELL, train, None, device=CPU)
    state: Any = last.state
    for name, weight in model.named_parameters():
        torch.testing.assert_close(state["weights"][name], weight.detach(), rtol=1e-4, atol=1e-6)
    assert last.metrics["train/loss"] == pytest.approx(total / 99, rel=1e-5)


def test_when_averaging_begins() -> None:
    early, patient = train_config(averaging="all"), train_config(averaging="non_monotonic")
    falling = [6.0, 5.0, 4.0, 3.0, 2.0]
    assert not averaging_begins(early, falling, 9.0), "five epochs are not more than five"
    assert averaging_begins(early, [*falling, 1.0], 1.5)
    assert not averaging_begins(early, [*falling, 1.0], 0.9)
    # Of seven earlier epochs the patient rule looks at the first two.
    assert not averaging_begins(patient, [*falling, 1.0, 1.2], 4.5)
    assert averaging_begins(patient, [*falling, 1.0, 1.2], 5.5)
    assert averaging_begins(early, [*falling, 1.0, 1.2], 4.5)


def begin_after(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    monkeypatch.setattr(
        "gdas.rnn.train.averaging_begins", lambda config, earlier, loss: len(earlier) >= epochs
    )


@pytest.mark.parametrize("rate", ["step", "authors"])
def test_an_interrupted_training_ends_as_one_left_alone_before_and_after_the_switch(
    rate: Literal["step", "authors"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_after(monkeypatch, 1)  # the second epoch's end
    config = train_config(epochs=5, asgd_rate=rate)

    def start(checkpoint: State | None) -> Iterator[Segment]:
        return training(config, checkpoint, test=True)

    whole = [seen(segment) for segment in start(None)]
    assert [metrics["averaging"] for _, metrics, *_ in whole] == [0, 0, 1, 1, 1]  # type: ignore[index]
    for stop in (1, 2, 4):
        assert interrupted(start, stop, tmp_path / str(stop)) == whole
    last: Any = whole[-1][1]
    assert {"test/loss", "test/perplexity", "valid/perplexity", "train/perplexity", "lr"} <= set(
        last
    )
    assert not any("test/loss" in metrics for _, metrics, *_ in whole[:-1])  # type: ignore[operator]


def test_the_test_is_of_the_best_validation_epoch() -> None:
    """Learning random words by heart: the last weights are not the best ones."""
    config = train_config(epochs=4, lr=5.0, clip=1.0, dropouts=NO_DROPOUT)
    segments = list(training(config, test=True))
    losses = [segment.metrics["valid/loss"] for segment in segments]
    state: Any = segments[-1].state
    best = losses.index(min(losses)) + 1
    assert state["best_epoch"] == segments[-1].details["best_epoch"] == best
    assert best < 4, "or this proves nothing"
    model = LanguageModel(CELL, WORDS, 6)
    model.load_state_dict(state["best"])
    text_TB = batch_tokens(random_text(60, 4).ids_N, 1)
    expected = evaluate(config, model, text_TB, "test")
    assert segments[-1].metrics["test/loss"] == pytest.approx(expected["test/loss"])
    model.load_state_dict(state["weights"])
    other = evaluate(config, model, text_TB, "test")
    assert segments[-1].metrics["test/loss"] != pytest.approx(other["test/loss"])


def spoil(monkeypatch: pytest.MonkeyPatch, *, epoch: int, attempts: int) -> None:
    """Make the masks of an epoch's first attempts NaN."""
    asked: list[tuple[int, ...]] = []

    def note(seed: int, stream: str, *position: int) -> Any:
        if stream == "dropout":
            asked.append(position)
        return generator(seed, stream, *position)

    def masks(*args: Any, **kwargs: Any) -> Any:
        drawn = draw_masks(*args, **kwargs)
        at, step, attempt = asked[-1]
        if at == epoch and step == 1 and attempt < attempts:
            return drawn._replace(output_BN=present(drawn.output_BN) * math.nan)
        return drawn

    monkeypatch.setattr("gdas.rnn.train.generator", note)
    monkeypatch.setattr("gdas.rnn.train.draw_masks", masks)


@pytest.mark.parametrize("averaging", [False, True])
def test_a_nan_sends_the_run_back_to_its_best_epoch_and_resume_is_exact(
    averaging: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_after(monkeypatch, 0 if averaging else 99)
    spoil(monkeypatch, epoch=2, attempts=2)
    config = train_config(epochs=5, restarts=2)
    whole = [seen(segment) for segment in training(config)]
    assert [details["restarts"] for *_, details, _ in whole] == [0, 0, 2, 2, 2]  # type: ignore[index]
    for stop in (2, 3):
        assert interrupted(lambda c: training(config, c), stop, tmp_path / str(stop)) == whole
    spoil(monkeypatch, epoch=0, attempts=1)
    first, *_ = training(config)
    assert first.details["restarts"] == 1, "before any epoch is done, back to the initial weights"


def test_a_run_that_goes_on_diverging_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, epoch=1, attempts=9)
    with pytest.raises(FloatingPointError, match=r"epoch 2: train/loss is nan after 3 restarts"):
        list(training(train_config()))


def test_training_learns_a_language() -> None:
    """Words that count up: 11 words, so log 11 = 2.4 for one who knows nothing."""
    counting = Tokens((torch.arange(2000) % WORDS).int(), WORDS)
    config = train_config(epochs=4, lr=5.0, hidden=16, dropouts=NO_DROPOUT, clip=1.0)
    *_, last = train_text(config, GDAS, counting, counting.first(200), device=CPU)
    assert last.metrics["valid/loss"] < 0.5
    assert last.metrics["valid/perplexity"] == pytest.approx(math.exp(last.metrics["valid/loss"]))


def test_without_validation_the_last_weights_are_the_best() -> None:
    config = train_config(epochs=2)
    *_, last = train_text(config, CELL, random_text(400, 2), None, device=CPU)
    state: Any = last.state
    assert state["best_epoch"] == 2
    assert digest(state["best"]) == digest(dict(state["weights"]))


def test_a_batch_with_fewer_columns_than_workers_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gdas.rnn.train.workers", lambda: Workers(0, 5))
    with pytest.raises(InputError, match="batch_size=4: too few columns for 5 workers"):
        list(training(train_config()))
