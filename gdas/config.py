"""Settings that every search space shares, and how two settings differ.

Those of one space are in its folder: gdas.cnn.config, gdas.rnn.config, gdas.bench201.config.

The defaults are the preset `paper`: where the paper speaks clearly, the paper; where it is silent
or contradicts itself, the 2019 code that produced the published cells. `authors_2019` and
`authors_2020` are the two programs the authors released (gdas.presets). gdas.sources says of every
setting where its values are from.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from gdas.settings import BelowOne, NotNegative, Positive, ZeroOrMore, require, settings

Precision = Literal["float32", "bfloat16"]


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
        check_descent(self.lr, self.lr_min, self.momentum, nesterov=self.nesterov)


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


def check_descent(lr: float, lr_min: float, momentum: float, *, nesterov: bool) -> None:
    require(lr_min <= lr, f"lr_min={lr_min}: must be from 0 to lr ({lr}), such as 0")
    require(
        not nesterov or momentum > 0,
        "nesterov=True: needs a momentum above 0, such as momentum=0.9",
    )


def check_alpha(alpha: AlphaUpdate, sampler: SamplerConfig, epochs: int) -> None:
    require(
        alpha.warmup_epochs < epochs,
        f"alpha.warmup_epochs={alpha.warmup_epochs}: must be less than epochs ({epochs}), as 0",
    )
    require(
        alpha.gates == "drawn" or (sampler.relaxation == "hard" and sampler.scope != "data_sample"),
        "alpha.gates=all: needs sampler.relaxation=hard and a sampler.scope other than "
        "data_sample, such as cell_type; or set alpha.gates=drawn",
    )


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
