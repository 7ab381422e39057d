"""The search for recurrent cells: dropout, hidden states, losses, batches, resume."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gdas.architecture import Architecture
from gdas.checkpoint import Segment, State, digest, load, save
from gdas.config import AlphaUpdate, SamplerConfig, WeightUpdate
from gdas.data.text import Tokens
from gdas.errors import InputError
from gdas.randomness import generator
from gdas.rnn.config import Dropouts, TextSearchConfig
from gdas.rnn.genotype import (
    RECURRENT_OPERATIONS,
    RecurrentGenotype,
)
from gdas.rnn.language_model import LanguageModel
from gdas.rnn.regularisation import draw_masks, temporal_penalty
from gdas.rnn.space import TextSpace, score_with_shared_weights
from gdas.rnn.supernet import RecurrentSupernet
from gdas.search import search
from tests.gdas.tiny import CPU
from tests.gdas.tiny_text import (
    GDAS,
    NO_DROPOUT,
    WORDS,
    random_text,
    seen,
)

# Regularisation


def test_masks_are_drawn_once_a_sequence_and_shared_over_time() -> None:
    dropouts = Dropouts(output=0.5, hidden=0.4, input=0.3, embedded=0.2, word=0.1)

    def draw(*where: int) -> Any:
        return draw_masks(
            dropouts,
            vocabulary=10_000,
            batch=20,
            hidden=500,
            generator=generator(0, "dropout", *where),
            device=CPU,
        )

    masks = draw(1, 2)
    for mask, p in zip(masks, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True):
        kept = mask > 0
        assert torch.equal(mask[kept], torch.full_like(mask[kept], 1 / (1 - p)))
        # 10,000 draws each: within 5 standard deviations but once in 1.7 million times.
        assert abs(float(kept.float().mean()) - (1 - p)) < 5 * (p * (1 - p) / mask.numel()) ** 0.5
    assert masks.word_V.shape == (10_000,)
    assert masks.output_BN.shape == (20, 500)
    assert digest(list(draw(1, 2))) == digest(list(masks)) != digest(list(draw(1, 3)))

    # The same word at all times, no state, no recurrence: what is dropped once is dropped always.
    model = LanguageModel(RecurrentGenotype("one", (("tanh", 0),)), 7, 6)
    model.cell.input_weight.data[6:] = 0
    masks = draw_masks(
        dropouts, vocabulary=7, batch=2, hidden=6, generator=generator(1, "dropout"), device=CPU
    )
    assert masks.word_V is not None
    assert masks.embedded_BN is not None
    assert masks.output_BN is not None
    words_TB = torch.tensor([[3, 4]] * 5)
    x_TBN = model.words.embed(words_TB, masks)
    assert torch.equal(x_TBN, x_TBN[:1].expand_as(x_TBN))
    expected = model.words.weight_VN[[3, 4]] * masks.word_V[[3, 4], None] * masks.embedded_BN
    torch.testing.assert_close(x_TBN[0], expected)
    outputs_TBN = torch.ones(5, 2, 6)
    torch.testing.assert_close(
        model.words.score(outputs_TBN, masks),
        (outputs_TBN * masks.output_BN) @ model.words.weight_VN.T,
    )


def test_nothing_is_dropped_where_nothing_is_asked_for() -> None:
    masks = draw_masks(
        NO_DROPOUT, vocabulary=5, batch=2, hidden=3, generator=generator(0, "x"), device=CPU
    )
    assert set(masks) == {None}


def test_the_temporal_penalty_is_the_mean_square_of_changes() -> None:
    outputs_TBN = torch.tensor([[[1.0, 2.0]], [[3.0, 2.0]], [[3.0, 5.0]]])
    assert float(temporal_penalty(outputs_TBN)) == pytest.approx((4 + 0 + 0 + 9) / 4)
    assert float(temporal_penalty(outputs_TBN[:1])) == 0.0


def test_every_word_learns_from_the_input() -> None:
    """The authors' look-up leaves the last word out."""
    model = LanguageModel(GDAS, 6, 4)
    x_TBN = model.words.embed(torch.tensor([[5]]), draw_no_masks())
    x_TBN.sum().backward()
    assert model.words.weight_VN.grad is not None
    assert float(model.words.weight_VN.grad[5].abs().sum()) > 0


