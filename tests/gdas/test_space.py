"""The image search space: which images each step sees, and how a derived cell is scored."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdas.cnn.halves
import gdas.cnn.space
from gdas.architecture import draw_architecture
from gdas.checkpoint import State, digest
from gdas.cnn.config import Derivation, SearchConfig
from gdas.cnn.derive import derive_genotype
from gdas.cnn.genotype import from_json
from gdas.cnn.halves import search_split
from gdas.cnn.space import (
    ImageSpace,
    build_supernet,
    compare_drawn_with_uniform,
    score_with_shared_weights,
)
from gdas.config import AlphaUpdate
from gdas.data.arrow import Images
from gdas.data.augment import augment, normalise
from gdas.errors import InputError
from gdas.randomness import generator
from gdas.search import SearchSteps, search
from tests.gdas.tiny import CPU, run_search, search_config


def tagged(images: Images) -> Images:
    """Every image carries its own index in two pixels, read before it is augmented."""
    count = len(images)
    images_NCHW = images.images_NCHW.clone()
    images_NCHW[:, 0, 0, 0] = (torch.arange(count) // 256).to(torch.uint8)
    images_NCHW[:, 0, 0, 1] = (torch.arange(count) % 256).to(torch.uint8)
    return Images(images_NCHW, images.labels_N, images.classes)


def indices(images_BCHW: Tensor) -> list[int]:
    corner = images_BCHW[:, 0, 0, :2].long()
    return (corner[:, 0] * 256 + corner[:, 1]).tolist()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The images of every step of a search, W and alpha in turn."""
    noted: list[list[int]] = []

    def watching(images_BCHW: Tensor, *args: Any) -> Tensor:
        noted.append(indices(images_BCHW))
        return augment(images_BCHW, *args)

    monkeypatch.setattr(gdas.cnn.halves, "augment", watching)
    return noted


def searched_rows(
    config: SearchConfig, images: Images, steps: list[list[int]]
) -> tuple[list[list[int]], list[list[int]]]:
    """(W steps, alpha steps) of a whole search, W first."""
    for _ in run_search(config, tagged(images)):
        pass
    return steps[::2], steps[1::2]


def test_weights_see_every_image_of_their_half_once_an_epoch_in_a_new_order(
    small_digits: Images, steps: list[list[int]]
) -> None:
    config = search_config(nodes=1, train_images=70, valid_images=50)
    weights, _ = searched_rows(config, small_digits, steps)
    train_T, _ = search_split(config, len(small_digits))
    epochs = [weights[3 * e : 3 * e + 3] for e in range(3)]
    for rows in epochs:
        assert [len(row) for row in rows] == [32, 32, 6]
        assert sorted(i for row in rows for i in row) == sorted(train_T.tolist())
    assert epochs[0] != epochs[1] != epochs[2]


def test_logits_see_their_half_in_passes_that_do_not_end_with_the_epoch(
    small_digits: Images, steps: list[list[int]]
) -> None:
    config = search_config(nodes=1, train_images=70, valid_images=50)
    _, alpha = searched_rows(config, small_digits, steps)
    _, valid_V = search_split(config, len(small_digits))
    # Nine steps of 32 and 18 images in turn: four passes and a half.
    assert [len(rows) for rows in alpha] == [32, 18, 32, 18, 32, 18, 32, 18, 32]
    passes = [alpha[2 * i] + alpha[2 * i + 1] for i in range(4)]
    for rows in passes:
        assert sorted(rows) == sorted(valid_V.tolist())
    assert len({tuple(rows) for rows in passes}) == 4


def test_logits_may_see_images_drawn_with_replacement(
    small_digits: Images, steps: list[list[int]]
) -> None:
    config = search_config(nodes=1, valid_images=50, alpha=AlphaUpdate(images="replacement"))
    _, alpha = searched_rows(config, small_digits, steps)
    _, valid_V = search_split(config, len(small_digits))
    assert [len(rows) for rows in alpha] == [32] * 6
    drawn = [i for rows in alpha for i in rows]
    assert set(drawn) <= set(valid_V.tolist())
    assert any(len(set(rows)) < len(rows) for rows in alpha)


