"""Settings that every search space shares, and how two settings differ.

The settings of one space are in its folder: gdas.cnn.config, gdas.rnn.config, gdas.bench201.config.

The defaults are the preset `paper`: they are the paper's values if it is clear, and those of the
2019 code, which produced the published cells, if it is silent or contradicts itself. `authors_2019`
and `authors_2020` are the two programs that the authors released (gdas.presets). gdas.sources gives
the source of every setting.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from gdas.errors import one_line, suggestion
from gdas.outside import is_outside
from gdas.settings import BelowOne, NotNegative, Positive, ZeroOrMore, require, settings

Precision = Literal["float32", "bfloat16"]
Kernels = Literal["fused", "plain"]
"""fused: on CPUs, kernels of our own (gdas.cnn.fused); plain: PyTorch's operators alone."""


@settings
class WeightUpdate:
    """SGD on the shared weights W (section 4.2)."""

    lr: Positive = 0.025
    lr_min: NotNegative = 0.001  # cosine, per epoch
    momentum: BelowOne = 0.9
    weight_decay: NotNegative = 3e-4
    nesterov: bool = False  # paper silent; as in the 2019 code
    clip: Positive = 5.0  # gradient norm; paper silent; as in both codes
    clip_scope: Literal["weights", "all"] = "weights"  # all: alpha's gradient counts (2020 code)
    # Whether weight decay and momentum move operations that are not drawn in a step. decay: yes,
    # once they were drawn (the authors' PyTorch filled gradients with zeros). skip: no.
    undrawn: Literal["decay", "skip"] = "decay"

    def __post_init__(self) -> None:
        check_descent(self.lr, self.lr_min, self.momentum, nesterov=self.nesterov)


@settings
class AlphaUpdate:
    """Adam on the logits A (section 4.2; betas and decay also in the authors' code)."""

    lr: NotNegative = 3e-4
    betas: tuple[BelowOne, BelowOne] = (0.5, 0.999)
    weight_decay: NotNegative = 1e-3
    images: Literal["passes", "replacement"] = "passes"  # replacement: the 2020 code
    # For how many epochs at the start the logits are kept fixed, while W learns and D_V is only
    # measured, in one step of ten (our own setting).
    warmup_epochs: ZeroOrMore = 0
    # Which operations send a gradient to the logits in an alpha step. drawn: the drawn one
    # (section 3.2, Acceleration). all: the undrawn ones run too, times 0, so that Eq. 7 is used in
    # full; W steps still run only the drawn ones.
    gates: Literal["drawn", "all"] = "drawn"
    # How much more a better network counts in an alpha step (our own setting): the drawn network's
    # gradient is multiplied by exp(-risk_seeking (loss - mean)), with the mean loss on D_V of the
    # epoch before, and by 1 in the first epoch. 0 minimises the mean loss of the drawn networks
    # (Eq. 8); above it, the loss of the better ones: -log E exp(-risk_seeking loss).
    risk_seeking: NotNegative = 0.0

    def holds(self, epoch: int) -> bool:
        """Whether the logits are kept fixed in this epoch, counted from 0."""
        return epoch < self.warmup_epochs


@settings
class SamplerConfig:
    """The Gumbel-softmax sampler (section 3.2)."""

    tau_start: Positive = 10.0
    tau_end: Positive = 1.0  # the authors later advised 0.1
    tau_reaches_end: bool = True  # false: the 2019 code divides by epochs, not epochs - 1
    # Whether there is one draw for every cell of the network (2019 code; "copies of one cell" in
    # section 3.2), for each cell type (2020 code), or for each cell and image (text after Eq. 9).
    scope: Literal["cell_instance", "cell_type", "data_sample"] = "cell_instance"
    # hard: one operation per edge runs (Eq. 5-6). soft: all run, weighted by the relaxed sample
    # (2019 recurrent search code). softmax: all run, weighted by softmax(logits), without noise or
    # temperature, which is first-order DARTS.
    relaxation: Literal["hard", "soft", "softmax"] = "hard"
    # false: all operations run, the drawn one times 1 and the others times 0, and each of them
    # sends its gradient back (without "Acceleration" of section 3.2).
    acceleration: bool = True
    # How a search chooses. null: GDAS or DARTS, as `relaxation` says. random: uniform draws, from
    # which nothing is learned. evolution: of cells that the shared weights score. Or a class of
    # your own as module:name (experiments/extending.md).
    method: str | None = None

    def __post_init__(self) -> None:
        if self.method is not None:
            _check_method_name(self)
        require(
            self.scope != "data_sample" or (self.acceleration and self.relaxation == "hard"),
            "scope=data_sample: draws one operation an image; use it with acceleration=true and "
            "relaxation=hard",
        )


METHODS = ("random", "evolution")


def _check_method_name(sampler: SamplerConfig) -> None:
    method = sampler.method or ""
    require(
        method in METHODS or is_outside(method),
        f"method={one_line(method, 60)}: unknown{suggestion(method, METHODS)} (yours: module:name, "
        "such as mine:Greedy)",
    )
    require(
        sampler.relaxation == "hard" and sampler.acceleration,
        f"method={method}: draws in its own way; leave relaxation=hard and acceleration=true",
    )
    require(
        sampler.scope != "data_sample",
        f"method={method}: draws for a batch; use scope=cell_type, or cell_instance",
    )
    require(
        method != "evolution" or sampler.scope == "cell_type",
        f"scope={sampler.scope}: evolution scores whole cells, so all cells of a type must be the "
        "same; use scope=cell_type",
    )


def check_descent(lr: float, lr_min: float, momentum: float, *, nesterov: bool) -> None:
    """Raise InputError unless these settings of SGD go together."""
    require(lr_min <= lr, f"lr_min={lr_min}: must be from 0 to lr ({lr}), such as 0")
    require(
        not nesterov or momentum > 0,
        "nesterov=True: needs a momentum above 0, such as momentum=0.9",
    )


def check_alpha(alpha: AlphaUpdate, sampler: SamplerConfig, epochs: int) -> None:
    """Raise InputError unless the settings of logits, sampler and epochs go together."""
    require(
        alpha.warmup_epochs < epochs,
        f"alpha.warmup_epochs={alpha.warmup_epochs}: must be less than epochs ({epochs}), as 0",
    )
    require(
        alpha.gates == "drawn" or sampler.method is None,
        f"alpha.gates=all: is of GDAS; with sampler.method={sampler.method} use drawn",
    )
    require(
        alpha.gates == "drawn" or (sampler.relaxation == "hard" and sampler.scope != "data_sample"),
        "alpha.gates=all: needs sampler.relaxation=hard and a sampler.scope other than "
        "data_sample, such as cell_type; or set alpha.gates=drawn",
    )
    one_network = sampler.relaxation == "hard" and sampler.scope != "data_sample"
    require(
        not alpha.risk_seeking or (one_network and sampler.method is None),
        f"alpha.risk_seeking={alpha.risk_seeking:g}: compares the networks that GDAS draws, one a "
        "step; use it with sampler.relaxation=hard, a sampler.scope other than data_sample and no "
        "sampler.method, or set it to 0",
    )


def differences(config: Any, base: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, value, base's value) of every field in which two settings objects differ."""
    found = []
    for f in dataclasses.fields(base):
        ours, theirs = getattr(config, f.name), getattr(base, f.name)
        if dataclasses.is_dataclass(theirs) and type(ours) is type(theirs):
            found += differences(ours, theirs, f"{prefix}{f.name}.")
        elif ours != theirs:
            found.append((f"{prefix}{f.name}", ours, theirs))
    return found
