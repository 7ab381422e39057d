"""The source of every setting: what the paper says about it, where, and what it can change.

There are three sources, which disagree: the paper (CVPR 2019), the authors' code of 2019, from the
time of the published cells, and their re-implementation of 2020. Their values are in the presets of
gdas.presets and are not repeated here. SOURCES says for every setting whether the paper gives it;
NOT_SOURCED has those that no source has, and why. A new setting belongs in one of the two, which a
test checks. NOT_SETTINGS are points on which the sources disagree and this project has no setting.

orchestrator.paper.deviations makes lines of the report from this.
"""

from __future__ import annotations

from dataclasses import dataclass

from gdas.cnn.config import SearchConfig, TrainConfig
from gdas.rnn.config import TextSearchConfig, TextTrainConfig


@dataclass(frozen=True)
class Says:
    """What the paper says about a setting.

    Attributes:
        text: for the reader.
        value: the setting's value by the letter of the paper; None if it gives no such value.
    """

    text: str
    value: object = None


PRESET = Says("the value of the preset `paper`")
SILENT = Says("silent")
UNRECORDED = Says("not recorded here")
"""The value is from the authors' code; whether the paper gives one too was not checked."""


@dataclass(frozen=True)
class Source:
    """A setting's source.

    Attributes:
        key: the setting's dotted key, below its settings class.
        paper: PRESET, SILENT, UNRECORDED, or what the paper says that no preset can have.
        why: where the sources say so and, if they leave a choice, the reason for this one.
        touches: the numbers that it can change; None: those in TOUCHES.
        also: further values that the paper has, in other rows of its tables.
    """

    key: str
    paper: Says
    why: str
    touches: str | None = None
    also: tuple[object, ...] = ()


@dataclass(frozen=True)
class NotASetting:
    """A point on which the sources disagree and this project does one thing.

    Attributes:
        key: the name of the point.
        configs: the settings classes of the jobs that it applies to.
        ours: what this project does.
        paper: what the paper says; its value, if there is one, is compared with `ours`.
        why: where the sources say so, and the reason for ours.
        code_2019, code_2020: what the authors' codes do; None: the same as `ours`.
        touches: the numbers that it can change; None: those in TOUCHES.
        only: (dotted key, value) that a search's settings must have for it to matter.
    """

    key: str
    configs: tuple[type, ...]
    ours: str
    paper: Says
    why: str
    code_2019: str | None = None
    code_2020: str | None = None
    touches: str | None = None
    only: tuple[str, object] | None = None


FRC = "searches with the fixed reduction cell: Tables 1, 2 and 5"
TOUCHES: dict[type, str] = {
    SearchConfig: "every image search: Tables 1, 2 and 5",
    TrainConfig: "trainings on images: Tables 1, 2 and 5",
    TextSearchConfig: "every recurrent search: Tables 3 and 4",
    TextTrainConfig: "trainings of language models: Tables 3 and 4",
}

S42, S43 = "paper section 4.2", "paper section 4.3"
SEARCH19, RNN19 = "authors' 2019 search code", "authors' 2019 recurrent search code"
TRAIN19, CODE20 = "authors' 2019 training code", "authors' 2020 code"
CODES = "both authors' codes"


