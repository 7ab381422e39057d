"""Draws for every image, and all operations run: two readings of the paper, as settings.

Shapes: B batch, C channels, H and W height and width, E edges, K operations.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from gdas.architecture import draw_architecture
from gdas.cnn.cell import NONE, SearchCell
from gdas.cnn.genotype import OPERATIONS
from gdas.cnn.operations import Style
from gdas.cnn.space import ImageSpace
from gdas.config import AlphaUpdate, SamplerConfig
from gdas.data.arrow import Images
from gdas.errors import InputError
from gdas.rnn.config import TextSearchConfig
from gdas.search import SearchSteps, turns_of
from tests.gdas.tiny import CPU, latest, run_search, search_config, seen, until

EDGES, K = 5, len(OPERATIONS)
BY_IMAGE = SamplerConfig(scope="data_sample")
ALL_RUN = SamplerConfig(acceleration=False)


def cell(*, reduction: bool = False) -> SearchCell:
    torch.manual_seed(0)
    made = SearchCell(4, 4, 4, Style(False), nodes=2, reduction=reduction, last_reduced=False)
    return made.double().eval()  # batch norms that do not tie the images of a batch together


def inputs(batch: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(batch, 4, 6, 6).double(), torch.randn(batch, 4, 6, 6).double()


def logits() -> dict[str, Tensor]:
    return {"normal": torch.randn(EDGES, K).double().requires_grad_()}


@pytest.mark.parametrize("reduction", [False, True])
def test_every_image_runs_its_own_draw(reduction: bool) -> None:
    searched, (s0_BCHW, s1_BCHW) = cell(reduction=reduction), inputs(6)
    drawn = draw_architecture(
        logits(), ["normal"], BY_IMAGE, 1.0, torch.Generator().manual_seed(3), batch=8
    )
    assert drawn.samples is not None and drawn.samples[0] is not None
    operation_BE = drawn.samples[0]
    assert operation_BE.shape == (8, EDGES)
    assert len({tuple(row) for row in operation_BE.tolist()}) > 4
    together = searched(s0_BCHW, s1_BCHW, drawn.picks[0], None, operation_BE)
    for b in range(6):
        alone = searched(
            s0_BCHW[b : b + 1], s1_BCHW[b : b + 1], list(enumerate(operation_BE[b].tolist()))
        )
        torch.testing.assert_close(together[b : b + 1], alone, rtol=1e-9, atol=1e-9)


def test_the_gates_of_images_send_their_gradients_to_one_matrix_of_logits() -> None:
    """Against images drawn one by one with the same noise, their gradients added up."""
    searched, (s0_BCHW, s1_BCHW) = cell(), inputs(4)
    a = logits()
    drawn = draw_architecture(
        a,
        ["normal"],
        BY_IMAGE,
        2.0,
        torch.Generator().manual_seed(3),
        gate_device=torch.device("cpu"),
        batch=4,
    )
    assert drawn.gates is not None and drawn.gates[0] is not None and drawn.samples is not None
    gate_BEK = drawn.gates[0]
    out = searched(s0_BCHW, s1_BCHW, drawn.picks[0], gate_BEK, drawn.samples[0])
    weight = torch.randn_like(out)
    (together,) = torch.autograd.grad((out * weight).sum(), a["normal"], retain_graph=True)
    alone = torch.zeros_like(together)
    for b in range(4):
        one = searched(
            s0_BCHW[b : b + 1],
            s1_BCHW[b : b + 1],
            list(enumerate(drawn.samples[0][b].tolist())),  # type: ignore[index]
            gate_BEK[b],
        )
        loss = (one * weight[b : b + 1]).sum()
        alone += torch.autograd.grad(loss, a["normal"], retain_graph=True)[0]
    assert together.abs().max() > 1e-3
    torch.testing.assert_close(together, alone, rtol=1e-8, atol=1e-10)


def test_without_acceleration_every_operation_sends_its_gradient_back() -> None:
    """Eq. 5 as it stands: dLoss / dA through the relaxed weights of all operations."""
    searched, (s0_BCHW, s1_BCHW) = cell(), inputs(3)
    a = logits()

    def drawn(config: SamplerConfig) -> tuple[Tensor, Tensor]:
        architecture = draw_architecture(
            a,
            ["normal"],
            config,
            2.0,
            torch.Generator().manual_seed(5),
            gate_device=torch.device("cpu"),
        )
        assert architecture.gates is not None
        out: Tensor = searched(s0_BCHW, s1_BCHW, architecture.picks[0], architecture.gates[0])
        (gradient,) = torch.autograd.grad((out**3).sum(), a["normal"])
        return out, gradient

    saved, gradient_saved = drawn(SamplerConfig())
    full, gradient_full = drawn(ALL_RUN)
    torch.testing.assert_close(full, saved, rtol=1e-9, atol=1e-9)  # the others count 0
    assert not torch.allclose(gradient_full, gradient_saved)

    # The same by hand, node by node.
    noise_generator = torch.Generator().manual_seed(5)
    u = torch.rand((EDGES, K), generator=noise_generator).clamp_(1e-10, 1 - 1e-7)
    noisy_EK = a["normal"] - torch.log(-torch.log(u)).double()
    soft_EK = torch.softmax(noisy_EK / 2.0, dim=1)
    hard_EK = torch.nn.functional.one_hot(noisy_EK.argmax(1), K).double()
    gate_EK = hard_EK + soft_EK - soft_EK.detach()
    states = searched.preprocess(s0_BCHW, s1_BCHW)
    for node, first in ((0, 0), (1, 2)):
        total = torch.zeros_like(states[0])
        for source in range(2 + node):
            e = first + source
            for k in range(K):
                if k != NONE:
                    total = total + gate_EK[e, k] * searched.edges[e][k](states[source])  # type: ignore[index]
        states.append(total)
    out = torch.cat(states[2:], dim=1)
    (gradient,) = torch.autograd.grad((out**3).sum(), a["normal"])
    torch.testing.assert_close(gradient_full, gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("sampler", [BY_IMAGE, ALL_RUN], ids=["data_sample", "all run"])
def test_such_searches_resume_exactly(
    small_digits: Images, tmp_path: Path, sampler: SamplerConfig
) -> None:
    config = search_config(sampler=sampler, nodes=1)
    whole = [seen(segment) for segment in run_search(config, small_digits)]
    until(run_search(config, small_digits), 1, tmp_path)
    resumed = run_search(config, small_digits, latest(tmp_path).state)
    assert [seen(segment) for segment in resumed] == whole[1:]
    usual = [seen(segment) for segment in run_search(search_config(nodes=1), small_digits)]
    assert usual[-1] != whole[-1]


def test_readings_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="scope=data_sample"):
        SamplerConfig(scope="data_sample", acceleration=False)
    with pytest.raises(InputError, match=r"sampler\.scope=data_sample: a recurrent cell"):
        TextSearchConfig(sampler=BY_IMAGE)


def test_all_gates_of_an_alpha_step_are_those_without_acceleration_and_w_steps_stay(
    small_digits: Images,
) -> None:
    def steps(gates: Literal["drawn", "all"], sampler: SamplerConfig) -> tuple[Tensor, Tensor]:
        alpha = AlphaUpdate(gates=gates)
        config = search_config(nodes=2, alpha=alpha, sampler=sampler, kernels="plain")
        run = SearchSteps(config, ImageSpace(config, small_digits, CPU))
        run.weight_step(0, 0, 2.0)
        gradients = [p.grad for p in run.parameters]
        run.alpha_step(0, 0, 2.0)
        assert run.logits["normal"].grad is not None
        touched = torch.tensor([gradient is not None for gradient in gradients])
        return touched, run.logits["normal"].grad

    touched, gradient = steps("all", SamplerConfig())
    touched_saved, gradient_saved = steps("drawn", SamplerConfig())
    touched_full, gradient_full = steps("drawn", ALL_RUN)
    assert touched.equal(touched_saved) and not touched.equal(touched_full)
    torch.testing.assert_close(gradient, gradient_full, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(gradient, gradient_saved, rtol=1e-2)


def test_held_logits_stay_while_weights_learn_and_the_loss_is_measured(
    small_digits: Images,
) -> None:
    held = search_config(nodes=2, alpha=AlphaUpdate(lr=0.05, warmup_epochs=2))
    first, second, third = run_search(held, small_digits)
    moving, *_ = run_search(search_config(nodes=2), small_digits)
    for segment in (first, second):
        assert segment.state is not None and segment.metrics["valid/loss"] > 0
        assert segment.state["alpha_optimizer"]["state"] == {}
    assert first.metrics["normal/entropy"] == second.metrics["normal/entropy"]
    assert third.metrics["normal/entropy"] != second.metrics["normal/entropy"]
    assert moving.metrics["normal/entropy"] != first.metrics["normal/entropy"]
    assert second.metrics["train/loss"] != first.metrics["train/loss"]


def test_one_step_of_ten_measures_the_loss_while_logits_are_held() -> None:
    config = search_config(alpha=AlphaUpdate(warmup_epochs=1))
    turns = [turns_of(config, 0, step) for step in range(21)]
    assert [i for i, of_step in enumerate(turns) if "valid" in of_step] == [0, 10, 20]
    assert all("train" in of_step for of_step in turns)
    assert {turns_of(config, 1, step) for step in range(21)} == {("train", "valid")}
    first = replace(config, order="alpha_first")
    assert turns_of(first, 0, 0) == turns_of(first, 1, 3) == ("valid", "train")


def test_a_search_stopped_while_logits_are_held_goes_on_as_if_it_had_not_been(
    small_digits: Images, tmp_path: Path
) -> None:
    config = search_config(nodes=2, alpha=AlphaUpdate(lr=0.05, warmup_epochs=1, gates="all"))
    whole = [seen(segment) for segment in run_search(config, small_digits)]
    until(run_search(config, small_digits), 1, tmp_path)
    resumed = run_search(config, small_digits, latest(tmp_path).state)
    assert [seen(segment) for segment in resumed] == whole[1:]
