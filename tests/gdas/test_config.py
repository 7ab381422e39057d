"""Settings: what is out of range is refused by name, and the presets are the sources' values."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from gdas.bench201.config import Bench201SearchConfig
from gdas.cnn.config import SearchConfig, SupernetConfig, TrainConfig
from gdas.cnn.genotype import OPERATIONS
from gdas.config import AlphaUpdate, SamplerConfig, WeightUpdate, differences
from gdas.data.settings import IMAGE_DATA, ImageData
from gdas.errors import InputError
from gdas.presets import SEARCH_PRESETS, TRAIN_PRESETS

CIFAR10 = IMAGE_DATA["cifar10"]


def image_data(**changes: Any) -> ImageData:
    return dataclasses.replace(CIFAR10, **changes)


OUT_OF_RANGE: list[tuple[Any, dict[str, Any], str]] = [
    (image_data, {"crop_padding": -1}, "crop_padding=-1"),
    (image_data, {"cutout": -2}, "cutout=-2"),
    (image_data, {"std": (0.2, 0.0, 0.2)}, "std="),
    (SupernetConfig, {"channels": 0}, "channels=0"),
    (SupernetConfig, {"normals_per_block": 0}, "normals_per_block=0"),
    (SupernetConfig, {"nodes": 0}, "nodes=0"),
    (SupernetConfig, {"channels": 18, "reduction": "fixed"}, "channels=18"),
    (SupernetConfig, {"nodes": 5, "reduction": "fixed"}, "nodes=5"),
    (SupernetConfig, {"channels": 15, "stem": "imagenet"}, "channels=15"),
    (WeightUpdate, {"lr": 0.0}, "lr=0.0"),
    (WeightUpdate, {"lr": math.nan}, "lr=nan"),
    (WeightUpdate, {"lr_min": 0.03}, "lr_min=0.03"),
    (WeightUpdate, {"lr_min": -0.1}, "lr_min=-0.1"),
    (WeightUpdate, {"momentum": 1.0}, "momentum=1.0"),
    (WeightUpdate, {"momentum": -0.1}, "momentum=-0.1"),
    (WeightUpdate, {"weight_decay": -1e-4}, "weight_decay=-0.0001"),
    (WeightUpdate, {"clip": 0.0}, "clip=0.0"),
    (AlphaUpdate, {"lr": -1.0}, "lr=-1.0"),
    (AlphaUpdate, {"betas": (0.5, 1.0)}, "betas="),
    (AlphaUpdate, {"warmup_epochs": -1}, "warmup_epochs=-1"),
    (SearchConfig, {"epochs": 2, "alpha": AlphaUpdate(warmup_epochs=2)}, "alpha.warmup_epochs=2"),
    (
        Bench201SearchConfig,
        {"alpha": AlphaUpdate(gates="all"), "sampler": SamplerConfig(relaxation="softmax")},
        "alpha.gates=all",
    ),
    (
        SearchConfig,
        {"alpha": AlphaUpdate(gates="all"), "sampler": SamplerConfig(scope="data_sample")},
        "alpha.gates=all",
    ),
    (AlphaUpdate, {"risk_seeking": -1.0}, "risk_seeking=-1.0"),
    *(
        (
            SearchConfig,
            {"alpha": AlphaUpdate(risk_seeking=2.0), "sampler": sampler},
            "alpha.risk_seeking=2: compares the networks",
        )
        for sampler in (
            SamplerConfig(relaxation="soft"),
            SamplerConfig(scope="data_sample"),
            SamplerConfig(method="evolution", scope="cell_type"),
        )
    ),
    (SamplerConfig, {"tau_start": 0.0}, "tau_start=0.0"),
    (SamplerConfig, {"tau_end": 0.0}, "tau_end=0.0"),
    (SearchConfig, {"epochs": 0}, "epochs=0"),
    (SearchConfig, {"batch_size": 1}, "batch_size=1"),
    (SearchConfig, {"train_images": 1}, "train_images=1"),
    (SearchConfig, {"valid_images": 0}, "valid_images=0"),
    (SearchConfig, {"recalibration_batches": 0}, "recalibration_batches=0"),
    (TrainConfig, {"epochs": 0}, "epochs=0"),
    (TrainConfig, {"channels": 0}, "channels=0"),
    (TrainConfig, {"normals_per_block": 0}, "normals_per_block=0"),
    (TrainConfig, {"evaluate_every": 0}, "evaluate_every=0"),
    (TrainConfig, {"channels": 15, "stem": "imagenet"}, "channels=15"),
    (TrainConfig, {"batch_size": 1}, "batch_size=1"),
    (TrainConfig, {"lr": 0.0}, "lr=0.0"),
    (TrainConfig, {"lr_min": 0.1}, "lr_min=0.1"),
    (TrainConfig, {"lr_decay": 0.0}, "lr_decay=0.0"),
    (TrainConfig, {"lr_decay": 1.1}, "lr_decay=1.1"),
    (TrainConfig, {"momentum": 1.0}, "momentum=1.0"),
    (TrainConfig, {"drop_path": 1.0}, "drop_path=1.0"),
    (TrainConfig, {"drop_path": -0.1}, "drop_path=-0.1"),
    (TrainConfig, {"warmup_epochs": 600}, "warmup_epochs=600"),
    (TrainConfig, {"warmup_epochs": -1}, "warmup_epochs=-1"),
    (TrainConfig, {"label_smoothing": 1.0}, "label_smoothing=1.0"),
    (TrainConfig, {"auxiliary_weight": -0.4}, "auxiliary_weight=-0.4"),
]


@pytest.mark.parametrize(
    ("build", "settings", "named"),
    OUT_OF_RANGE,
    ids=[f"{build.__name__}-{named}" for build, _, named in OUT_OF_RANGE],
)
def test_a_value_out_of_range_is_refused_naming_its_key(
    build: Any, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError) as caught:
        build(**settings)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_ends_of_the_ranges_are_accepted() -> None:
    image_data(crop_padding=0, cutout=0)
    SupernetConfig(channels=52, reduction="fixed")
    SupernetConfig(channels=15)
    WeightUpdate(lr_min=0.0, momentum=0.0, weight_decay=0.0)
    WeightUpdate(lr=0.001)
    AlphaUpdate(lr=0.0, betas=(0.0, 0.0))
    SearchConfig(epochs=1, batch_size=2, train_images=2, valid_images=2)
    TrainConfig(epochs=1, batch_size=2, drop_path=0.0, auxiliary_weight=0.0, lr_decay=1.0)


def leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    """{dotted key: value} of nested settings."""
    out: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            out |= leaves(value, f"{prefix}{f.name}.")
        else:
            out[f"{prefix}{f.name}"] = value
    return out


SEARCH_TABLE: dict[str, tuple[Any, Any, Any]] = {
    # key: (paper, authors_2019, authors_2020)
    "task": ("image", "image", "image"),
    "operations": (OPERATIONS, OPERATIONS, OPERATIONS),
    "sampler.method": (None, None, None),
    "sampler.tau_start": (10.0, 10.0, 10.0),
    "sampler.tau_end": (1.0, 1.0, 0.1),
    "sampler.tau_reaches_end": (True, False, True),
    "sampler.scope": ("cell_instance", "cell_instance", "cell_type"),
    "sampler.relaxation": ("hard", "hard", "hard"),
    "sampler.acceleration": (True, True, True),
    "order": ("weights_first", "alpha_first", "weights_first"),
    "batch_size": (128, 128, 256),
    "epochs": (240, 200, 250),
    "weights.lr": (0.025, 0.01, 0.025),
    "weights.lr_min": (0.001, 0.001, 0.001),
    "weights.momentum": (0.9, 0.9, 0.9),
    "weights.weight_decay": (3e-4, 3e-4, 5e-4),
    "weights.nesterov": (False, False, True),
    "weights.clip": (5.0, 5.0, 5.0),
    "weights.clip_scope": ("weights", "weights", "all"),
    "weights.undrawn": ("decay", "decay", "decay"),
    "alpha.lr": (3e-4, 3e-4, 3e-4),
    "alpha.betas": ((0.5, 0.999), (0.5, 0.999), (0.5, 0.999)),
    "alpha.weight_decay": (1e-3, 1e-3, 1e-3),
    "alpha.images": ("passes", "passes", "replacement"),
    "alpha.warmup_epochs": (0, 0, 0),
    "alpha.gates": ("drawn", "drawn", "drawn"),
    "alpha.risk_seeking": (0.0, 0.0, 0.0),
    "split_seed": (None, None, 0),
    "train_images": (None, None, None),
    "valid_images": (None, None, None),
    "derivation.exclude_none": (True, True, True),
    "derivation.distinct_sources": (True, True, False),
    "network.channels": (16, 16, 16),
    "network.normals_per_block": (2, 2, 2),
    "network.nodes": (4, 4, 4),
    "network.reduction": ("searched", "searched", "searched"),
    "network.stem": ("cifar", "cifar", "cifar"),
    "network.macro": ("3n+2", "3n+2", "3n"),
    "network.pooling_norm": (True, True, False),
    "network.bias_without_affine": (False, False, True),
    "network.wiring": ("figure", "2019", "figure"),
    "network.fixed_affine": (True, True, False),
}

TRAIN_TABLE: dict[str, tuple[Any, Any, Any]] = {
    "task": ("image", "image", "image"),
    "operations": ((), (), ()),
    "epochs": (600, 600, 300),
    "batch_size": (96, 96, 96),
    "train_images": (None, None, None),
    "channels": (36, 36, 33),
    "normals_per_block": (6, 6, 6),
    "stem": ("cifar", "cifar", "cifar"),
    "macro": ("3n+2", "3n+2", "3n"),
    "pooling_norm": (True, True, False),
    "lr": (0.025, 0.025, 0.025),
    "schedule": ("cosine", "cosine", "cosine"),
    "lr_min": (0.0, 1e-4, 0.0),
    "warmup_epochs": (0, 0, 5),
    "momentum": (0.9, 0.9, 0.9),
    "nesterov": (False, False, True),
    "weight_decay": (3e-4, 3e-4, 5e-4),
    "clip": (5.0, 5.0, 5.0),
    "auxiliary_weight": (0.4, 0.4, 0.4),
    # The 2020 code has 0.2 in its configuration but does not use it.
    "drop_path": (0.2, 0.2, 0.0),
    "label_smoothing": (0.0, 0.0, 0.0),
}

# Where and how it is computed, not what: no source has a value.
NOT_FROM_A_SOURCE = {
    "execution",
    "kernels",
    "seed",
    "precision",
    "channels_last",
    "compile",
    "segments_per_epoch",
    "recalibration_batches",
    "compared_cells",
    "compared_images",
    "evaluate_every",
    "lr_decay",
}


@pytest.mark.parametrize("table", ["search", "train"])
def test_presets_hold_the_values_of_their_sources(table: str) -> None:
    presets: dict[Any, Any] = SEARCH_PRESETS if table == "search" else TRAIN_PRESETS
    expected = SEARCH_TABLE if table == "search" else TRAIN_TABLE
    for column, preset in enumerate(("paper", "authors_2019", "authors_2020")):
        found = {k: v for k, v in leaves(presets[preset]).items() if not k.startswith("data.")}
        wanted = {key: values[column] for key, values in expected.items()}
        assert {k: v for k, v in found.items() if k not in NOT_FROM_A_SOURCE} == wanted, preset


def test_defaults_are_the_papers_preset() -> None:
    assert SearchConfig() == SEARCH_PRESETS["paper"]
    assert TrainConfig() == TRAIN_PRESETS["paper"]


def test_cifar_constants_are_the_authors() -> None:
    assert CIFAR10.mean == pytest.approx((0.4913725, 0.4823529, 0.4466667))
    assert CIFAR10.std == pytest.approx((0.2470588, 0.2435294, 0.2615686))
    assert (CIFAR10.crop_padding, CIFAR10.flip, CIFAR10.cutout) == (4, True, 0)
    assert not IMAGE_DATA["digits"].flip, "mirrored digits are not digits"


def test_differences_lists_exactly_the_changed_leaves() -> None:
    base = SearchConfig()
    assert differences(base, base) == []
    assert differences(SearchConfig(), base) == []
    changed = dataclasses.replace(
        base,
        seed=3,
        data=image_data(cutout=16),
        weights=WeightUpdate(lr=0.01, undrawn="skip"),
        alpha=AlphaUpdate(betas=(0.9, 0.999)),
        split_seed=0,
    )
    assert sorted(differences(changed, base)) == [
        ("alpha.betas", (0.9, 0.999), (0.5, 0.999)),
        ("data.cutout", 16, 0),
        ("seed", 3, 0),
        ("split_seed", 0, None),
        ("weights.lr", 0.01, 0.025),
        ("weights.undrawn", "skip", "decay"),
    ]


def test_differences_of_a_preset_are_those_of_the_table() -> None:
    for column, preset in ((1, "authors_2019"), (2, "authors_2020")):
        found = differences(SEARCH_PRESETS[preset], SEARCH_PRESETS["paper"])  # type: ignore[index]
        expected = {k: v[column] for k, v in SEARCH_TABLE.items() if v[column] != v[0]}
        assert {key: ours for key, ours, _ in found} == expected


@pytest.mark.parametrize("kind", [WeightUpdate, TrainConfig])
def test_nesterov_needs_a_momentum(kind: Any) -> None:
    with pytest.raises(InputError, match="nesterov"):
        kind(nesterov=True, momentum=0.0)


@pytest.mark.parametrize("kind", [WeightUpdate, AlphaUpdate, TrainConfig])
def test_a_negative_weight_decay_is_refused(kind: Any) -> None:
    with pytest.raises(InputError, match="weight_decay"):
        kind(weight_decay=-1.0)