SOURCES: dict[type, tuple[Source, ...]] = {
    SearchConfig: (
        Source("data.name", PRESET, f"{S42}: image cells are searched on CIFAR-10"),
        Source("data.crop_padding", UNRECORDED, f"{CODES}; other images than CIFAR: our choice"),
        Source("data.flip", UNRECORDED, f"{CODES}; other images than CIFAR: our choice"),
        Source("data.cutout", UNRECORDED, f"{CODES}: no cutout in the search"),
        Source("epochs", PRESET, f"{S42}; the 2019 script that runs has 200, others 50 to 300"),
        Source("batch_size", SILENT, f"{SEARCH19}, its scripts"),
        Source("train_images", PRESET, f"{S42}: half of the training images"),
        Source("valid_images", PRESET, f"{S42}: the other half"),
        Source(
            "split_seed",
            Says("random halves, not said whether anew for every seed"),
            f"{S42}; {SEARCH19}: by the run's seed; {CODE20}: one fixed file",
        ),
        Source("order", PRESET, f"paper Algorithm 1; {SEARCH19}: alpha before W"),
        Source("network.channels", PRESET, S42),
        Source("network.normals_per_block", PRESET, S42),
        Source("network.nodes", PRESET, S42),
        Source("operations", PRESET, "paper section 3.1: eight functions"),
        Source("network.stem", PRESET, "paper Fig. 2; a direct search on ImageNet is future work"),
        Source("network.macro", PRESET, f"paper Fig. 2; {CODE20}: BN-ReLU before the classifier"),
        Source("network.pooling_norm", SILENT, f"{SEARCH19}: batch norm without affine"),
        Source("network.bias_without_affine", SILENT, f"{CODE20} alone"),
        Source("network.wiring", PRESET, f"paper Fig. 3; {SEARCH19}: older wiring", FRC),
        Source("network.fixed_affine", SILENT, f"{SEARCH19}: affine in the fixed cell", FRC),
        Source("weights.lr", PRESET, f"{S42}; the 2019 script that runs has 0.01"),
        Source("weights.lr_min", PRESET, S42),
        Source("weights.momentum", PRESET, S42),
        Source("weights.weight_decay", PRESET, S42),
        Source("weights.nesterov", SILENT, SEARCH19),
        Source("weights.clip", SILENT, CODES),
        Source("weights.clip_scope", SILENT, f"{SEARCH19}: W; {CODE20}: alpha's gradient counts"),
        Source("weights.undrawn", SILENT, f"{CODES}: PyTorch then filled gradients with zeros"),
        Source("alpha.lr", PRESET, S42),
        Source("alpha.betas", UNRECORDED, CODES),
        Source("alpha.weight_decay", PRESET, S42),
        Source("alpha.images", SILENT, f"{SEARCH19}: shuffled passes"),
        Source("alpha.warmup_epochs", PRESET, f"paper Algorithm 1: A moves at once; {CODES}"),
        Source("alpha.gates", PRESET, "paper section 3.2, Acceleration; all codes"),
        Source("alpha.risk_seeking", PRESET, f"paper Eq. 8: every draw counts alike; {CODES}"),
        Source("sampler.tau_start", PRESET, S42),
        Source("sampler.tau_end", PRESET, f"{S42}; the authors later advised 0.1"),
        Source("sampler.tau_reaches_end", PRESET, f"{S42}: linear to the end value"),
        Source(
            "sampler.scope",
            Says("contradicts itself: copies of one cell, and a draw for every data sample"),
            f"paper section 3.2, text after Eq. 9; {SEARCH19}: a draw for every cell of the net",
        ),
        Source("sampler.relaxation", PRESET, "paper Eq. 5 and 6"),
        Source("sampler.method", PRESET, "paper Algorithm 1"),
        Source("sampler.acceleration", PRESET, "paper section 3.2, Acceleration; all codes"),
        Source(
            "derivation.exclude_none",
            Says("`none` eligible", value=False),
            f"paper section 3.2, its index set; {CODES} exclude it",
        ),
        Source("derivation.distinct_sources", PRESET, "paper section 3.2: T earlier nodes"),
    ),
    TrainConfig: (
        Source("data.name", PRESET, "paper section 4.1", also=("cifar100", "imagenet")),
        Source("data.crop_padding", UNRECORDED, f"{CODES}; other images than CIFAR: our choice"),
        Source("data.flip", UNRECORDED, f"{CODES}; other images than CIFAR: our choice"),
        Source(
            "data.cutout",
            PRESET,
            f"paper Table 1: rows with and without; the side is {TRAIN19}'s",
            also=(16,),
        ),
        Source("epochs", PRESET, S42),
        Source("batch_size", SILENT, f"not given for CIFAR; {TRAIN19}, its configuration"),
        Source("train_images", PRESET, f"{S42}: all of them"),
        Source(
            "channels",
            PRESET,
            "paper Table 1; ImageNet with the fixed reduction cell: 52, which gives the paper's "
            "4.4 M parameters (its groups do not divide 50)",
        ),
        Source("normals_per_block", PRESET, "paper Table 1"),
        Source("stem", PRESET, "paper Fig. 2"),
        Source("macro", PRESET, f"paper Fig. 2; {CODE20}: BN-ReLU before the classifier"),
        Source("pooling_norm", SILENT, f"{TRAIN19}: batch norm without affine"),
        Source("lr", PRESET, S42),
        Source("schedule", PRESET, S42),
        Source("lr_min", PRESET, f"{S42}: to 0; {TRAIN19} and its log: 0.0001"),
        Source("lr_decay", PRESET, f"{S42}, ImageNet; read by the exponential schedule only"),
        Source("warmup_epochs", SILENT, f"{TRAIN19}: none; {CODE20}: 5"),
        Source("momentum", UNRECORDED, TRAIN19),
        Source("nesterov", SILENT, TRAIN19),
        Source("weight_decay", SILENT, TRAIN19),
        Source("clip", SILENT, TRAIN19),
        Source("auxiliary_weight", UNRECORDED, TRAIN19),
        Source("drop_path", PRESET, f"{S42}; {TRAIN19}: 0.3 without cutout; {CODE20}: not used"),
        Source("label_smoothing", SILENT, f"{TRAIN19}: none on CIFAR"),
    ),
    TextSearchConfig: (
        Source("data.name", PRESET, f"{S43}: recurrent cells are searched on Penn Treebank"),
        Source("epochs", PRESET, f"{S43}; {RNN19}: its notes"),
        Source("batch_size", PRESET, f"{S43}; {RNN19}: 256"),
        Source("bptt", UNRECORDED, RNN19),
        Source("train_tokens", PRESET, "paper section 4.1: all of the training text"),
        Source("valid_tokens", PRESET, "paper section 4.1: all of the validation text"),
        Source("hidden", UNRECORDED, RNN19),
        Source("steps", PRESET, f"{S43}: B = 9 counts the input state"),
        Source("dropouts.output", UNRECORDED, RNN19),
        Source("dropouts.hidden", UNRECORDED, RNN19),
        Source("dropouts.input", UNRECORDED, RNN19),
        Source("dropouts.embedded", UNRECORDED, RNN19),
        Source("dropouts.word", UNRECORDED, RNN19),
        Source("temporal", UNRECORDED, RNN19),
        Source("order", PRESET, f"paper Algorithm 1; {RNN19}: alpha before W"),
        Source("weights.lr", PRESET, f"{S43}: 20, with Adam; {RNN19}: 20, with SGD"),
        Source("weights.lr_min", UNRECORDED, f"{RNN19}: constant rate"),
        Source("weights.momentum", UNRECORDED, RNN19),
        Source("weights.weight_decay", UNRECORDED, RNN19),
        Source("weights.nesterov", SILENT, RNN19),
        Source("weights.clip", UNRECORDED, RNN19),
        Source("weights.clip_scope", SILENT, f"{RNN19}: W alone"),
        Source("weights.undrawn", SILENT, f"{RNN19}: PyTorch then filled gradients with zeros"),
        Source("alpha.lr", UNRECORDED, RNN19),
        Source("alpha.betas", UNRECORDED, RNN19),
        Source("alpha.weight_decay", UNRECORDED, RNN19),
        Source("alpha.warmup_epochs", PRESET, f"paper Algorithm 1: A moves at once; {RNN19}"),
        Source("alpha.gates", PRESET, "paper section 3.2, Acceleration"),
        Source("alpha.risk_seeking", PRESET, f"paper Eq. 8: every draw counts alike; {RNN19}"),
        Source("sampler.tau_start", SILENT, f"{RNN19}: its notes"),
        Source("sampler.tau_end", SILENT, f"{RNN19}: its notes"),
        Source(
            "sampler.tau_reaches_end",
            SILENT,
            f"to the end value, as in the image search; {RNN19} stops one step short",
        ),
        Source("sampler.relaxation", PRESET, f"paper Eq. 5 and 6; {RNN19}: all operations run"),
        Source("sampler.method", PRESET, "paper Algorithm 1"),
        Source("sampler.acceleration", PRESET, "paper section 3.2, Acceleration"),
        Source(
            "exclude_none",
            Says("`none` eligible", value=False),
            f"paper section 3.2 and {RNN19}; excluded here, as in the image search, because the "
            "search and the derived cell mean different things by `none`",
        ),
    ),
    TextTrainConfig: (
        Source("data.name", PRESET, "paper section 4.1", also=("wikitext2",)),
        Source("epochs", PRESET, f"{S43}; {TRAIN19}: 3000 on both corpora"),
        Source("batch_size", UNRECORDED, TRAIN19),
        Source("evaluation_batch_size", UNRECORDED, TRAIN19),
        Source("test_batch_size", UNRECORDED, TRAIN19),
        Source("bptt", UNRECORDED, TRAIN19),
        Source("train_tokens", PRESET, "paper section 4.1: all of the training text"),
        Source("hidden", UNRECORDED, TRAIN19),
        Source("dropouts.output", UNRECORDED, TRAIN19),
        Source("dropouts.hidden", UNRECORDED, TRAIN19),
        Source("dropouts.input", UNRECORDED, TRAIN19),
        Source("dropouts.embedded", UNRECORDED, TRAIN19),
        Source("dropouts.word", UNRECORDED, TRAIN19),
        Source("temporal", UNRECORDED, TRAIN19),
        Source("lr", UNRECORDED, TRAIN19),
        Source("weight_decay", UNRECORDED, TRAIN19),
        Source("clip", UNRECORDED, TRAIN19),
        Source(
            "averaging",
            Says("averaged SGD, not said when it begins"),
            f"{S43}; {TRAIN19}: at the first epoch that does not improve",
        ),
        Source(
            "asgd_rate",
            SILENT,
            f"{TRAIN19} scales the rate before each step by its sequence's length, but "
            "torch.optim.ASGD steps with the rate that was set one step earlier (seen in 2.14.1): "
            "a sequence gets the rate of the one before it, which was not meant; not done here",
        ),
    ),
}

