"""`alpha.risk_seeking`: a search for the best network and not for the best mean.

A toy space of two edges with two operations each, whose networks' losses are a table. On the first
edge `safe` has the better mean, but the best network has `pair` on both edges.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from gdas.architecture import Architecture
from gdas.cnn.config import SearchConfig
from gdas.config import AlphaUpdate, SamplerConfig
from gdas.metrics import BatchLoss
from gdas.sampler import Pick
from gdas.search import SearchSteps, search

SAFE, PAIR = 0, 1
LOSS_KK = torch.tensor([[1.0, 1.0], [3.0, 0.2]])
"""By the operations of the two edges; on the first, the means of the two are 1.0 and 1.6."""
ONE = torch.ones(())


class TableSpace:
    """Implements gdas.search.SearchSpace; the loss does not depend on W."""

    def __init__(self) -> None:
        self.weights: nn.Module = nn.Linear(1, 1, bias=False)
        self.cell_types: Sequence[str] = ["normal"]
        self.device = torch.device("cpu")

    def steps(self, epoch: int) -> int:
        return 100

    def lr_scale(self, epoch: int, step: int) -> float:
        return 1.0

    def initial_logits(self, generator: Generator) -> dict[str, Tensor]:
        return {"normal": torch.zeros(2, 2, requires_grad=True)}

    def weight_loss(self, architecture: Architecture, epoch: int, step: int) -> BatchLoss:
        return BatchLoss(loss=self.weights(torch.ones(1)).square().sum(), samples=1, correct=ONE)

    def alpha_loss(self, architecture: Architecture, epoch: int, step: int) -> BatchLoss:
        assert architecture.gates is not None
        gate_EK = architecture.gates[0]
        assert gate_EK is not None
        return BatchLoss(loss=gate_EK[0] @ LOSS_KK @ gate_EK[1], samples=1, correct=ONE)

    def drawn_parameters(self, picks: Sequence[Sequence[Pick]]) -> Iterable[nn.Parameter]:
        return []

    def derived(self, logits: dict[str, Tensor]) -> tuple[dict[str, float], dict[str, Any]]:
        return {}, {"kept": logits["normal"].argmax(dim=1).tolist()}


def configuration(risk_seeking: float) -> SearchConfig:
    """Three epochs, in the first of which the mean loss is measured."""
    alpha = AlphaUpdate(lr=1e-3, weight_decay=0.0, warmup_epochs=1, risk_seeking=risk_seeking)
    return SearchConfig(epochs=3, alpha=alpha, sampler=SamplerConfig(tau_end=10.0))


@pytest.mark.parametrize(("risk_seeking", "kept"), [(0.0, [SAFE, PAIR]), (4.0, [PAIR, PAIR])])
def test_risk_seeking_decides_between_the_best_mean_and_the_best_network(
    risk_seeking: float, kept: list[int]
) -> None:
    for seed in range(5):
        config = dataclasses.replace(configuration(risk_seeking), seed=seed)
        *_, last = search(config, TableSpace())
        assert last.details["kept"] == kept


def test_a_drawn_networks_gradient_counts_by_its_gain_over_the_epoch_before() -> None:
    gradients, losses = [], []
    for risk_seeking in (0.0, 2.0):
        run = SearchSteps(configuration(risk_seeking), TableSpace())
        run.history = [{"valid/loss": 9.0}, {"valid/loss": 1.3}]
        losses.append(float(run.alpha_step(2, 0, 10.0).loss))
        gradient = run.logits["normal"].grad
        assert gradient is not None and gradient.abs().sum() > 0
        gradients.append(gradient)
    assert losses[0] == losses[1]
    expected = gradients[0] * math.exp(2.0 * (1.3 - losses[0]))
    torch.testing.assert_close(gradients[1], expected)


def test_in_the_first_epoch_every_network_counts_alike() -> None:
    plain, seeking = (SearchSteps(configuration(r), TableSpace()) for r in (0.0, 2.0))
    for run in (plain, seeking):
        run.alpha_step(1, 0, 10.0)
    assert torch.equal(plain.logits["normal"], seeking.logits["normal"])
