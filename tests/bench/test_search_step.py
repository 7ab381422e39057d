"""The benchmark is fair: the plain networks and ours compute the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from gdas.architecture import draw_architecture
from gdas.cnn.genotype import OPERATIONS, PUBLISHED
from gdas.cnn.network import Network, draw_drop_path
from gdas.cnn.supernet import Supernet
from gdas.config import SamplerConfig
from tests.bench.plain import PlainNetwork, PlainSupernet

SIZE: dict[str, Any] = {"channels": 4, "normals_per_block": 1}
LABELS = torch.tensor([1, 2, 3, 4])


def images() -> Tensor:
    draw = Generator().manual_seed(0)
    return torch.randn(4, 3, 13, 13, generator=draw, dtype=torch.float64)


def assert_same(ours: torch.nn.Module, plain: torch.nn.Module, scores: list[Tensor]) -> None:
    """The same loss, and the same gradient of every parameter that has one."""
    losses = [F.cross_entropy(s, LABELS) for s in scores]
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
    for loss in losses:
        loss.backward()
    parameters = dict(ours.named_parameters())
    assert parameters.keys() == dict(plain.named_parameters()).keys()
    moved = 0
    for name, p in plain.named_parameters():
        if p.grad is None:
            assert parameters[name].grad is None, name
        else:
            torch.testing.assert_close(parameters[name].grad, p.grad, rtol=1e-7, atol=1e-10)
            moved += 1
    assert moved > 50


@pytest.mark.parametrize("seed", range(4))
def test_the_plain_supernet_has_the_same_loss_and_gradients_of_weights_and_logits(
    seed: int,
) -> None:
    torch.manual_seed(seed)
    ours = Supernet(10, **SIZE).double()
    plain = PlainSupernet(10, **SIZE).double()
    plain.load_state_dict(ours.state_dict())
    logits = ours.initial_logits(Generator().manual_seed(seed))
    draw = draw_architecture(
        logits,
        ours.kinds,
        SamplerConfig(),
        1.0,
        Generator().manual_seed(seed),
        gate_device=torch.device("cpu"),
    )
    drawn = {OPERATIONS[k] for picks in draw.picks for _, k in picks}
    assert drawn == set(OPERATIONS)
    assert draw.gates is not None
    layout = torch.channels_last
    image = images().contiguous(memory_format=layout)
    ours = ours.to(memory_format=layout)
    # W step: ours without gates.
    gates = [gate.detach() for gate in draw.gates if gate is not None]
    scores = [ours(image, draw.picks), plain(images(), draw.picks, gates)]
    assert_same(ours, plain, scores)
    # Alpha step: ours without gradients of weights.
    ours.requires_grad_(False)
    for scores_BK in (
        ours(image, draw.picks, draw.gates),
        plain(images(), draw.picks, draw.gates),
    ):
        alpha = torch.autograd.grad(
            F.cross_entropy(scores_BK, LABELS), list(logits.values()), retain_graph=True
        )
        scores.append(torch.cat(alpha))
    assert scores[2].abs().max() > 0
    torch.testing.assert_close(scores[2], scores[3], rtol=1e-4, atol=1e-9)


def test_the_plain_network_has_the_same_loss_and_gradients() -> None:
    torch.manual_seed(0)
    genotype = PUBLISHED["GDAS_V1"]
    ours = Network(genotype, 10, **SIZE).double()
    plain = PlainNetwork(genotype, 10, **SIZE, drop_sites=ours.drop_sites).double()
    plain.load_state_dict(ours.state_dict())
    keep_DB = draw_drop_path(ours, 4, 0.3, Generator().manual_seed(0))
    assert keep_DB is not None
    ours = ours.to(memory_format=torch.channels_last)
    image = images().contiguous(memory_format=torch.channels_last)
    assert_same(ours, plain, [ours(image, keep_DB)[0], plain(images(), keep_DB)[0]])
