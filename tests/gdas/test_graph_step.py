"""Whole steps from tables on the device beside today's: results, draws, checkpoints.

Without a GPU the kernels run in Triton's interpreter, and without graphs.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any, Literal, cast

import pytest
import torch
from torch import Tensor, nn

from gdas.checkpoint import Segment, digest
from gdas.cnn.config import SearchConfig, SupernetConfig
from gdas.cnn.space import ImageSpace
from gdas.cnn.supernet import Supernet
from gdas.config import AlphaUpdate, SamplerConfig, WeightUpdate
from gdas.data.arrow import Images
from gdas.data.augment import augment
from gdas.data.settings import ImageData
from gdas.errors import InputError
from gdas.randomness import generator
from gdas.sampler import draw_operations
from gdas.search import search
from tests.gdas.tiny import CPU, search_config
from tests.narrow import narrow

pytest.importorskip("triton")

from gdas.cnn.graph.search import changed, covered, run_epochs, search_by_graphs, search_on_card
from gdas.cnn.graph.step import GraphSteps
from gdas.cnn.graph.tables import draw_table

CUDA = torch.device("cuda")
DEVICE = CUDA if torch.cuda.is_available() else CPU


@pytest.fixture(scope="module")
def tiny_digits(digits: Images) -> Images:
    """Eight by eight pixels."""
    images_NCHW = digits.images_NCHW[:, :, ::4, ::4].contiguous()
    return Images(images_NCHW, digits.labels_N, digits.classes)


def config_of(
    reduction: Literal["searched", "fixed"] = "searched", images: int = 6, **changes: Any
) -> SearchConfig:
    nodes = 4 if reduction == "fixed" else 2
    config = search_config(reduction, nodes=nodes, epochs=1, batch_size=6, kernels="plain")
    return replace(config, train_images=images, valid_images=images, **changes)


def graph_segments(config: SearchConfig, images: Images, state: Any = None) -> list[Segment]:
    space = ImageSpace(config, images, DEVICE)
    steps = GraphSteps(config, space)
    if state is not None:
        steps.load(state)
    return [replace(s, state=deepcopy(s.state)) for s in run_epochs(config, space, steps)]


def plain_segments(config: SearchConfig, images: Images, state: Any = None) -> list[Segment]:
    space = ImageSpace(config, images, DEVICE)
    segments = search(config, space, checkpoint=state)
    return [replace(s, state=deepcopy(s.state)) for s in segments]


def differences(ours: Any, theirs: Any, path: str = "") -> list[tuple[float, str]]:
    """Relative distances of all tensors; everything else must be equal."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), path
        return [d for k in theirs for d in differences(ours[k], theirs[k], f"{path}/{k}")]
    if isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), path
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{path}/{i}")]
    if isinstance(theirs, Tensor):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), path
        off = (ours.double() - theirs.double()).norm() / theirs.double().norm().clamp_min(1e-6)
        return [(float(off), path)] if theirs.numel() else []
    if isinstance(theirs, float):
        return [(abs(ours - theirs) / max(1.0, abs(theirs)), path)]
    assert ours == theirs, path
    return []


def check_states(ours: Segment, theirs: Segment, other: Segment) -> None:
    """Ours is as far from today's as today's in another memory layout, times five at most."""
    found = {path: off for off, path in differences(ours.state, theirs.state)}
    yard = {path: off for off, path in differences(other.state, theirs.state)}
    assert found.keys() == yard.keys()
    for group in {path.split("/")[1] for path in found}:
        worst = max(off for path, off in found.items() if path.split("/")[1] == group)
        allowed = max(off for path, off in yard.items() if path.split("/")[1] == group)
        assert worst <= 5 * allowed + 1e-4, (group, worst, allowed)


def compare(config: SearchConfig, images: Images) -> None:
    ours, theirs = graph_segments(config, images), plain_segments(config, images)
    other = plain_segments(replace(config, channels_last=False), images)
    assert len(ours) == len(theirs)
    for mine, plain, again in zip(ours, theirs, other, strict=True):
        assert mine.metrics.keys() == plain.metrics.keys()
        for name in ("train/loss", "valid/loss"):
            assert mine.metrics[name] == pytest.approx(plain.metrics[name], abs=1e-3)
        check_states(mine, plain, again)


@pytest.mark.slow
def test_a_step_of_both_is_todays(tiny_digits: Images) -> None:
    compare(config_of(), tiny_digits)


@pytest.mark.slow
@pytest.mark.parametrize("undrawn", ["decay", "skip"])
@pytest.mark.parametrize("scope", ["cell_instance", "cell_type"])
def test_three_iterations_are_todays(
    tiny_digits: Images, undrawn: Literal["decay", "skip"], scope: Literal["cell_instance"]
) -> None:
    config = config_of(
        images=16,  # the last batch is smaller
        weights=WeightUpdate(undrawn=undrawn, nesterov=undrawn == "skip"),
        sampler=SamplerConfig(scope=scope),
    )
    compare(config, tiny_digits)