def draw_no_masks() -> Any:
    return draw_masks(
        NO_DROPOUT, vocabulary=1, batch=1, hidden=1, generator=generator(0, "x"), device=CPU
    )


# Search


def search_config(**changes: Any) -> TextSearchConfig:
    config = TextSearchConfig(
        epochs=3,
        batch_size=4,
        bptt=5,
        hidden=6,
        steps=3,
        dropouts=Dropouts(output=0.2, hidden=0.1, input=0.2, embedded=0.1, word=0.1),
        weights=WeightUpdate(lr=1.0, lr_min=1.0, momentum=0.0, clip=0.25),
        alpha=AlphaUpdate(lr=0.05, betas=(0.9, 0.999)),
    )
    return dataclasses.replace(config, **changes)


def space_of(config: TextSearchConfig) -> TextSpace:
    return TextSpace(config, random_text(4 * 18, 0), random_text(4 * 12, 1), CPU)


def everything(space: TextSpace, *, gates: bool) -> Architecture:
    picks = [(e, 1) for e in range(space.supernet.cell.edges)]
    gate = torch.ones(len(picks), 5) if gates else None
    return Architecture([picks], [gate] if gates else None)


def value(loss: Tensor | None) -> float:
    assert loss is not None
    return float(loss.detach())


def test_hidden_states_are_two_start_at_zero_and_are_carried_detached() -> None:
    config = search_config(dropouts=NO_DROPOUT)
    space = space_of(config)
    plain = everything(space, gates=False)

    def scores(text_TB: Tensor, start: int, length: int, hidden: Tensor) -> tuple[float, Tensor]:
        """Mean cross entropy and the last state, apart from the space."""
        score, _, last = space.supernet(text_TB[start : start + length], hidden, plain.picks[0])
        targets = text_TB[start + 1 : start + 1 + length]
        loss = nn.functional.cross_entropy(score.flatten(0, 1), targets.flatten())
        return value(loss), last.detach()

    zero = torch.zeros(4, 6)
    lengths = space.lengths(0)
    first, after = scores(space.train_TB, 0, lengths[0], zero)
    alpha_first, alpha_after = scores(space.valid_TB, 0, 5, zero)
    second, _ = scores(space.train_TB, lengths[0], lengths[1], after)
    alpha_second, _ = scores(space.valid_TB, 5, 5, alpha_after)
    for _ in range(2):  # an epoch, and the next one from zero again
        batch = space.weight_loss(plain, 0, 0)
        alpha = space.alpha_loss(plain, 0, 0)
        assert value(batch.reported) == pytest.approx(first)
        assert value(alpha.loss) == pytest.approx(alpha_first)
        batch.loss.backward()
        again = space.weight_loss(plain, 0, 1)
        assert value(again.reported) == pytest.approx(second)
        assert value(space.alpha_loss(plain, 0, 1).loss) == pytest.approx(alpha_second)
        again.loss.backward()  # fails where the first step's graph is still attached
        assert batch.samples == lengths[0] * 4 and batch.correct is None
        assert value(batch.loss) > value(batch.reported)


def test_the_logits_batches_go_round_the_validation_text() -> None:
    """11 targets a column and sequences of 5: two places, then the first one again."""
    space = space_of(search_config(dropouts=NO_DROPOUT))
    seen: list[Tensor] = []
    embed = space.supernet.words.embed

    def watch(tokens_TB: Tensor, masks: Any) -> Tensor:
        seen.append(tokens_TB)
        return embed(tokens_TB, masks)

    space.supernet.words.embed = watch  # type: ignore[method-assign]
    for step in range(3):
        space.alpha_loss(everything(space, gates=True), 0, step)
    places = [0, 5, 0]
    for tokens_TB, start in zip(seen, places, strict=True):
        assert torch.equal(tokens_TB, space.valid_TB[start : start + 5])


