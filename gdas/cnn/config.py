"""Settings of searches for image cells and of trainings on images."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from gdas.cnn.genotype import OPERATIONS, check_names
from gdas.config import (
    AlphaUpdate,
    Kernels,
    Precision,
    SamplerConfig,
    WeightUpdate,
    check_alpha,
    check_descent,
)
from gdas.data.settings import IMAGE_DATA, AnyImageData
from gdas.errors import one_line
from gdas.outside import EXAMPLE, is_outside
from gdas.settings import (
    BelowOne,
    Interval,
    NotNegative,
    OneOrMore,
    Positive,
    TwoOrMore,
    ZeroOrMore,
    require,
    settings,
)


def _check_even(channels: int, stem: str) -> None:
    """Raise InputError if the ImageNet stem, with C / 2 channels, has an odd C."""
    require(
        stem == "cifar" or channels % 2 == 0,
        f"channels={channels}: the ImageNet stem needs an even number, such as {channels + 1}",
    )


# Pydantic's discriminator between the two classes of image data.
_BY_FORMAT = {"discriminator": "format"}


@settings
class SupernetConfig:
    """The network that is searched (paper sections 3.1, 3.3 and 4.2)."""

    channels: OneOrMore = 16  # C, section 4.2
    normals_per_block: OneOrMore = 2  # N, section 4.2
    nodes: OneOrMore = 4  # B, section 4.2
    reduction: Literal["searched", "fixed"] = "searched"  # fixed: GDAS (FRC), section 3.3
    stem: Literal["cifar", "imagenet"] = "cifar"
    macro: Literal["3n+2", "3n"] = "3n+2"  # Fig. 2; 3n, with BN-ReLU: the 2020 code
    pooling_norm: bool = True  # paper silent; as in the 2019 code
    bias_without_affine: bool = False  # true in the 2020 code only
    wiring: Literal["figure", "2019"] = "figure"  # Fig. 3; the 2019 search code differs
    fixed_affine: bool = True  # as in the 2019 code; false in the 2020 code

    def __post_init__(self) -> None:
        if self.reduction == "fixed":
            require(
                self.channels % 4 == 0,
                f"channels={self.channels}: the fixed reduction cell (FRC) needs channels "
                f"divisible by 4, such as {self.channels + -self.channels % 4}",
            )
            require(
                self.nodes == 4,
                f"nodes={self.nodes}: the fixed reduction cell (FRC) has four branches, so "
                "nodes must be 4; set nodes=4, or reduction=searched",
            )
        _check_even(self.channels, self.stem)


@settings
class Derivation:
    """From logits to a genotype (section 3.2)."""

    exclude_none: bool = True  # in the paper `none` is eligible; both codes exclude it
    distinct_sources: bool = True  # 2020 code: two operations may share a source


@settings
class SearchConfig:
    """One search: Algorithm 1 with one seed."""

    task: Literal["image"] = "image"
    data: AnyImageData = field(default=IMAGE_DATA["cifar10"], metadata=_BY_FORMAT)
    seed: int = 0
    epochs: OneOrMore = 240  # section 4.2
    batch_size: TwoOrMore = 128  # paper silent; as in the 2019 scripts
    train_images: TwoOrMore | None = None  # size of D_T; null: half of the training images
    valid_images: TwoOrMore | None = None  # size of D_V; null: the images that are not in D_T
    split_seed: int | None = None  # null: the run's seed (2019 code); a number: one split for all
    order: Literal["weights_first", "alpha_first"] = "weights_first"  # Algorithm 1
    network: SupernetConfig = field(default_factory=SupernetConfig)
    # What an edge chooses from: names of gdas.cnn.genotype.DERIVED_OPERATIONS, and functions of
    # your own as module:function (experiments/extending.md).
    operations: tuple[str, ...] = OPERATIONS
    weights: WeightUpdate = field(default_factory=WeightUpdate)
    alpha: AlphaUpdate = field(default_factory=AlphaUpdate)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    derivation: Derivation = field(default_factory=Derivation)
    # From how many batches of D_T batch norm's statistics are collected again before a cell is
    # scored with the shared weights.
    recalibration_batches: OneOrMore = 20
    # After the search, how many cells drawn from the final logits are compared with as many drawn
    # uniformly, all with the shared weights, and on how many images of D_V.
    compared_cells: ZeroOrMore = 8
    compared_images: TwoOrMore = 1000
    precision: Precision = "float32"  # of W steps and scores; alpha steps are always float32
    channels_last: bool = True  # memory layout; faster on CPUs and with tensor cores
    # fused: our own kernels on CPUs, in float32 (gdas.cnn.fused): other rounding, the same draws.
    # Without a C++ compiler, and where they do not reach, plain PyTorch runs.
    kernels: Kernels = "fused"
    compile: bool = False  # torch.compile for each operation, without fused kernels; slower on CPUs
    # graph: each step is one CUDA graph that finds out on the card what was drawn (gdas.cnn.graph).
    # The same draws and checkpoints, other rounding; needs a CUDA device and Triton.
    execution: Literal["eager", "graph"] = "eager"

    def __post_init__(self) -> None:
        check_names(self.operations)
        check_alpha(self.alpha, self.sampler, self.epochs)


@settings
class TrainConfig:
    """One training of a genotype's network on images (section 4.2; else the 2019 code)."""

    task: Literal["image"] = "image"
    data: AnyImageData = field(default=IMAGE_DATA["cifar10"], metadata=_BY_FORMAT)
    seed: int = 0
    epochs: OneOrMore = 600
    batch_size: TwoOrMore = 96  # over all workers; paper silent for CIFAR; as in the 2019 code
    train_images: TwoOrMore | None = None  # null: all of the training images
    channels: OneOrMore = 36
    normals_per_block: OneOrMore = 6
    stem: Literal["cifar", "imagenet"] = "cifar"
    macro: Literal["3n+2", "3n"] = "3n+2"
    pooling_norm: bool = True
    lr: Positive = 0.025
    schedule: Literal["cosine", "exponential"] = "cosine"  # per epoch
    lr_min: NotNegative = 0.0  # of the cosine; 1e-4 in the 2019 code
    lr_decay: Annotated[float, Interval(gt=0, le=1)] = 0.97  # exponential, per epoch (ImageNet)
    warmup_epochs: ZeroOrMore = 0
    momentum: BelowOne = 0.9
    nesterov: bool = False
    weight_decay: NotNegative = 3e-4
    clip: Positive = 5.0
    auxiliary_weight: NotNegative = 0.4  # 0: no auxiliary head
    drop_path: BelowOne = 0.2  # grows linearly from 0: drop_path * epoch / epochs
    label_smoothing: BelowOne = 0.0
    evaluate_every: OneOrMore = 1  # in epochs; the last epoch is always evaluated
    segments_per_epoch: OneOrMore = 1  # checkpoints per epoch; the weights do not depend on it
    precision: Precision = "float32"
    channels_last: bool = True  # memory layout; faster on CPUs and with tensor cores
    kernels: Kernels = "fused"  # as in a search
    compile: bool = False  # torch.compile, without fused kernels
    # Functions of your own (module:function) that its cell may have; those of the search that finds
    # it are added.
    operations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_even(self.channels, self.stem)
        for name in self.operations:
            require(
                is_outside(name),
                f"operations={one_line(name, 60)}: must be functions of your own as "
                f"module:function, such as {EXAMPLE}; the others are always there",
            )
        check_descent(self.lr, self.lr_min, self.momentum, nesterov=self.nesterov)
        require(
            self.warmup_epochs < self.epochs,
            f"warmup_epochs={self.warmup_epochs}: must be less than epochs ({self.epochs}), as 0",
        )
