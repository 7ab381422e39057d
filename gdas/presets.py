"""Complete settings by the name of their source: the paper, or one of the authors' two programs."""

from __future__ import annotations

import dataclasses
from typing import Literal

from gdas.bench201.config import Bench201SearchConfig
from gdas.cnn.config import Derivation, SearchConfig, SupernetConfig, TrainConfig
from gdas.config import AlphaUpdate, SamplerConfig, WeightUpdate
from gdas.data.settings import IMAGE_DATA, PHOTO_DATA, TextData
from gdas.rnn.config import Dropouts, TextSearchConfig, TextTrainConfig

ImageSearchConfig = SearchConfig | Bench201SearchConfig
AnySearchConfig = SearchConfig | TextSearchConfig | Bench201SearchConfig

Preset = Literal["paper", "authors_2019", "authors_2020"]

SEARCH_PRESETS: dict[Preset, SearchConfig] = {
    "paper": SearchConfig(),
    "authors_2019": SearchConfig(
        epochs=200,
        order="alpha_first",
        network=SupernetConfig(wiring="2019"),
        weights=WeightUpdate(lr=0.01),
        sampler=SamplerConfig(tau_reaches_end=False),
    ),
    "authors_2020": SearchConfig(
        epochs=250,
        batch_size=256,
        split_seed=0,
        network=SupernetConfig(
            macro="3n", pooling_norm=False, bias_without_affine=True, fixed_affine=False
        ),
        weights=WeightUpdate(weight_decay=5e-4, nesterov=True, clip_scope="all"),
        alpha=AlphaUpdate(images="replacement"),
        sampler=SamplerConfig(tau_end=0.1, scope="cell_type"),
        derivation=Derivation(distinct_sources=False),
    ),
}

TRAIN_PRESETS: dict[Preset, TrainConfig] = {
    "paper": TrainConfig(),
    "authors_2019": TrainConfig(lr_min=1e-4),  # and drop_path 0.3 if cutout is off
    "authors_2020": TrainConfig(
        channels=33,
        macro="3n",
        pooling_norm=False,
        epochs=300,
        warmup_epochs=5,
        weight_decay=5e-4,
        nesterov=True,
        drop_path=0.0,  # in its config but not used by its code
    ),
}


def image_search_preset(preset: Preset, data_name: str) -> SearchConfig:
    """The settings of a search; photos get the ImageNet stem (the paper searched only CIFAR-10).

    Args:
        data_name: a name in IMAGE_DATA; any other stands for photos.
    """
    base = SEARCH_PRESETS[preset]
    if data_name in IMAGE_DATA:
        return dataclasses.replace(base, data=IMAGE_DATA[data_name])
    network = dataclasses.replace(base.network, stem="imagenet")
    return dataclasses.replace(base, data=PHOTO_DATA["imagenet"], network=network)


def image_train_preset(preset: Preset, data_name: str) -> TrainConfig:
    """The settings of a final training, which differ between CIFAR and ImageNet.

    Source: section 4.2 and the 2019 code. The 2020 code has no ImageNet recipe, so its preset for
    ImageNet has only its macro network and operations.

    Args:
        data_name: a name in IMAGE_DATA; any other stands for photos, which get ImageNet's recipe.
    """
    base = TRAIN_PRESETS[preset]
    if data_name in IMAGE_DATA:
        return dataclasses.replace(base, data=IMAGE_DATA[data_name])
    return dataclasses.replace(
        base,
        data=PHOTO_DATA["imagenet"],
        epochs=250,
        batch_size=128,
        channels=50,
        normals_per_block=4,
        stem="imagenet",
        lr=0.1,
        schedule="exponential",
        lr_min=0.0,
        lr_decay=0.97,
        warmup_epochs=0,
        nesterov=True,
        weight_decay=3e-5,
        auxiliary_weight=0.4,
        drop_path=0.0,
        label_smoothing=0.1,
    )


TEXT_SEARCH_PRESETS: dict[Preset, TextSearchConfig] = {
    "paper": TextSearchConfig(),
    "authors_2019": TextSearchConfig(
        batch_size=256,
        order="alpha_first",
        sampler=SamplerConfig(tau_reaches_end=False, relaxation="soft"),
        exclude_none=False,
    ),
}
"""Settings of recurrent searches; the 2020 code has none."""

BENCH201_SEARCH_PRESETS: dict[Preset, Bench201SearchConfig] = {
    "authors_2020": Bench201SearchConfig(),
}
"""Settings of searches in NAS-Bench-201, which is later than the paper and the 2019 code."""


def text_train_preset(preset: Preset, data: str) -> TextTrainConfig:
    """The settings of a final training on text, which differ between the two corpora."""
    theirs = preset == "authors_2019"
    rate: Literal["step", "authors"] = "authors" if theirs else "step"
    if data == "wikitext2":
        return TextTrainConfig(
            data=TextData(name=data),
            epochs=3000,
            hidden=700,
            weight_decay=5e-7,
            dropouts=Dropouts(hidden=0.15),
            asgd_rate=rate,
        )
    epochs = 3000 if theirs else 2000
    return TextTrainConfig(data=TextData(name=data), epochs=epochs, asgd_rate=rate)
