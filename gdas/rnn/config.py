"""Settings of searches for recurrent cells and of trainings of language models."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from gdas.config import AlphaUpdate, Precision, SamplerConfig, WeightUpdate, check_alpha
from gdas.data.settings import TextData
from gdas.settings import (
    BelowOne,
    NotNegative,
    OneOrMore,
    Positive,
    TwoOrMore,
    ZeroOrMore,
    require,
    settings,
)


@settings
class Dropouts:
    """The language model's drop probabilities (authors' code, PTB)."""

    output: BelowOne = 0.75  # locked dropout on the cell's outputs
    hidden: BelowOne = 0.25  # mask on h in the cell
    input: BelowOne = 0.75  # mask on x in the cell
    embedded: BelowOne = 0.2  # locked dropout on the embedded words
    word: BelowOne = 0.1  # on whole rows of the embedding


@settings
class TextSearchConfig:
    """One search for a recurrent cell (section 4.3)."""

    task: Literal["text"] = "text"
    data: TextData = field(default_factory=TextData)
    seed: int = 0
    epochs: OneOrMore = 200  # section 4.3
    batch_size: TwoOrMore = 128  # section 4.3; 256 in the 2019 code
    bptt: TwoOrMore = 35  # time steps per sequence; half of it with probability 0.05
    train_tokens: int | None = None  # the first ones; None: all
    valid_tokens: int | None = None  # the first ones; null: all
    hidden: OneOrMore = 300  # also the embedding's size
    steps: OneOrMore = 8  # without the input state, which the paper's B = 9 counts
    dropouts: Dropouts = field(default_factory=lambda: Dropouts(word=0.0))
    temporal: NotNegative = 1e-3  # regularises consecutive outputs, in the W loss only
    order: Literal["weights_first", "alpha_first"] = "weights_first"  # Algorithm 1
    # The paper says Adam with rate 20, which diverges; the 2019 code has SGD, constant rate 20.
    weights: WeightUpdate = field(
        default_factory=lambda: WeightUpdate(
            lr=20.0, lr_min=20.0, momentum=0.0, weight_decay=5e-7, clip=0.25
        )
    )
    alpha: AlphaUpdate = field(default_factory=lambda: AlphaUpdate(lr=3e-3, betas=(0.9, 0.999)))
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    exclude_none: bool = True  # `none` is eligible in the paper and in the 2019 code
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_alpha(self.alpha, self.sampler, self.epochs)
        require(
            self.sampler.scope != "data_sample",
            "sampler.scope=data_sample: a recurrent cell has one draw a batch; use cell_type",
        )


@settings
class TextTrainConfig:
    """One training of a language model (section 4.3; if it is silent, the 2019 code)."""

    task: Literal["text"] = "text"
    data: TextData = field(default_factory=TextData)
    seed: int = 0
    epochs: OneOrMore = 2000  # PTB; 3000 for WikiText-2
    batch_size: OneOrMore = 64  # over all workers
    evaluation_batch_size: OneOrMore = 10
    test_batch_size: OneOrMore = 1
    bptt: TwoOrMore = 35  # mean of the time steps per sequence, which are drawn with sd 5
    train_tokens: int | None = None  # the first ones; None: all
    hidden: OneOrMore = 850  # also the embedding's size; 700 for WikiText-2
    dropouts: Dropouts = field(default_factory=Dropouts)  # hidden 0.15 for WikiText-2
    temporal: NotNegative = 1e-3
    lr: Positive = 20.0
    weight_decay: NotNegative = 8e-7  # 5e-7 for WikiText-2
    clip: Positive = 0.25
    # When SGD becomes averaged SGD. all: after 5 epochs, once the validation loss exceeds the best
    # of all earlier epochs (2019 code). non_monotonic: the best of all but the last 5 (AWD-LSTM).
    averaging: Literal["all", "non_monotonic"] = "all"
    # The rate of a step of averaged SGD. step: by its own sequence's length, as before averaging.
    # authors: by that of the sequence before it, as torch.optim.ASGD steps in the 2019 code.
    asgd_rate: Literal["step", "authors"] = "step"
    restarts: ZeroOrMore = 3  # how often the run may go back to its best epoch after a NaN
    precision: Precision = "float32"
    compile: bool = False  # torch.compile
