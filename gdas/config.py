"""Every setting of a search and of a training, with its default and where that comes from.

The defaults are the preset `paper`: where the paper speaks clearly, the paper; where it is silent
or contradicts itself, the 2019 code that produced the published cells. `authors_2019` and
`authors_2020` are the two programs the authors released. gdas.sources says of every setting where
its values are from.
"""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Annotated, Any, Literal

from gdas.data.settings import IMAGE_DATA, AnyImageData, ImageData, TextData
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

Precision = Literal["float32", "bfloat16"]


def _check_even(channels: int, stem: str) -> None:
    """The ImageNet stem has C / 2 channels and its first cell halves in two parts."""
    require(
        stem == "cifar" or channels % 2 == 0,
        f"channels={channels}: the ImageNet stem needs an even number",
    )


# Read by pydantic: which of the two kinds of image data the settings are.
_BY_FORMAT = {"discriminator": "format"}


@settings
class SupernetConfig:
    """The network that is searched (paper sections 3.1, 3.3 and 4.2)."""

    channels: OneOrMore = 16  # C, section 4.2
    normals_per_block: OneOrMore = 2  # N, section 4.2
    nodes: OneOrMore = 4  # B, section 4.2
    reduction: Literal["searched", "fixed"] = "searched"  # fixed: FRC, section 3.3
    stem: Literal["cifar", "imagenet"] = "cifar"
    macro: Literal["3n+2", "3n"] = "3n+2"  # Fig. 2; 3n with BN-ReLU: 2020 code
    pooling_norm: bool = True  # paper silent; 2019 code
    bias_without_affine: bool = False  # 2020 code only
    wiring: Literal["figure", "2019"] = "figure"  # Fig. 3; the 2019 search code differs
    fixed_affine: bool = True  # 2019 code; 2020 not

    def __post_init__(self) -> None:
        if self.reduction == "fixed":
            require(
                self.channels % 4 == 0,
                f"channels={self.channels}: the fixed reduction cell (FRC) needs channels "
                "divisible by 4",
            )
            require(
                self.nodes == 4,
                f"nodes={self.nodes}: the fixed reduction cell (FRC) has four branches, so "
                "nodes must be 4",
            )
        _check_even(self.channels, self.stem)


@settings
class WeightUpdate:
    """SGD on the shared weights W (section 4.2)."""

    lr: Positive = 0.025
    lr_min: NotNegative = 0.001  # cosine, per epoch
    momentum: BelowOne = 0.9
    weight_decay: NotNegative = 3e-4
    nesterov: bool = False  # paper silent; 2019 code
    clip: Positive = 5.0  # norm; paper silent; both codes
    clip_scope: Literal["weights", "all"] = "weights"  # all: 2020 code, alpha's gradient counts
    # What operations not drawn in a step receive from weight decay and momentum. decay: the
    # authors' torch filled gradients with zeros, so an operation once drawn kept moving.
    undrawn: Literal["decay", "skip"] = "decay"

    def __post_init__(self) -> None:
        _check_descent(self.lr, self.lr_min, self.momentum, nesterov=self.nesterov)


@settings
class AlphaUpdate:
    """Adam on the logits A (section 4.2; betas and decay also in the authors' code)."""

    lr: NotNegative = 3e-4
    betas: tuple[BelowOne, BelowOne] = (0.5, 0.999)
    weight_decay: NotNegative = 1e-3
    images: Literal["passes", "replacement"] = "passes"  # replacement: 2020 code
    # The first epochs hold the logits (ours): W learns, D_V is only measured.
    warmup_epochs: ZeroOrMore = 0
    # Which gates send a gradient back in an alpha step. drawn: section 3.2, Acceleration. all: the
    # undrawn operations run too, times 0, so that Eq. 7 is used in full; W steps run the drawn.
    gates: Literal["drawn", "all"] = "drawn"