@pytest.mark.parametrize("stream", ["weights", "alpha"])
def test_both_losses_have_their_own_masks_and_w_alone_the_temporal_penalty(stream: str) -> None:
    config = search_config(temporal=0.5)
    space = space_of(config)
    plain = everything(space, gates=stream == "alpha")
    masks = draw_masks(
        config.dropouts,
        vocabulary=WORDS,
        batch=4,
        hidden=6,
        generator=generator(0, f"dropout of {stream}", 2, 0),
        device=CPU,
    )
    assert None not in masks
    text_TB = space.train_TB if stream == "weights" else space.valid_TB
    length = space.lengths(2)[0] if stream == "weights" else 5
    net = space.supernet
    x_TBN = net.words.embed(text_TB[:length], masks)
    outputs_TBN = net.cell(
        x_TBN, torch.zeros(4, 6), plain.picks[0], None, masks.input_BN, masks.hidden_BN
    )
    scores_TBV = net.words.score(outputs_TBN, masks)
    entropy = nn.functional.cross_entropy(
        scores_TBV.flatten(0, 1), text_TB[1 : length + 1].flatten()
    )
    batch = (space.weight_loss if stream == "weights" else space.alpha_loss)(plain, 2, 0)
    assert value(batch.reported) == pytest.approx(value(entropy))
    penalty = 0.5 * value(temporal_penalty(outputs_TBN)) if stream == "weights" else 0.0
    assert value(batch.loss) == pytest.approx(value(entropy) + penalty)


def test_the_rate_follows_the_lengths() -> None:
    space = space_of(search_config())
    for epoch in range(20):
        lengths = space.lengths(epoch)
        assert sum(lengths) == 17
        assert space.steps(epoch) == len(lengths)
        assert [space.lr_scale(epoch, i) * 5 for i in range(len(lengths))] == pytest.approx(lengths)


def test_texts_are_cut_to_the_settings_and_too_short_ones_are_refused() -> None:
    space = space_of(search_config(train_tokens=40, valid_tokens=32))
    assert (space.train_TB.shape, space.valid_TB.shape) == ((10, 4), (8, 4))
    with pytest.raises(InputError, match="valid_tokens=100"):
        space_of(search_config(valid_tokens=100))
    with pytest.raises(InputError, match="batch of 40"):
        space_of(search_config(batch_size=40))


@pytest.mark.parametrize("order", ["weights_first", "alpha_first"])
@pytest.mark.parametrize("relaxation", ["hard", "soft", "softmax"])
def test_an_interrupted_search_ends_as_one_left_alone(
    order: Any, relaxation: Any, tmp_path: Path
) -> None:
    config = search_config(order=order, sampler=SamplerConfig(relaxation=relaxation))

    def start(checkpoint: State | None) -> Iterator[Segment]:
        return search(config, space_of(config), checkpoint=checkpoint)

    whole = []
    for last in start(None):
        whole.append(seen(last))
        if last.position == 1:
            save(tmp_path, last, [])
    # Stopped after the first epoch, and what went on from there stopped after the second.
    for stop in (1, 2):
        passed = whole[:stop]
        for segment in start(load(tmp_path / f"{stop:06d}").state):
            passed.append(seen(segment))
            if segment.position == 2:
                save(tmp_path, segment, [])
        assert passed == whole
    other = dataclasses.replace(config, seed=1)
    assert seen(next(search(other, space_of(other))))[3] != whole[0][3]
    assert {"recurrent/entropy", "recurrent/mean_margin", "valid/perplexity"} <= set(last.metrics)
    assert len(last.details["genotype"]["recurrent"]) == 3


TOY_WORDS, TOY_BATCH, TOY_TIME = 12, 16, 5


def toy_language(function: str, net: RecurrentSupernet, windows: int, seed: int) -> Tokens:
    """What a fixed network with one step and this function says, its likeliest word each time."""
    picks = [(0, RECURRENT_OPERATIONS.index(function))]
    words_TB = [torch.randint(TOY_WORDS, (TOY_BATCH,), generator=generator(seed, "first words"))]
    hidden_BN = net.initial_hidden(TOY_BATCH)
    with torch.no_grad():
        for _ in range(windows * TOY_TIME):
            scores, _, hidden_BN = net(words_TB[-1][None], hidden_BN, picks)
            words_TB.append(scores[0].argmax(-1))
    return Tokens(torch.stack(words_TB).t().flatten().int(), TOY_WORDS)