@pytest.mark.slow
def test_fixed_reduction_alpha_first_and_held_logits_are_todays(tiny_digits: Images) -> None:
    alpha = AlphaUpdate(lr=0.05, warmup_epochs=1)
    config = config_of("fixed", images=12, order="alpha_first", alpha=alpha, epochs=2)
    compare(config, tiny_digits)


@pytest.mark.slow
def test_it_resumes_to_the_same_bits_and_goes_on_from_todays(tiny_digits: Images) -> None:
    config = config_of(epochs=2)
    whole = graph_segments(config, tiny_digits)
    resumed = graph_segments(config, tiny_digits, whole[0].state)
    assert digest(resumed[0].state) == digest(whole[1].state)
    todays = plain_segments(config, tiny_digits)
    after_todays = graph_segments(config, tiny_digits, todays[0].state)
    after_ours = plain_segments(config, tiny_digits, whole[0].state)
    for segment in (*after_todays, *after_ours):
        assert segment.metrics["train/loss"] == pytest.approx(
            whole[1].metrics["train/loss"], abs=1e-2
        )
        differences(segment.state, whole[1].state)  # the same keys, shapes and flags


def test_tables_hold_what_the_sampler_draws(tiny_digits: Images) -> None:
    config = config_of(images=16)
    space = ImageSpace(config, tiny_digits, CPU)
    table = draw_table(config, space.halves, "valid", 3, (4, 5, 8))
    assert table.sizes == [6, 6, 4]
    draw = generator(config.seed, "gumbel of alpha", 3, 2)
    zero = torch.zeros(5, 8)
    for noise in table.noise_SDEK[2]:
        assert draw_operations(zero, 1.0, generator=draw).operations == noise.argmax(1).tolist()


@pytest.mark.parametrize("cutout", [0, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_images_are_augmented_as_today(tiny_digits: Images, flip: bool, cutout: int) -> None:
    data = replace(narrow(search_config().data, ImageData), flip=flip, cutout=cutout)
    config = config_of(data=data)
    space = ImageSpace(config, tiny_digits, DEVICE)
    steps = GraphSteps(config, space)
    steps.begin_epoch(steps.draw_epoch(0), 0.1, 1.0)
    ours, labels = steps._batch("train", 6)
    wanted = space.halves._for_weights(0, 0)
    batch = space.halves.images.take(wanted)
    assert wanted.moves is not None
    theirs = augment(batch.pixels_BCHW, data, wanted.moves)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert torch.equal(labels, batch.labels_B)


def test_what_is_not_covered_is_named() -> None:
    assert covered(SearchConfig(), CUDA) is None
    assert covered(SearchConfig(network=SupernetConfig(reduction="fixed")), CUDA) is None
    for config, word in (
        (SearchConfig(sampler=SamplerConfig(relaxation="soft")), "relaxation"),
        (SearchConfig(sampler=SamplerConfig(acceleration=False)), "acceleration"),
        (SearchConfig(sampler=SamplerConfig(scope="data_sample")), "data_sample"),
        (SearchConfig(alpha=AlphaUpdate(gates="all")), "gates"),
        (SearchConfig(alpha=AlphaUpdate(risk_seeking=4.0)), "risk_seeking"),
        (SearchConfig(weights=WeightUpdate(clip_scope="all")), "clip_scope"),
        (SearchConfig(network=SupernetConfig(pooling_norm=False)), "pooling_norm"),
        (SearchConfig(network=SupernetConfig(bias_without_affine=True)), "bias"),
        (SearchConfig(precision="bfloat16"), "precision"),
        (SearchConfig(compile=True), "compile"),
    ):
        assert word in (covered(config, CUDA) or "")
    assert "device" in (covered(SearchConfig(), CPU) or "")


def test_a_search_that_is_not_covered_is_refused(tiny_digits: Images) -> None:
    with pytest.raises(InputError, match="CUDA device"):
        next(search_on_card(config_of(), tiny_digits, CPU))


@pytest.mark.parametrize("reduction", ["searched", "fixed"])
def test_a_changed_supernet_is_refused(
    reduction: Literal["searched", "fixed"], monkeypatch: pytest.MonkeyPatch, tiny_digits: Images
) -> None:
    supernet = Supernet(10, channels=4, normals_per_block=1, fixed_reduction=reduction == "fixed")
    assert changed(supernet) is None
    watched = deepcopy(supernet)
    cast(Any, watched.cells[0]).preprocess.s1[1].register_forward_hook(lambda *_: None)
    assert changed(watched) == "cells.0.preprocess.s1.1 (Conv2d) is changed or has hooks"
    monkeypatch.setattr("gdas.cnn.graph.search.covered", lambda *_: None)
    space = ImageSpace(config_of(), tiny_digits, CPU)
    cast(Any, space.supernet.cells[0]).edges[0][4][0] = nn.SiLU()
    with pytest.raises(InputError, match=r"as CUDA graphs: cells\.0\.edges\.0\.4\.0 \(SiLU\)"):
        next(search_by_graphs(config_of(), space))
