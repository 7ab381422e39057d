"""Results of one version of the algorithm stay what they are.

A change that moves a number here changes results: raise gdas.ALGORITHM_VERSION, so that finished
jobs are not mistaken for ones of the new kind, and write the new numbers down. Integers are exact.
Networks run in float64, where processors, threads and memory layouts agree to many digits; in
float32 a ReLU that flips on a digit's flat background is enough to part two runs.

Version 2: backward passes of depthwise convolutions, concatenations and gates are computed in
another order (gdas.cnn.rearrange), which changes the last bits of float32 and so the digests of
weights. Version 3: so are the gradients of dilated depthwise convolutions and of 5 x 5 weights.
Version 4: and those of recurrent cells' matrices (gdas.rnn.over_time). Versions 5 to 9: kernels
of our own on CPUs round in other orders (gdas.cnn.fused). Version 10: gates of a recurrent step
that drew `none` alone have no gradient while all functions run (gdas.rnn.cell). The numbers here,
float64 to six digits, stayed what they were in version 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import gdas
import gdas.cnn.halves
import gdas.cnn.space
import gdas.cnn.train
from gdas.cnn.genotype import PUBLISHED
from gdas.cnn.train import train_image
from gdas.data.arrow import Images
from gdas.data.augment import Moves, draw_moves
from gdas.data.images import split_indices
from gdas.data.settings import IMAGE_DATA
from gdas.randomness import derive_seed, generator
from gdas.sampler import draw_operations
from tests.gdas.tiny import CPU, run_search, search_config, train_config
from tests.narrow import narrow

ORDER_SEED = 228291028133782092
SPLIT = ([29, 1300, 1385, 312], [667, 851, 991, 230])
OPERATIONS = [7, 7, 2, 4, 3, 3, 5, 5, 3, 3, 1, 2, 2, 0]
MOVES = [[5, 4, 1, 25, 19], [4, 0, 1, 30, 16]]
SEARCHES: dict[str, dict[str, float]] = {
    "searched": {
        "lr": 0.013,
        "tau": 1.0,
        "train/loss": 2.38154925,
        "valid/loss": 2.45981507,
        "normal/entropy": 0.99845189,
        "reduce/entropy": 0.99825568,
    },
    "fixed": {
        "lr": 0.013,
        "tau": 1.0,
        "train/loss": 2.36070672,
        "valid/loss": 2.39212710,
        "normal/entropy": 0.99850308,
    },
}
TRAINING = {"lr": 0.0125, "drop_path": 0.15, "train/loss": 2.30317893, "valid/loss": 2.30304761}


def test_these_numbers_belong_to_version_ten() -> None:
    assert gdas.ALGORITHM_VERSION == 10


def test_seeds_of_the_streams_are_what_they_were() -> None:
    assert derive_seed(0, "order", 3) == ORDER_SEED
    assert derive_seed(0, "order", 3) != derive_seed(0, "order", 4)
    assert derive_seed(0, "order", 1, 23) != derive_seed(0, "order", 12, 3)


def test_draws_are_what_they_were() -> None:
    train, valid = split_indices(1437, 0, 4, 4)
    assert (train.tolist(), valid.tolist()) == SPLIT
    drawn = draw_operations(torch.zeros(14, 8), 1.0, generator=generator(0, "gumbel", 0))
    assert drawn.operations == OPERATIONS
    moves = draw_moves(IMAGE_DATA["cifar10"], 2, 32, generator(0, "augmentation", 0, 0))
    assert narrow(moves, Moves).moves_B5.tolist() == MOVES


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images and weights of searches and trainings are float64."""
    for module, names in (
        (gdas.cnn.halves, ("augment",)),
        (gdas.cnn.space, ("build_supernet",)),
        (gdas.cnn.train, ("augment", "normalise", "build_network")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, doubling(getattr(module, name)))


def doubling(build: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: build(*args).double()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("reduction", ["searched", "fixed"])
def test_a_searchs_numbers_are_what_they_were(small_digits: Images, reduction: Any) -> None:
    *_, last = run_search(search_config(reduction, epochs=2), small_digits)
    found = {key: last.metrics[key] for key in SEARCHES[reduction]}
    assert found == pytest.approx(SEARCHES[reduction], rel=1e-6)


@pytest.mark.usefixtures("float64")
def test_a_trainings_numbers_are_what_they_were(digits: Images) -> None:
    rows = torch.arange(64)
    *_, last = train_image(
        train_config(epochs=2),
        PUBLISHED["GDAS_V1"],
        digits,
        rows,
        digits,
        rows + 64,
        evaluated_on="valid",
        device=CPU,
    )
    found = {key: last.metrics[key] for key in TRAINING}
    assert found == pytest.approx(TRAINING, rel=1e-6)
