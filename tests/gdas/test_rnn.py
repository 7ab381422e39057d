"""Recurrent cells: the equations, the search and the training of language models."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from gdas.architecture import Architecture
from gdas.checkpoint import Segment, State, digest, load, save
from gdas.config import AlphaUpdate, SamplerConfig, WeightUpdate
from gdas.data.text import Tokens, batch_tokens, bptt_lengths
from gdas.distributed import Workers
from gdas.drawing.draw import draw_recurrent
from gdas.errors import InputError
from gdas.files import write_json
from gdas.genotype import load as load_genotype
from gdas.metrics import count_parameters
from gdas.randomness import generator
from gdas.rnn.cell import DerivedCell, SearchCell
from gdas.rnn.config import Dropouts, TextSearchConfig
from gdas.rnn.derive import derive_recurrent, edge_count
from gdas.rnn.genotype import (
    PUBLISHED_RECURRENT,
    RECURRENT_OPERATIONS,
    RecurrentGenotype,
    random_recurrent_genotype,
)
from gdas.rnn.language_model import LanguageModel
from gdas.rnn.regularisation import draw_masks, temporal_penalty
from gdas.rnn.space import TextSpace
from gdas.rnn.supernet import RecurrentSupernet
from gdas.rnn.train import (
    RunningMean,
    averaging_begins,
    build_language_model,
    evaluate,
    train_text,
)
from gdas.sampler import draw_operations
from gdas.search import search
from tests.gdas.tiny import CPU
from tests.gdas.tiny_text import CELL, WORDS, random_text, train_config, training
from tests.narrow import present

GDAS = PUBLISHED_RECURRENT["RNN_GDAS"]
NO_DROPOUT = Dropouts(output=0.0, hidden=0.0, input=0.0, embedded=0.0, word=0.0)

# Parameters


@pytest.mark.parametrize(
    ("name", "vocabulary", "hidden", "parameters"),
    [
        ("RNN_GDAS", 10_000, 850, 22_960_000),
        ("RNN_DARTS_V1", 10_000, 850, 22_960_000),
        ("RNN_DARTS_V2", 33_278, 700, 33_127_878),
        ("RNN_ENAS", 10_000, 850, 27_295_000),
        ("RNN_ENAS", 33_278, 700, 36_067_878),
    ],
)
def test_parameters_are_the_authors_to_the_last_digit(
    name: str, vocabulary: int, hidden: int, parameters: int
) -> None:
    with torch.device("meta"):
        model = LanguageModel(PUBLISHED_RECURRENT[name], vocabulary, hidden)
    assert count_parameters(model) == parameters


def test_supernet_weights_and_logits_are_the_authors() -> None:
    with torch.device("meta"):
        supernet = RecurrentSupernet(10_000)
    assert count_parameters(supernet) == 4_810_000
    logits = supernet.initial_logits(generator(0, "logits"))
    assert {kind: tuple(a.shape) for kind, a in logits.items()} == {"recurrent": (36, 5)}
    assert 0.8e-3 < float(logits["recurrent"].detach().std()) < 1.2e-3


# Genotypes


def test_the_published_cell_is_the_papers() -> None:
    assert GDAS.recurrent == (
        *(("relu", 0), ("relu", 0), ("identity", 1), ("relu", 1)),
        *(("tanh", 0), ("relu", 2), ("identity", 4), ("identity", 2)),
    )
    assert GDAS.concat == (1, 2, 3, 4, 5, 6, 7, 8)


@pytest.mark.parametrize(
    "genotype",
    [*PUBLISHED_RECURRENT.values(), random_recurrent_genotype(3, steps=5)],
    ids=lambda g: g.name,
)
def test_a_recurrent_genotype_survives_its_json_file(
    genotype: RecurrentGenotype, tmp_path: Path
) -> None:
    path = tmp_path / "cell.json"
    write_json(path, genotype.to_json())
    assert load_genotype(path) == genotype


def changed(**changes: Any) -> dict[str, Any]:
    return GDAS.to_json() | changes


MALFORMED: dict[str, tuple[object, str]] = {
    "unknown function": (changed(recurrent=[["relu6", 0]]), "step 1: unknown function 'relu6'"),
    "function of images": (changed(recurrent=[["skip_connect", 0]]), "skip_connect"),
    "predecessor that comes later": (changed(recurrent=[["relu", 1]]), "predecessor 1"),
    "negative predecessor": (changed(recurrent=[["relu", -1]]), "predecessor -1"),
    "predecessor that is a truth value": (changed(recurrent=[["relu", False]]), "False"),
    "pair of three": (changed(recurrent=[["relu", 0, 0]]), "edge 0"),
    "no steps": (changed(recurrent=[]), "no steps"),
    "steps that are no list": (changed(recurrent="relu"), "list"),
    "concat past the last state": (changed(concat=[9]), "state 9"),
    "concat twice": (changed(concat=[1, 1]), "state 1"),
    "concat that is empty": (changed(concat=[]), "concat"),
    "concat of text": (changed(concat=["1"]), "concat"),
    "concat of a truth value": (changed(concat=[True]), "concat"),
    "unknown key": (changed(normal=[]), "normal"),
    "name that is a number": (changed(name=3), "name"),
    "wrong format": (changed(format="gdas-recurrent-genotype/2"), "gdas-recurrent-genotype/2"),
}


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case)
def test_a_malformed_recurrent_genotype_is_refused_by_name(case: str, tmp_path: Path) -> None:
    value, named = MALFORMED[case]
    path = tmp_path / "cell.json"
    write_json(path, value)
    with pytest.raises(InputError) as error:
        load_genotype(path)
    assert named in str(error.value)
    assert "cell.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_random_cells_differ_and_hold_no_none() -> None:
    cells = [random_recurrent_genotype(seed) for seed in range(50)]
    assert len({cell.recurrent for cell in cells}) == 50
    used = {function for cell in cells for function, _ in cell.recurrent}
    assert used == set(RECURRENT_OPERATIONS) - {"none"}


def test_a_drawing_is_written(tmp_path: Path) -> None:
    for genotype in (GDAS, RecurrentGenotype("one", (("tanh", 0),))):
        draw_recurrent(genotype, tmp_path / "cell.png")
        assert (tmp_path / "cell.png").read_bytes().startswith(b"\x89PNG")


# Derivation


def test_a_step_keeps_its_most_probable_function_of_all_predecessors() -> None:
    logits_EK = torch.zeros(edge_count(3), 5)
    logits_EK[0, 3] = 1.0  # step 1
    logits_EK[1, 1], logits_EK[2, 4] = 1.0, 2.0  # step 2: predecessor 1
    logits_EK[3, 2], logits_EK[4, 0], logits_EK[5, 1] = 1.0, 5.0, 0.5  # step 3: `none` is loud
    derived = derive_recurrent(logits_EK, steps=3)
    assert derived.edges == (("sigmoid", 0), ("identity", 1), ("relu", 0))
    assert derived.margins[0] == pytest.approx((math.e - 1) / (math.e + 4))
    assert derive_recurrent(logits_EK, steps=3, exclude_none=False).edges[2] == ("none", 1)
    undecided = derive_recurrent(torch.zeros(36, 5))
    assert undecided.edges == (("tanh", 0),) * 8
    assert undecided.entropy == pytest.approx(1.0)


# Cells against loops written from the equations

STEPS, BATCH, HIDDEN, TIME = 4, 3, 5, 4
F: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda h: h * 0,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda h: h,
}


def doubled(module: nn.Module) -> nn.Module:
    """In double precision, with weights that leave the linear range."""
    module.double()
    for p in module.parameters():
        p.data.mul_(30)
    return module


def inputs(*, masked: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    g = generator(0, "inputs")
    x_TBN = torch.randn(TIME, BATCH, HIDDEN, generator=g).double().requires_grad_()
    s_BN = torch.randn(BATCH, HIDDEN, generator=g).double().requires_grad_()
    if not masked:
        return x_TBN, s_BN, None, None
    masks = [(torch.rand(BATCH, HIDDEN, generator=g) < 0.7).double() / 0.7 for _ in range(2)]
    return x_TBN, s_BN, masks[0], masks[1]


def plain_input_state(cell: Any, x: Tensor, h: Tensor, mx: Any, mh: Any) -> Tensor:
    both = torch.cat([x * mx, h * mh], dim=1)
    c = torch.sigmoid(both @ cell.input_weight[:, :HIDDEN])
    return h + c * (torch.tanh(both @ cell.input_weight[:, HIDDEN:]) - h)


def plain_step(s: Tensor, mh: Any, w: Tensor, function: str) -> Tensor:
    c = torch.sigmoid((s * mh) @ w[:, :HIDDEN])
    return s + c * (F[function]((s * mh) @ w[:, HIDDEN:]) - s)


def plain_derived(cell: DerivedCell, x_TBN: Tensor, h: Tensor, mx: Any, mh: Any) -> Tensor:
    outputs = []
    for x in x_TBN:
        states = [plain_input_state(cell, x, h, mx, mh)]
        for (function, p), w in zip(cell.genotype.recurrent, cell.step_weights, strict=True):
            states.append(plain_step(states[p], mh, w, function))
        h = torch.stack([states[i] for i in cell.genotype.concat]).mean(0)
        outputs.append(h)
    return torch.stack(outputs)


def plain_norm(s: Tensor) -> Tensor:
    return (s - s.mean(0)) / (s.var(0, unbiased=False) + 1e-5).sqrt()


def plain_search(
    cell: SearchCell, x_TBN: Tensor, h: Tensor, picks: Any, factor_EK: Tensor, mx: Any, mh: Any
) -> Tensor:
    """Every edge and its picked functions, each with its factor."""
    outputs = []
    for x in x_TBN:
        states = [plain_norm(plain_input_state(cell, x, h, mx, mh))]
        edge = 0
        for i, w in enumerate(cell.step_weights):
            total = torch.zeros_like(h)
            for p in range(i + 1):
                for k, function in enumerate(RECURRENT_OPERATIONS):
                    # An operation that was not drawn has no part in the logits' gradient.
                    if function != "none" and (edge, k) in picks:
                        new = plain_step(states[p], mh, w, function)
                        total = total + factor_EK[edge, k] * new
                edge += 1
            states.append(plain_norm(total))
        h = torch.stack(states[1:]).mean(0)
        outputs.append(h)
    return torch.stack(outputs)


def gradients(outputs_TBN: Tensor, of: list[Tensor]) -> list[Tensor]:
    g = generator(0, "directions")
    direction = torch.randn(outputs_TBN.shape, generator=g).double()
    found = torch.autograd.grad(
        (outputs_TBN * direction).sum(), of, retain_graph=True, allow_unused=True
    )
    return [torch.zeros_like(p) if d is None else d for p, d in zip(of, found, strict=True)]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


DERIVED = [
    GDAS,
    PUBLISHED_RECURRENT["RNN_ENAS"],
    random_recurrent_genotype(1, steps=6),
    RecurrentGenotype("decay", (("none", 0), ("sigmoid", 1), ("none", 1)), (0, 2, 3)),
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("genotype", DERIVED, ids=lambda g: g.name)
def test_the_derived_cell_follows_the_equations(genotype: RecurrentGenotype, masked: bool) -> None:
    cell = doubled(DerivedCell(genotype, HIDDEN))
    assert isinstance(cell, DerivedCell)
    x_TBN, s_BN, mx, mh = inputs(masked=masked)
    of = [x_TBN, s_BN, *cell.parameters()]
    found = cell(x_TBN, s_BN, mx, mh)
    expected = plain_derived(cell, x_TBN, s_BN, 1 if mx is None else mx, 1 if mh is None else mh)
    assert_equal([found], [expected])
    assert_equal(gradients(found, of), gradients(expected, of))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["hard", "hard with gate", "soft", "some"])
@pytest.mark.parametrize("seed", range(3))
def test_the_search_cell_follows_the_equations(kind: str, seed: int, masked: bool) -> None:
    cell = doubled(SearchCell(STEPS, HIDDEN))
    assert isinstance(cell, SearchCell)
    x_TBN, s_BN, mx, mh = inputs(masked=masked)
    logits_EK = torch.zeros(cell.edges, 5, dtype=torch.float64, requires_grad=True)
    draw = draw_operations(
        logits_EK, 1.0, generator=generator(seed, "draw"), soft=kind in ("soft", "some")
    )
    picks = list(enumerate(draw.operations))
    if kind == "soft":
        picks = [(e, k) for e in range(cell.edges) for k in range(5)]
    if kind == "some":  # no draw gives this; a caller may
        picks = [(e, k) for e in range(cell.edges) for k in range(5) if (e * k + seed) % 3]
    of = [x_TBN, s_BN, *cell.parameters()] + ([logits_EK] if kind != "hard" else [])
    gate_EK = None if kind == "hard" else draw.gate_EK
    found = cell(x_TBN, s_BN, picks, gate_EK, mx, mh)
    expected = plain_search(
        cell, x_TBN, s_BN, picks, draw.gate_EK, 1 if mx is None else mx, 1 if mh is None else mh
    )
    assert_equal([found], [expected])
    # A batch of three leaves tiny variances, so gradients are large: compare them relatively.
    for a, b in zip(gradients(found, of), gradients(expected, of), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 * max(1.0, float(b.abs().max())))


def test_drawn_none_alone_leaves_a_normalised_nothing() -> None:
    cell = SearchCell(2, HIDDEN)
    x_TBN, s_BN, _, _ = inputs(masked=False)
    outputs_TBN = cell(x_TBN.float(), s_BN.float(), [(0, 0), (1, 0), (2, 0)])
    assert float(outputs_TBN.detach().abs().max()) == 0.0


def test_evaluation_normalises_with_running_statistics() -> None:
    cell = SearchCell(2, HIDDEN)
    x_TBN, s_BN, _, _ = (None if v is None else v.detach().float() for v in inputs(masked=False))
    picks = [(0, 1), (1, 2), (2, 4)]
    assert cell.norm.running_var is not None
    before = cell.norm.running_var.clone()
    cell(x_TBN, s_BN, picks)
    assert not torch.equal(before, cell.norm.running_var)
    cell.eval()
    together = cell(x_TBN, s_BN, picks)
    assert x_TBN is not None and s_BN is not None
    torch.testing.assert_close(together[:, :1], cell(x_TBN[:, :1], s_BN[:1], picks))


def test_a_lone_gate_has_next_to_no_gradient_where_others_have_one() -> None:
    """Batch norm takes the scale away; known, and stated where the cell is defined."""
    torch.manual_seed(0)  # of the weights
    cell = doubled(SearchCell(2, HIDDEN))
    x_TBN, s_BN, _, _ = inputs(masked=False)
    gate_EK = torch.ones(3, 5, dtype=torch.float64, requires_grad=True)
    outputs_TBN = cell(x_TBN, s_BN, [(0, 1), (1, 1), (2, 2)], gate_EK)
    (found_EK,) = gradients(outputs_TBN, [gate_EK])
    alone, together = abs(float(found_EK[0, 1])), found_EK[1:].abs().max()
    assert 0 < alone < 0.01 * float(together)


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


def seen(segment: Segment) -> tuple[object, ...]:
    return segment.position, segment.metrics, segment.details, digest(segment.state)


def interrupted(start: Any, stop: int, folder: Path) -> list[tuple[object, ...]]:
    """Run to the end of epoch `stop`, through a checkpoint, and on from there in a fresh run."""
    passed = []
    for segment in start(None):
        passed.append(seen(segment))
        save(folder, segment, [])
        if segment.position == stop:
            break
    state = load(folder / f"{stop:06d}").state
    return passed + [seen(segment) for segment in start(state)]


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


def test_a_search_finds_the_function_that_speaks_the_language() -> None:
    """The network knows the language's other weights.

    Chance finds it in one of four: in nine or more of ten seeds with a probability of 3e-5.
    """
    teacher = RecurrentSupernet(TOY_WORDS, hidden=8, steps=1)
    g = generator(1, "teacher")
    with torch.no_grad():
        for p in teacher.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
        teacher.words.bias_V.zero_()
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