@settings
class SamplerConfig:
    """The Gumbel-softmax sampler (section 3.2)."""

    tau_start: Positive = 10.0
    tau_end: Positive = 1.0  # the authors later advised 0.1
    tau_reaches_end: bool = True  # False: 2019 code divides by epochs, not epochs - 1
    # One draw for every cell of the net (2019 code; "copies of one cell" in section 3.2), one for
    # each cell type (2020 code), or one for each cell and image (the text after Eq. 9; no code).
    scope: Literal["cell_instance", "cell_type", "data_sample"] = "cell_instance"
    # hard: one operation an edge runs (Eq. 5-6). soft: all run, weighted by the relaxed sample
    # (2019 recurrent search code). softmax: all run, weighted by softmax(logits), without noise or
    # temperature: first-order DARTS in the same loop.
    relaxation: Literal["hard", "soft", "softmax"] = "hard"
    # False: all operations run, the drawn one times 1 and the others times 0, and every one of
    # them sends its gradient back ("Acceleration" of section 3.2 undone).
    acceleration: bool = True

    def __post_init__(self) -> None:
        require(
            self.scope != "data_sample" or (self.acceleration and self.relaxation == "hard"),
            "scope=data_sample: draws one operation an image; use it with acceleration=true and "
            "relaxation=hard",
        )


def _check_descent(lr: float, lr_min: float, momentum: float, *, nesterov: bool) -> None:
    require(lr_min <= lr, f"lr_min={lr_min}: must be from 0 to lr ({lr})")
    require(not nesterov or momentum > 0, "nesterov=True: needs a momentum above 0")


def _check_alpha(alpha: AlphaUpdate, sampler: SamplerConfig, epochs: int) -> None:
    require(
        alpha.warmup_epochs < epochs,
        f"alpha.warmup_epochs={alpha.warmup_epochs}: must be less than epochs ({epochs})",
    )
    require(
        alpha.gates == "drawn" or (sampler.relaxation == "hard" and sampler.scope != "data_sample"),
        "alpha.gates=all: needs sampler.relaxation=hard and a sampler.scope other than data_sample",
    )


@settings
class Derivation:
    """From logits to a genotype (section 3.2)."""

    exclude_none: bool = True  # paper: eligible; both codes exclude it
    distinct_sources: bool = True  # 2020 code: two operations may share a source


@settings
class SearchConfig:
    """One search: Algorithm 1 with one seed."""

    task: Literal["image"] = "image"
    data: AnyImageData = field(default=IMAGE_DATA["cifar10"], metadata=_BY_FORMAT)
    seed: int = 0
    epochs: OneOrMore = 240  # section 4.2
    batch_size: TwoOrMore = 128  # global; paper silent; 2019 scripts
    train_images: TwoOrMore | None = None  # size of D_T; None: half of the training images
    valid_images: TwoOrMore | None = None  # size of D_V
    split_seed: int | None = None  # None: the run's seed (2019); a number: one split for all seeds
    order: Literal["weights_first", "alpha_first"] = "weights_first"  # Algorithm 1; 2019 alpha
    network: SupernetConfig = field(default_factory=SupernetConfig)
    weights: WeightUpdate = field(default_factory=WeightUpdate)
    alpha: AlphaUpdate = field(default_factory=AlphaUpdate)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    derivation: Derivation = field(default_factory=Derivation)
    # Scoring the derived cell with the shared weights: batches of D_T that refill batch norm.
    recalibration_batches: OneOrMore = 20
    # After the search, cells drawn from the final logits beside as many drawn uniformly, all with
    # the shared weights, on so many images of D_V. Costs a forward pass of each image for each.
    compared_cells: ZeroOrMore = 8
    compared_images: TwoOrMore = 1000
    precision: Precision = "float32"
    channels_last: bool = True  # memory layout; faster on CPUs and with tensor cores
    compile: bool = False  # torch.compile, every operation by itself; does not pay on CPUs

    def __post_init__(self) -> None:
        _check_alpha(self.alpha, self.sampler, self.epochs)