def test_a_split_seed_gives_every_run_the_same_halves() -> None:
    own = [search_split(search_config(seed=seed), 1437)[0] for seed in (1, 2)]
    fixed = [search_split(search_config(seed=seed, split_seed=0), 1437)[0] for seed in (1, 2)]
    assert not torch.equal(own[0], own[1])
    assert torch.equal(fixed[0], fixed[1])


def test_a_batch_larger_than_a_half_is_refused(small_digits: Images) -> None:
    with pytest.raises(InputError, match="batch_size=65"):
        ImageSpace(search_config(batch_size=65), small_digits, CPU)


def test_details_are_json_and_hold_the_genotype_that_the_logits_derive(
    small_digits: Images,
) -> None:
    config = search_config(derivation=Derivation(exclude_none=False))
    segment = next(run_search(config, small_digits))
    assert segment.state is not None
    details = json.loads(json.dumps(segment.details))
    genotype, cells = derive_genotype(config, segment.state["logits"])
    assert from_json(details["genotype"]) == genotype
    assert details["probabilities"]["reduce"] == list(cells["reduce"].probabilities)
    assert segment.metrics["normal/entropy"] == cells["normal"].entropy
    found = torch.tensor(details["logits"]["normal"])
    assert torch.equal(found, segment.state["logits"]["normal"])


# Scoring with the shared weights


@pytest.fixture(scope="module")
def state(small_digits: Images) -> State:
    segment = next(run_search(search_config("fixed"), small_digits))
    assert segment.state is not None
    return segment.state


def test_a_score_leaves_the_state_alone_and_is_repeatable(
    small_digits: Images, state: State
) -> None:
    config, before = search_config("fixed"), digest(state)
    first = score_with_shared_weights(config, small_digits, state, CPU)
    assert digest(state) == before
    assert score_with_shared_weights(config, small_digits, state, CPU) == first


def test_drawn_cells_are_compared_with_uniform_ones_of_the_same_noise(
    small_digits: Images, state: State
) -> None:
    config = search_config("fixed", compared_cells=3, compared_images=20)
    before = digest(state)
    even = state | {"logits": {k: torch.zeros_like(a) for k, a in state["logits"].items()}}
    pairs = compare_drawn_with_uniform(config, small_digits, even, CPU)
    assert len(pairs) == 3
    assert all(drawn == uniform for drawn, uniform in pairs), "the same logits, the same cells"
    assert all(top1 % 5 == 0 for pair in pairs for top1 in pair), "percent of 20 images"
    decided = torch.zeros_like(state["logits"]["normal"])
    decided[:, 3] = 50.0
    certain = state | {"logits": {"normal": decided}}
    found = compare_drawn_with_uniform(config, small_digits, certain, CPU)
    assert len({drawn for drawn, _ in found}) == 1, "decided logits draw one cell"
    assert [uniform for _, uniform in found] == [uniform for _, uniform in pairs]
    assert digest(state) == before


