"""Settings of searches in the space of NAS-Bench-201."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from gdas.config import AlphaUpdate, Kernels, Precision, SamplerConfig, WeightUpdate, check_alpha
from gdas.data.settings import IMAGE_DATA, ImageData
from gdas.settings import OneOrMore, TwoOrMore, settings


@settings
class Bench201SearchConfig:
    """One search in the space of NAS-Bench-201 (Dong & Yang, ICLR 2020).

    The GDAS paper is older than this space, so the defaults are those of the authors' 2020 code for
    the benchmark.
    """

    task: Literal["bench201"] = "bench201"
    data: ImageData = IMAGE_DATA["cifar10"]
    seed: int = 0
    epochs: OneOrMore = 250  # 240 in one of that code's files of settings
    batch_size: TwoOrMore = 64
    train_images: TwoOrMore | None = None  # size of D_T; null: half of the training images
    valid_images: TwoOrMore | None = None  # size of D_V; null: the images that are not in D_T
    split_seed: int | None = 0  # one split for all seeds, as in that code
    order: Literal["weights_first", "alpha_first"] = "weights_first"
    channels: OneOrMore = 16  # C; doubled after the first and the second stage
    normals_per_block: OneOrMore = 5  # N, the number of cells in each of the three stages
    weights: WeightUpdate = field(
        default_factory=lambda: WeightUpdate(weight_decay=5e-4, nesterov=True, clip_scope="all")
    )
    alpha: AlphaUpdate = field(default_factory=lambda: AlphaUpdate(images="replacement"))
    sampler: SamplerConfig = field(
        default_factory=lambda: SamplerConfig(tau_end=0.1, scope="cell_type")
    )
    # From how many batches of D_T batch norm's statistics are collected again before a cell is
    # scored with the shared weights.
    recalibration_batches: OneOrMore = 20
    precision: Precision = "float32"  # of W steps and scores; alpha steps are always float32
    channels_last: bool = True  # memory layout; faster on CPUs and with tensor cores
    kernels: Kernels = "fused"  # as in a search for image cells

    def __post_init__(self) -> None:
        check_alpha(self.alpha, self.sampler, self.epochs)
