"""Recurrent cells: sizes, files, and both kinds against loops written from the equations."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gdas.drawing.draw import draw_recurrent
from gdas.errors import InputError
from gdas.files import write_json
from gdas.genotype import load as load_genotype
from gdas.metrics import count_parameters
from gdas.randomness import generator
from gdas.rnn.cell import DerivedCell, SearchCell
from gdas.rnn.derive import derive_recurrent, edge_count
from gdas.rnn.genotype import (
    PUBLISHED_RECURRENT,
    RECURRENT_OPERATIONS,
    RecurrentGenotype,
    random_recurrent_genotype,
)
from gdas.rnn.language_model import LanguageModel
from gdas.rnn.supernet import RecurrentSupernet
from gdas.sampler import draw_operations
from tests.gdas.tiny_text import GDAS

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


@pytest.mark.parametrize("dead", [1, 2])
def test_gates_of_a_step_that_drew_none_alone_have_no_gradient_while_all_functions_run(
    dead: int,
) -> None:
    """Batch norm would multiply it by 316 at a sum of zeros, and again at every time step."""
    torch.manual_seed(0)  # of the weights
    cell = doubled(SearchCell(3, HIDDEN))
    x_TBN, s_BN, _, _ = inputs(masked=False)
    of_step = {1: [0], 2: [1, 2], 3: [3, 4, 5]}
    operations = [0 if edge in of_step[dead] else 1 + edge % 4 for edge in range(6)]
    gate_EK = torch.zeros(6, 5, dtype=torch.float64)
    gate_EK[range(6), operations] = 1.0
    gate_EK.requires_grad_()
    every = [(e, k) for e in range(6) for k in range(5)]
    outputs_TBN = cell(x_TBN, s_BN, every, gate_EK)
    (found_EK,) = gradients(outputs_TBN, [gate_EK])
    for step, edges in of_step.items():
        assert (found_EK[edges, 1:] == 0).all() == (step == dead)
    assert found_EK.abs().max() < 100
    assert_equal([outputs_TBN], [cell(x_TBN, s_BN, list(enumerate(operations)))])