def test_a_score_recalibrates_on_one_half_and_scores_the_other(
    small_digits: Images, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[list[int]] = []

    def watching(images_BCHW: Tensor, *args: Any) -> Tensor:
        noted.append(indices(images_BCHW))
        return normalise(images_BCHW, *args)

    monkeypatch.setattr(gdas.cnn.halves, "normalise", watching)
    config = search_config("fixed", recalibration_batches=1, valid_images=50)
    score_with_shared_weights(config, tagged(small_digits), state, CPU)
    train_T, valid_V = search_split(config, len(small_digits))
    assert len(noted[0]) == 32
    assert set(noted[0]) <= set(train_T.tolist())
    assert [i for rows in noted[1:] for i in rows] == valid_V.tolist()


def test_a_score_is_of_the_derived_net_with_statistics_of_its_own(
    small_digits: Images, state: State
) -> None:
    """Against the plain way: two passes of batch norm's own averaging, then evaluation."""
    config = search_config("fixed")
    score = score_with_shared_weights(config, small_digits, state, CPU)
    supernet = build_supernet(config, 10)
    supernet.load_state_dict(state["weights"])
    genotype, _ = derive_genotype(config, state["logits"])
    first_edge = (0, 2, 5, 9)
    names = ["none", "max_pool_3x3", "avg_pool_3x3", "skip_connect"]
    names += ["sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"]
    picks = [
        (first_edge[i // 2] + source, names.index(name))
        for i, (name, source) in enumerate(genotype.normal)
    ]
    every = [[] if kind == "fixed" else picks for kind in supernet.kinds]
    for module in supernet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    train_T, valid_V = search_split(config, len(small_digits))

    def plain(rows: Tensor) -> Tensor:
        return normalise(small_digits.images_NCHW[rows], config.data)

    with torch.no_grad():
        order = torch.randperm(64, generator=generator(config.seed, "recalibration"))
        for rows in train_T[order].split(32):
            supernet(plain(rows), every)
        scores = supernet.eval()(plain(valid_V), every)
    labels = small_digits.labels_N[valid_V]
    assert score.top1 == pytest.approx(100 * float((scores.argmax(1) == labels).float().mean()))
    assert score.loss == pytest.approx(float(nn.functional.cross_entropy(scores, labels)), rel=1e-4)


def test_memory_layout_does_not_change_a_search(
    small_digits: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64: rounding differs between layouts, and a ReLU near zero makes much of it."""
    monkeypatch.setattr(gdas.cnn.halves, "augment", lambda *args: augment(*args).double())
    monkeypatch.setattr(
        gdas.cnn.space, "build_supernet", lambda *args: build_supernet(*args).double()
    )
    plain, last = (
        next(run_search(search_config("fixed", channels_last=layout), small_digits))
        for layout in (False, True)
    )
    assert last.state is not None
    stem = last.state["weights"]["stem.conv.weight"]
    assert stem.is_contiguous(memory_format=torch.channels_last)
    assert not stem.is_contiguous()
    assert last.metrics == pytest.approx(plain.metrics, rel=1e-9)


def test_a_search_in_bfloat16_stays_near_the_one_in_float32(small_digits: Images) -> None:
    full = next(run_search(search_config("fixed"), small_digits)).metrics
    half_config = search_config("fixed", precision="bfloat16")
    half = next(search(half_config, ImageSpace(half_config, small_digits, CPU))).metrics
    assert half["train/loss"] != full["train/loss"]
    assert half["train/loss"] == pytest.approx(full["train/loss"], rel=0.05)


def test_alpha_steps_are_in_float32_whatever_the_precision(small_digits: Images) -> None:
    """In bfloat16 the logits' gradients would point elsewhere."""
    found = {}
    for precision in ("float32", "bfloat16"):
        config = search_config("fixed", precision=precision, kernels="plain")
        space = ImageSpace(config, small_digits, CPU)
        steps = SearchSteps(config, space)
        architecture = draw_architecture(
            steps.logits,
            space.cell_types,
            config.sampler,
            5.0,
            generator(0, "test"),
            gate_device=CPU,
        )
        of_W = space.weight_loss(architecture, 0, 0).loss.item()
        loss = space.alpha_loss(architecture, 0, 0).loss
        (gradient,) = torch.autograd.grad(loss, [steps.logits["normal"]])
        found[precision] = of_W, gradient
    (exact_W, exact), (coarse_W, gradient) = found.values()
    assert coarse_W != exact_W
    assert torch.equal(gradient, exact) and gradient.norm() > 0