_TASK = "which kind of job it is"
_CONSTANTS = "constants of the data set, which has its own line"
_FORMAT = "how the images are stored"
_CHECKSUM = "any: other files than the published ones; they have a name of their own in job ids"
_SEED = "names the run; results are reported by seed"
_ROUNDING = "where and how it is computed; only rounding differs"
_COMPARED = "our own comparison after the search; the search does not depend on it"
_PRECISION = "no source names one; float32 is never TensorFloat32"

_OF_IMAGES = {
    "task": _TASK,
    "seed": _SEED,
    "data.mean": _CONSTANTS,
    "data.std": _CONSTANTS,
    "data.format": _FORMAT,
    "data.checksum": _CHECKSUM,
    "precision": _PRECISION,
    "channels_last": _ROUNDING,
    "kernels": _ROUNDING,
}
_OF_TEXT = {
    "task": _TASK,
    "seed": _SEED,
    "precision": _PRECISION,
    "data.format": "a known text or your own files",
    "data.checksum": _CHECKSUM,
    "data.min_count": "your own text only; known texts are used as they are",
}

NOT_SOURCED: dict[type, dict[str, str]] = {
    SearchConfig: _OF_IMAGES
    | {
        "network.reduction": "which of the paper's two searches it is",
        "recalibration_batches": "our way to score a derived cell with shared weights",
        "compared_cells": _COMPARED,
        "compared_images": _COMPARED,
        "compile": _ROUNDING,
        "execution": _ROUNDING,
    },
    TrainConfig: _OF_IMAGES
    | {
        "segments_per_epoch": "how often checkpoints are saved; the weights do not depend on it",
        "evaluate_every": "how often is looked, not what is trained",
        "operations": "which functions of your own may run; the cell says which of them do",
        "compile": _ROUNDING,
    },
    TextSearchConfig: _OF_TEXT
    | {
        "alpha.images": "image searches only; a recurrent search reads the text in order",
        "sampler.scope": "a recurrent network has one cell, so all scopes are the same",
    },
    TextTrainConfig: _OF_TEXT
    | {
        "restarts": "only matters if a run has diverged; the authors' code has no limit",
        "compile": _ROUNDING,
    },
}

