"""The sampler: what it draws, what its gradient is, what it refuses (paper Eq. 4-7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

import gdas.sampler
from gdas.architecture import draw_architecture
from gdas.config import SamplerConfig
from gdas.sampler import draw_operations, gumbel_noise, mix_operations
from gdas.schedule import temperature

TAUS = [10.0, 1.0, 0.1]

LOGITS = torch.tensor(
    [
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.5, -0.5, 1.0, -1.0, 0.2, 0.0, -0.2, 0.3],
        [2.0, 1.0, 0.0, -1.0, -1.5, 0.5, 0.0, -0.5],
    ]
)


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def chi_square(operations: Sequence[int], expected_K: Tensor) -> float:
    counts_K = torch.bincount(torch.tensor(operations), minlength=8).double()
    expected = expected_K.double() * len(operations)
    return float(((counts_K - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("tau", TAUS)
def test_drawn_frequencies_fit_softmax_of_the_logits_whatever_tau(tau: float) -> None:
    draws = 40_000
    total = 0.0
    for i, row_K in enumerate(LOGITS):
        drawn = draw_operations(row_K.expand(draws, 8), tau, generator=seeded(100 + i))
        total += chi_square(drawn.operations, torch.softmax(row_K, 0))
        if i and tau != 1.0:
            # The test has the power to see a temperature that leaks into the choice.
            assert chi_square(drawn.operations, torch.softmax(row_K / tau, 0)) > 1000
    # Three rows of 7 degrees of freedom: chi-square with 21 exceeds 69.0 with probability 5e-7.
    assert total < 69.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_equal_logits_are_drawn_equally_often_under_any_precision(dtype: torch.dtype) -> None:
    """In bfloat16 the first of eight would be drawn 6 % more often than the last."""
    draws, uniform = 400_000, torch.full((8,), 1 / 8)
    logits_EK = torch.zeros(draws, 8, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
        drawn = draw_operations(logits_EK, 10.0, generator=seeded(5))
    assert drawn.gate_EK.dtype == torch.float32
    # Chi-square with 7 degrees of freedom exceeds 43 with probability 3e-7: one false alarm in a
    # million runs of the three cases, were the seed not fixed.
    assert chi_square(drawn.operations, uniform) < 43.0
    # The test sees the bias of the usual way: the largest of a relaxed sample in bfloat16.
    noise_EK = gumbel_noise((draws, 8), generator=seeded(5)).bfloat16()
    usual = torch.softmax(noise_EK / 10.0, dim=1).argmax(1).tolist()
    assert chi_square(usual, uniform) > 100


@pytest.mark.parametrize("tau", TAUS)
def test_the_drawn_operation_is_the_largest_of_the_relaxed_sample(tau: float) -> None:
    logits_EK = torch.randn(5000, 8, generator=seeded(1))
    drawn = draw_operations(logits_EK, tau, generator=seeded(2))
    noise_EK = gumbel_noise((5000, 8), generator=seeded(2))
    assert drawn.operations == (logits_EK + noise_EK).argmax(1).tolist()
    again = draw_operations(logits_EK, 3 * tau, generator=seeded(2))
    assert again.operations == drawn.operations


@pytest.mark.parametrize("tau", TAUS)
def test_the_gate_is_exactly_one_hot_in_float32(tau: float) -> None:
    logits_EK = torch.randn(100_000, 8, generator=seeded(3)).requires_grad_()
    drawn = draw_operations(logits_EK, tau, generator=seeded(4))
    assert drawn.gate_EK.dtype == torch.float32
    assert drawn.gate_EK.requires_grad
    one_hot_EK = F.one_hot(torch.tensor(drawn.operations), 8).float()
    assert torch.equal(drawn.gate_EK, one_hot_EK)


@pytest.mark.parametrize("tau", TAUS)
def test_the_gates_gradient_is_that_of_the_relaxed_sample(tau: float) -> None:
    edges = 14
    logits_EK = torch.randn(edges, 8, generator=seeded(5), dtype=torch.float64)
    logits_EK.requires_grad_()
    g_E = torch.randn(edges, generator=seeded(6), dtype=torch.float64)
    drawn = draw_operations(logits_EK, tau, generator=seeded(7))
    k_E = torch.tensor(drawn.operations)
    (g_E * drawn.gate_EK[torch.arange(edges), k_E]).sum().backward()

    noise_EK = gumbel_noise((edges, 8), generator=seeded(7)).double()
    exponents_EK = torch.exp((logits_EK.detach() + noise_EK) / tau)
    soft_EK = exponents_EK / exponents_EK.sum(1, keepdim=True)
    expected_EK = torch.empty(edges, 8, dtype=torch.float64)
    for e in range(edges):
        k = drawn.operations[e]
        for j in range(8):
            delta = 1.0 if j == k else 0.0
            expected_EK[e, j] = g_E[e] / tau * soft_EK[e, k] * (delta - soft_EK[e, j])
    assert logits_EK.grad is not None
    if tau >= 1:  # at 0.1 the softmax saturates on some edges
        assert (expected_EK != 0).all(), "every logit of a drawn edge moves"
    torch.testing.assert_close(logits_EK.grad, expected_EK, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("tau", TAUS)
def test_a_soft_gate_is_the_relaxed_sample_itself(tau: float) -> None:
    logits_EK = torch.randn(14, 8, generator=seeded(10), dtype=torch.float64).requires_grad_()
    soft = draw_operations(logits_EK, tau, generator=seeded(11), soft=True)
    hard = draw_operations(logits_EK, tau, generator=seeded(11))
    noise_EK = gumbel_noise((14, 8), generator=seeded(11)).double()
    torch.testing.assert_close(
        soft.gate_EK.detach(), torch.softmax((logits_EK.detach() + noise_EK) / tau, 1)
    )
    assert soft.operations == hard.operations
    g_EK = torch.randn(14, 8, generator=seeded(12), dtype=torch.float64)
    gradients = [
        torch.autograd.grad((drawn.gate_EK * g_EK).sum(), logits_EK)[0] for drawn in (soft, hard)
    ]
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("tau", [0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(tau: float) -> None:
    with pytest.raises(ValueError, match="tau"):
        draw_operations(LOGITS, tau, generator=seeded(0))


@pytest.mark.parametrize("shape", [(8,), (2, 3, 8)])
def test_logits_that_are_no_matrix_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="edges x operations"):
        draw_operations(torch.zeros(shape), 1.0, generator=seeded(0))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    logits_EK = LOGITS.clone()
    logits_EK[1, 2] = value
    with pytest.raises(FloatingPointError, match="not finite"):
        draw_operations(logits_EK, 1.0, generator=seeded(0))


def test_a_sample_that_is_not_finite_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    good_EK = gumbel_noise((3, 8), generator=seeded(8))
    bad_EK = good_EK.clone()
    bad_EK[0, 0] = float("inf")
    draws = [bad_EK, bad_EK, good_EK]
    monkeypatch.setattr(gdas.sampler, "gumbel_noise", lambda shape, *, generator: draws.pop(0))
    drawn = draw_operations(LOGITS, 1.0, generator=seeded(0))
    assert draws == []
    assert drawn.operations == (LOGITS + good_EK).argmax(1).tolist()
    assert torch.isfinite(drawn.gate_EK).all()


def test_samples_that_never_become_finite_are_an_error_not_an_endless_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad_EK = torch.full((3, 8), float("inf"))
    monkeypatch.setattr(gdas.sampler, "gumbel_noise", lambda shape, *, generator: bad_EK)
    with pytest.raises(FloatingPointError, match="no finite sample"):
        draw_operations(LOGITS, 1.0, generator=seeded(0))


@pytest.mark.parametrize("u", [0.0, 1.0])
def test_noise_is_finite_at_the_ends_of_the_uniform_draw(
    monkeypatch: pytest.MonkeyPatch, u: float
) -> None:
    monkeypatch.setattr(torch, "rand", lambda shape, *, generator: torch.full(shape, u))
    assert torch.isfinite(gumbel_noise((2, 8), generator=seeded(0))).all()


def test_noise_is_standard_gumbel() -> None:
    noise = gumbel_noise((200_000,), generator=seeded(9)).double()
    # Mean 0.5772 and variance pi^2 / 6; tolerances of six standard errors, false alarms 4e-9.
    assert float(noise.mean()) == pytest.approx(0.57722, abs=6 * 1.2825 / 200_000**0.5)
    assert float(noise.var()) == pytest.approx(1.64493, abs=6 * 3.45 / 200_000**0.5)


@pytest.mark.parametrize(
    ("epoch", "reaching", "stopping_short"),
    [(0, 10.0, 10.0), (3, 7.0, 7.3), (5, 5.0, 5.5), (9, 1.0, 1.9)],
)
def test_temperature_falls_linearly_by_either_formula(
    epoch: int, reaching: float, stopping_short: float
) -> None:
    assert temperature(epoch, 10, 10.0, 1.0, reaches_end=True) == pytest.approx(reaching)
    assert temperature(epoch, 10, 10.0, 1.0, reaches_end=False) == pytest.approx(stopping_short)


@pytest.mark.parametrize("reaches_end", [True, False])
def test_a_single_epoch_has_the_first_temperature(reaches_end: bool) -> None:
    assert temperature(0, 1, 10.0, 0.1, reaches_end=reaches_end) == 10.0


def test_a_soft_architecture_runs_every_operation_of_every_edge() -> None:
    soft = draw_architecture(
        two_kinds(), CELL_TYPES, SamplerConfig(relaxation="soft"), 1.0, seeded(0)
    )
    everything = [(edge, k) for edge in range(14) for k in range(8)]
    assert soft.picks == [everything, everything, everything, [], everything]


def test_mixed_operations_are_weighed_by_softmax_without_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gdas.sampler, "gumbel_noise", lambda *_, **__: pytest.fail("noise"))
    logits_EK = torch.randn(14, 8, generator=seeded(20), dtype=torch.float64).requires_grad_()
    mixed = mix_operations(logits_EK)
    exponents_EK = torch.exp(logits_EK.detach())
    p_EK = exponents_EK / exponents_EK.sum(1, keepdim=True)
    torch.testing.assert_close(mixed.gate_EK.detach(), p_EK)
    assert mixed.operations == p_EK.argmax(1).tolist()
    g_EK = torch.randn(14, 8, generator=seeded(21), dtype=torch.float64)
    (mixed.gate_EK * g_EK).sum().backward()
    # d p_k / d a_j = p_k (delta_jk - p_j)
    expected_EK = p_EK * (g_EK - (p_EK * g_EK).sum(1, keepdim=True))
    torch.testing.assert_close(logits_EK.grad, expected_EK)
    with pytest.raises(ValueError, match="edges x operations"):
        mix_operations(torch.zeros(8))
    with pytest.raises(FloatingPointError, match="not finite"):
        mix_operations(torch.full((2, 8), float("nan")))


@pytest.mark.parametrize("scope", ["cell_instance", "cell_type"])
def test_a_mixed_architecture_runs_everything_whatever_temperature_and_draw(scope: Any) -> None:
    logits, config = two_kinds(), SamplerConfig(relaxation="softmax", scope=scope)
    cpu = torch.device("cpu")
    first, second = (
        draw_architecture(logits, CELL_TYPES, config, tau, seeded(seed), gate_device=cpu)
        for tau, seed in ((10.0, 0), (0.1, 1))
    )
    everything = [(edge, k) for edge in range(14) for k in range(8)]
    assert first.picks == [everything, everything, everything, [], everything]
    assert first.gates is not None and second.gates is not None
    for kind, one, other in zip(CELL_TYPES, first.gates, second.gates, strict=True):
        if one is None or other is None:
            assert kind == "fixed"
            continue
        assert torch.equal(one, other)
        torch.testing.assert_close(one, torch.softmax(logits[kind], 1))


CELL_TYPES = ["normal", "reduce", "normal", "fixed", "normal"]


def two_kinds() -> dict[str, Tensor]:
    return {
        kind: torch.randn(14, 8, generator=seeded(i)).requires_grad_()
        for i, kind in enumerate(["normal", "reduce"])
    }


def test_cells_of_a_type_share_a_draw_only_where_the_scope_says_so() -> None:
    logits = two_kinds()
    shared = draw_architecture(logits, CELL_TYPES, SamplerConfig(scope="cell_type"), 1.0, seeded(0))
    assert shared.picks[0] == shared.picks[2] == shared.picks[4] != shared.picks[1]
    own = draw_architecture(
        logits, CELL_TYPES, SamplerConfig(scope="cell_instance"), 1.0, seeded(0)
    )
    drawn = [tuple(own.picks[i]) for i in (0, 1, 2, 4)]
    assert len(set(drawn)) == 4
    for architecture in (shared, own):
        assert architecture.gates is None
        assert architecture.picks[3] == [], "a cell without logits is not drawn"
        for i in (0, 1, 2, 4):
            assert [edge for edge, _ in architecture.picks[i]] == list(range(14))


@pytest.mark.parametrize("scope", ["cell_instance", "cell_type"])
def test_gates_are_one_at_the_picks_and_their_gradients_add_up_over_cells(scope: str) -> None:
    logits = two_kinds()
    architecture = draw_architecture(
        logits,
        CELL_TYPES,
        SamplerConfig(scope=scope),  # type: ignore[arg-type]
        1.0,
        seeded(0),
        gate_device=torch.device("cpu"),
    )
    assert architecture.gates is not None
    assert architecture.gates[3] is None
    each: list[Tensor] = []
    for i in (0, 2, 4):
        gate_EK = architecture.gates[i]
        assert gate_EK is not None
        picked_E = torch.stack([gate_EK[edge, k] for edge, k in architecture.picks[i]])
        assert torch.equal(picked_E.detach(), torch.ones(14))
        (grad_EK,) = torch.autograd.grad(picked_E.sum(), logits["normal"], retain_graph=True)
        each.append(grad_EK)
    total = sum(
        gate_EK[edge, k]
        for gate_EK, picks in zip(architecture.gates, architecture.picks, strict=True)
        if gate_EK is not None
        for edge, k in picks
    )
    assert isinstance(total, Tensor)
    total.backward()
    assert logits["normal"].grad is not None
    torch.testing.assert_close(logits["normal"].grad, each[0] + each[1] + each[2])
    if scope == "cell_instance":
        assert not torch.equal(each[0], each[1])