def toy_teacher() -> RecurrentSupernet:
    """A network with one step and large weights."""
    teacher = RecurrentSupernet(TOY_WORDS, hidden=8, steps=1)
    g = generator(1, "teacher")
    with torch.no_grad():
        for p in teacher.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
        teacher.words.bias_V.zero_()
    return teacher


@pytest.mark.parametrize("function", RECURRENT_OPERATIONS[1:])
def test_shared_weights_score_the_function_that_speaks_the_language_best(function: str) -> None:
    teacher = toy_teacher()
    text = toy_language(function, teacher, 3, seed=7)
    config = TextSearchConfig(
        batch_size=TOY_BATCH, bptt=TOY_TIME, hidden=8, steps=1, dropouts=Dropouts()
    )
    state = {"weights": teacher.state_dict()}
    cells = [RecurrentGenotype(name, ((name, 0),)) for name in RECURRENT_OPERATIONS[1:]]
    scores = score_with_shared_weights(config, text, text, state, cells, CPU)
    assert cells[scores.index(min(scores))].name == function
    again = score_with_shared_weights(config, text, text, state, cells[::-1], CPU)
    assert again == scores[::-1], "whatever was scored before"


def test_a_score_is_the_loss_of_an_alpha_step_without_dropout() -> None:
    config, texts = search_config(dropouts=NO_DROPOUT), (random_text(72, 0), random_text(44, 1))
    space = TextSpace(config, *texts, CPU)
    cell = RecurrentGenotype("a", (("tanh", 0), ("relu", 1), ("identity", 0)))
    picks = [(0, 1), (2, 2), (3, 4)]  # row 1 + 1 of step 2, the first of step 3
    assert len(space.valid_TB) - 1 == 2 * config.bptt
    first, second = (
        value(space.alpha_loss(Architecture([picks], None), 0, step).loss) for step in (0, 1)
    )
    state = {"weights": space.weights.state_dict()}
    (score,) = score_with_shared_weights(config, *texts, state, [cell], CPU)
    assert score == pytest.approx((first + second) / 2, rel=1e-5) and first != second


def test_a_cell_of_other_steps_has_no_score() -> None:
    config = search_config()
    state = {"weights": space_of(config).weights.state_dict()}
    one = RecurrentGenotype("a", (("tanh", 0),))
    with pytest.raises(InputError, match=r"steps=3: the cell a has 1; score it"):
        score_with_shared_weights(config, random_text(72, 0), random_text(44, 1), state, [one], CPU)


def test_a_search_finds_the_function_that_speaks_the_language() -> None:
    """The network knows the language's other weights.

    Chance finds it in one of four: in nine or more of ten seeds with a probability of 3e-5.
    """
    teacher = toy_teacher()
    train = toy_language("sigmoid", teacher, 4, seed=100)
    valid = toy_language("sigmoid", teacher, 1, seed=7)
    found = []
    for seed in range(10):
        config = TextSearchConfig(
            seed=seed,
            epochs=10,
            batch_size=TOY_BATCH,
            bptt=TOY_TIME,
            hidden=8,
            steps=1,
            dropouts=NO_DROPOUT,
            weights=WeightUpdate(lr=0.01, lr_min=0.01, momentum=0.0, weight_decay=0.0, clip=0.25),
            alpha=AlphaUpdate(lr=0.2, betas=(0.9, 0.999)),
            sampler=SamplerConfig(tau_start=1.0, tau_end=1.0, relaxation="soft"),
        )
        space = TextSpace(config, train, valid, CPU)
        space.weights.load_state_dict(teacher.state_dict())
        *_, last = search(config, space)
        found.append(last.details["genotype"]["recurrent"][0][0])
    assert found.count("sigmoid") >= 9, found