@settings
class TrainConfig:
    """One training of a genotype's network on images (section 4.2; spec of the 2019 code)."""

    task: Literal["image"] = "image"
    data: AnyImageData = field(default=IMAGE_DATA["cifar10"], metadata=_BY_FORMAT)
    seed: int = 0
    epochs: OneOrMore = 600
    batch_size: TwoOrMore = 96  # global; not in the paper for CIFAR; 2019 config
    train_images: TwoOrMore | None = None  # None: all of the training images
    channels: OneOrMore = 36
    normals_per_block: OneOrMore = 6
    stem: Literal["cifar", "imagenet"] = "cifar"
    macro: Literal["3n+2", "3n"] = "3n+2"
    pooling_norm: bool = True
    lr: Positive = 0.025
    schedule: Literal["cosine", "exponential"] = "cosine"  # per epoch
    lr_min: NotNegative = 0.0  # cosine: paper; 2019 released code 1e-4
    lr_decay: Annotated[float, Interval(gt=0, le=1)] = 0.97  # exponential, per epoch: ImageNet
    warmup_epochs: ZeroOrMore = 0
    momentum: BelowOne = 0.9
    nesterov: bool = False
    weight_decay: NotNegative = 3e-4
    clip: Positive = 5.0
    auxiliary_weight: NotNegative = 0.4  # 0: no auxiliary head
    drop_path: BelowOne = 0.2  # grows linearly from 0: drop_path * epoch / epochs
    label_smoothing: BelowOne = 0.0
    evaluate_every: OneOrMore = 1  # epochs; the last is always evaluated
    segments_per_epoch: OneOrMore = 1  # checkpoints an epoch; the weights do not depend on it
    precision: Precision = "float32"
    channels_last: bool = True  # memory layout; faster on CPUs and with tensor cores
    compile: bool = False  # torch.compile

    def __post_init__(self) -> None:
        _check_even(self.channels, self.stem)
        _check_descent(self.lr, self.lr_min, self.momentum, nesterov=self.nesterov)
        require(
            self.warmup_epochs < self.epochs,
            f"warmup_epochs={self.warmup_epochs}: must be less than epochs ({self.epochs})",
        )


@settings
class Dropouts:
    """Drop probabilities of the language model (authors' code, PTB)."""

    output: BelowOne = 0.75  # locked, on the cell's outputs
    hidden: BelowOne = 0.25  # h mask in the cell
    input: BelowOne = 0.75  # x mask in the cell
    embedded: BelowOne = 0.2  # locked, on the embedded words
    word: BelowOne = 0.1  # whole rows of the embedding


@settings
class TextSearchConfig:
    """One search for a recurrent cell (section 4.3)."""

    task: Literal["text"] = "text"
    data: TextData = field(default_factory=TextData)
    seed: int = 0
    epochs: OneOrMore = 200  # section 4.3
    batch_size: TwoOrMore = 128  # section 4.3; 2019 code 256
    bptt: TwoOrMore = 35  # with probability 0.95, else half of it
    train_tokens: int | None = None  # the first ones; None: all
    valid_tokens: int | None = None
    hidden: OneOrMore = 300  # = embedding size
    steps: OneOrMore = 8  # after the input state: the paper's B = 9 counts that
    dropouts: Dropouts = field(default_factory=lambda: Dropouts(word=0.0))
    temporal: NotNegative = 1e-3  # regularisation of consecutive outputs, W loss only
    order: Literal["weights_first", "alpha_first"] = "weights_first"  # Algorithm 1; 2019 alpha
    # Paper: "Adam" with rate 20, which diverges; 2019 code: SGD with 20, constant.
    weights: WeightUpdate = field(
        default_factory=lambda: WeightUpdate(
            lr=20.0, lr_min=20.0, momentum=0.0, weight_decay=5e-7, clip=0.25
        )
    )
    alpha: AlphaUpdate = field(default_factory=lambda: AlphaUpdate(lr=3e-3, betas=(0.9, 0.999)))
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    exclude_none: bool = True  # paper: eligible, as in the 2019 code
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        _check_alpha(self.alpha, self.sampler, self.epochs)
        require(
            self.sampler.scope != "data_sample",
            "sampler.scope=data_sample: a recurrent cell has one draw a batch",
        )


