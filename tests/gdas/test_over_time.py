"""Matrices of many time steps: autograd's gradients, from one product for each matrix."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gdas.randomness import generator
from gdas.rnn.over_time import over_time, times

T, B, N = 7, 4, 5


class Products(TorchDispatchMode):
    """Counts products of two matrices by the rows of the first."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.counted: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.mm.default:
            self.counted[len(args[0])] += 1
        return func(*args, **(kwargs or {}))


def sequence(
    *, at_once: bool, products: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """A little recurrence that ends in a loss: its loss, first state and matrix."""
    draw, dtype = generator(0, "over time"), torch.float64
    w_NN = torch.randn(N, N, generator=draw, dtype=dtype).requires_grad_()
    first_BN = torch.randn(B, N, generator=draw, dtype=dtype).requires_grad_()
    matrix, s_BN, total = (
        over_time(w_NN, products, at_once=at_once),
        first_BN,
        torch.zeros((), dtype=dtype),
    )
    for _ in range(T):
        both_2BN = torch.stack([s_BN, s_BN.sin()])
        s_BN = torch.tanh(times(both_2BN, matrix)).to(dtype).sum(0)
        total = total + s_BN.square().sum()
    return total, first_BN, w_NN


def test_gradients_are_autograds() -> None:
    found = []
    for at_once in (True, False):
        loss, first_BN, w_NN = sequence(at_once=at_once)
        loss.backward()
        assert first_BN.grad is not None and w_NN.grad is not None
        found.append((loss.detach(), first_BN.grad, w_NN.grad))
    for ours, autograds in zip(*found, strict=True):
        torch.testing.assert_close(ours, autograds, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_matrix_gets_its_gradient_from_one_product(at_once: bool) -> None:
    loss, *_ = sequence(at_once=at_once)
    with Products() as products:
        loss.backward()
    # Of N rows: the matrix's gradients, from all time steps or from each.
    assert products.counted == {N: 1 if at_once else T, 2 * B: T}


def test_sequences_that_are_taken_together_share_nothing() -> None:
    """As when a loss is summed over two sequences, or goes back twice."""
    (one, _, w_NN), (other, _, v_NN) = sequence(at_once=True), sequence(at_once=True)
    (one + other).backward(retain_graph=True)
    assert w_NN.grad is not None and v_NN.grad is not None
    torch.testing.assert_close(w_NN.grad, v_NN.grad)
    once = w_NN.grad.clone()
    one.backward()
    torch.testing.assert_close(w_NN.grad, 2 * once)


def gradient(*, at_once: bool, products: torch.dtype = torch.float64) -> Tensor:
    loss, _, w_NN = sequence(at_once=at_once, products=products)
    loss.backward()
    assert w_NN.grad is not None and w_NN.grad.dtype == torch.float64
    return w_NN.grad


def test_products_may_be_of_a_smaller_type_than_the_matrix() -> None:
    """Adding up in one product rounds no worse than adding up rounded ones."""
    exact = gradient(at_once=True)
    ours, autograds = (
        (gradient(at_once=at_once, products=torch.bfloat16) - exact).norm() / exact.norm()
        for at_once in (True, False)
    )
    assert 0 < ours < 0.02
    assert ours < 1.5 * autograds


def test_nothing_is_kept_where_nothing_goes_back() -> None:
    w_NN = torch.ones(N, N)
    assert over_time(w_NN, torch.float32).kept is None
    w_NN.requires_grad_()
    with torch.no_grad():
        assert over_time(w_NN, torch.float32).kept is None
    matrix = over_time(w_NN, torch.float32)
    (gradient,) = torch.autograd.grad(matrix.weight_NM.sum(), w_NN, allow_unused=True)
    assert gradient is None