_IMAGES = (SearchConfig, TrainConfig)
_SEARCHES = (SearchConfig, TextSearchConfig)

NOT_SETTINGS = (
    NotASetting(
        "search loss",
        _SEARCHES,
        "mean over the batch",
        Says("sum (Algorithm 1)", value="sum"),
        why=CODES,
    ),
    NotASetting(
        "reduction stride",
        _IMAGES,
        "edges from the two inputs only",
        Says("each function has stride 2", value="each"),
        why=f"{CODES}; other edges would halve twice",
    ),
    NotASetting(
        "fixed reduction cell",
        _IMAGES,
        "groups 8, batch norm, max pooling of stride 2",
        Says("not shown (Fig. 3)"),
        code_2020="the same, without affine in the search",
        why=f"{CODES}; the paper's 2.5 M parameters need them",
        touches="rows with the fixed reduction cell: Tables 1, 2 and 5",
        only=("network.reduction", "fixed"),
    ),
    NotASetting(
        "figure of a training",
        (TrainConfig,),
        "of the last epoch; the best on the test set stands beside it",
        SILENT,
        code_2019="its logs follow the best epoch on the test set",
        code_2020="not recorded here",
        why="an epoch chosen by the test set is no measurement",
    ),
    NotASetting(
        "recurrent search optimiser",
        (TextSearchConfig,),
        "SGD, rate 20",
        Says("Adam, rate 20", value="Adam"),
        why=f"{RNN19}; Adam at 20 diverges",
    ),
    NotASetting(
        "gradients of alpha",
        (TextSearchConfig,),
        "cleared before every alpha step",
        Says("of one batch (Algorithm 1)", value="cleared before every alpha step"),
        code_2019="never cleared: they pile up, and Adam steps twice",
        why=f"a defect of the {RNN19}, mended",
    ),
    NotASetting(
        "embedding of the last word",
        (TextSearchConfig, TextTrainConfig),
        "learns as every word",
        SILENT,
        code_2019="gets no gradient from the input side",
        why="a defect of the authors' 2019 code, mended",
    ),
)