@settings
class Bench201SearchConfig:
    """One search in the space of NAS-Bench-201 (Dong & Yang, ICLR 2020).

    The GDAS paper knows nothing of this space: the defaults are those of the authors' 2020 code
    for the benchmark.
    """

    task: Literal["bench201"] = "bench201"
    data: ImageData = IMAGE_DATA["cifar10"]
    seed: int = 0
    epochs: OneOrMore = 250  # 240 in one of the code's settings files
    batch_size: TwoOrMore = 64  # global
    train_images: TwoOrMore | None = None  # size of D_T; None: half of the training images
    valid_images: TwoOrMore | None = None  # size of D_V
    split_seed: int | None = 0  # one split for all seeds, as the code's fixed file
    order: Literal["weights_first", "alpha_first"] = "weights_first"
    channels: OneOrMore = 16  # C; doubled after the first and the second stage
    normals_per_block: OneOrMore = 5  # N, cells of each of the three stages
    weights: WeightUpdate = field(
        default_factory=lambda: WeightUpdate(weight_decay=5e-4, nesterov=True, clip_scope="all")
    )
    alpha: AlphaUpdate = field(default_factory=lambda: AlphaUpdate(images="replacement"))
    sampler: SamplerConfig = field(
        default_factory=lambda: SamplerConfig(tau_end=0.1, scope="cell_type")
    )
    # Scoring cells with the shared weights: batches of D_T that refill batch norm.
    recalibration_batches: OneOrMore = 20
    precision: Precision = "float32"
    channels_last: bool = True  # memory layout; faster on CPUs and with tensor cores

    def __post_init__(self) -> None:
        _check_alpha(self.alpha, self.sampler, self.epochs)


ImageSearchConfig = SearchConfig | Bench201SearchConfig
AnySearchConfig = SearchConfig | TextSearchConfig | Bench201SearchConfig


@settings
class TextTrainConfig:
    """One training of a language model (section 4.3; the 2019 code where it is silent)."""

    task: Literal["text"] = "text"
    data: TextData = field(default_factory=TextData)
    seed: int = 0
    epochs: OneOrMore = 2000  # PTB; WikiText-2: 3000
    batch_size: OneOrMore = 64  # global
    evaluation_batch_size: OneOrMore = 10
    test_batch_size: OneOrMore = 1
    bptt: TwoOrMore = 35  # mean with probability 0.95, else half of it; then normal with sd 5
    train_tokens: int | None = None  # the first ones; None: all
    hidden: OneOrMore = 850  # = embedding size; WikiText-2: 700
    dropouts: Dropouts = field(default_factory=Dropouts)  # WikiText-2: hidden 0.15
    temporal: NotNegative = 1e-3
    lr: Positive = 20.0
    weight_decay: NotNegative = 8e-7  # WikiText-2: 5e-7
    clip: Positive = 0.25
    # When SGD becomes averaged SGD. all: after 5 epochs, once the validation loss exceeds the
    # best of all earlier epochs (2019 code). non_monotonic: the best of all but the last 5 (AWD).
    averaging: Literal["all", "non_monotonic"] = "all"
    restarts: ZeroOrMore = 3  # times a NaN may send the run back to its best epoch
    precision: Precision = "float32"
    compile: bool = False  # torch.compile


def differences(config: Any, base: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, value, base's value) for every leaf where two settings objects differ."""
    found = []
    for f in dataclasses.fields(base):
        ours, theirs = getattr(config, f.name), getattr(base, f.name)
        if dataclasses.is_dataclass(theirs) and type(ours) is type(theirs):
            found += differences(ours, theirs, f"{prefix}{f.name}.")
        elif ours != theirs:
            found.append((f"{prefix}{f.name}", ours, theirs))
    return found
