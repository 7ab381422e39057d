"""The steps that are measured beside plain PyTorch: their contenders and their sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tests.bench import search_step, text_step
from tests.bench.operation_times import top_operations
from tests.bench.timing import Result, Size, Step, compare, memory_of, words

SizeName = Literal["tiny", "default", "paper"]
"""tiny: to try the benchmark out, no measurement; paper: the paper's, where default is smaller."""


@dataclass(frozen=True)
class Kind:
    """A step that is measured.

    Attributes:
        build: (size, steps that will be taken at the most, whom to build) to contenders; there
            may be others among them.
        parts: what a repeat consists of.
        sizes: by name.
        memory: the contenders whose peak memory is measured.
    """

    title: str
    build: Callable[[Size, int, Sequence[str]], Mapping[str, Sequence[Step]]]
    parts: tuple[str, ...]
    sizes: dict[SizeName, Size]
    memory: tuple[str, ...] = ("plain", "ours")


def _image(channels: int, normals: int, batch: int) -> Size:
    return {"channels": channels, "normals": normals, "batch": batch}


def _text(hidden: int, vocabulary: int, batch: int, bptt: int) -> Size:
    return {"hidden": hidden, "vocabulary": vocabulary, "batch": batch, "bptt": bptt}


KINDS = {
    "search step": Kind(
        "a search step on CIFAR's images",
        lambda size, steps, of: search_step.search_contenders(**size, steps=steps, of=of),
        ("W step", "alpha step"),
        {"tiny": _image(4, 1, 2), "default": _image(16, 2, 64), "paper": _image(16, 2, 64)},
        memory=("plain", "ours", "every operation"),
    ),
    "training step": Kind(
        "a training step of GDAS_V1 on CIFAR's images",
        lambda size, steps, of: search_step.train_contenders(**size),
        ("step",),
        {"tiny": _image(4, 1, 2), "default": _image(16, 2, 64), "paper": _image(36, 6, 96)},
    ),
    "ImageNet step": Kind(
        "a training step of GDAS_V1 on ImageNet's images",
        lambda size, steps, of: search_step.imagenet_contenders(**size),
        ("step",),
        {
            "tiny": {**_image(4, 1, 2), "side": 64},
            "default": {**_image(24, 2, 8), "side": 224},
            "paper": {**_image(50, 4, 32), "side": 224},
        },
    ),
    "language-model step": Kind(
        "a training step of the published recurrent cell's language model",
        lambda size, steps, of: text_step.language_contenders(**size, steps=steps),
        ("step",),
        {
            "tiny": _text(8, 50, 2, 8),
            "default": _text(850, 10_000, 64, 35),
            "paper": _text(850, 10_000, 64, 35),
        },
    ),
    "recurrent search step": Kind(
        "a search step for a recurrent cell",
        lambda size, steps, of: text_step.recurrent_contenders(**size, steps=steps),
        ("W step", "alpha step"),
        {
            "tiny": _text(8, 50, 2, 4),
            "default": _text(300, 10_000, 128, 35),
            "paper": _text(300, 10_000, 128, 35),
        },
    ),
}


def measure(
    name: str,
    size: Size,
    *,
    threads: int,
    repeats: int,
    warm_up: int = 1,
    memory: bool = True,
) -> Result:
    """Time one kind of step beside its baseline; with one thread also memory and a profile."""
    kind = KINDS[name]
    torch.set_num_threads(threads)
    built = kind.build(size, warm_up + repeats + 1, ("plain", "ours"))
    contenders = {of: built[of] for of in ("plain", "ours")}
    result: dict[str, Any] = {"name": name, "title": f"{kind.title}: {words(size)}", "size": size}
    result |= {"parts": kind.parts}
    result |= compare(contenders, repeats=repeats, warm_up=warm_up)
    if threads == 1:
        result["top"] = top_operations(built["ours"], warm_up + repeats)
    del built, contenders
    if memory and threads == 1:
        for contender in kind.memory:
            result.setdefault(contender, {})["memory"] = memory_of(name, contender, size)
    return result
