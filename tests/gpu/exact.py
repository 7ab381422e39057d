"""Exact: is a run equal to itself, bit for bit, and an interrupted one to one left alone?

Every kind of training loop runs twice for two epochs, and once more from the first epoch's
checkpoint on disk; what counts is the digest of a segment's metrics and state. Where they differ,
the largest difference is given, and the operations are looked at one by one: the same backward pass
several times over. With `torch.use_deterministic_algorithms` PyTorch names the operations that it
knows to vary, and its other algorithms are timed beside the usual ones.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.space import Bench201Space
from gdas.checkpoint import Segment, State, digest, newest, save
from gdas.cnn.config import SearchConfig, SupernetConfig, TrainConfig
from gdas.cnn.genotype import PUBLISHED
from gdas.cnn.space import ImageSpace
from gdas.cnn.train import train_image
from gdas.config import AlphaUpdate
from gdas.data.settings import IMAGE_DATA, PHOTO_DATA, AnyImageData
from gdas.rnn.config import TextSearchConfig, TextTrainConfig
from gdas.rnn.genotype import PUBLISHED_RECURRENT
from gdas.rnn.space import TextSpace
from gdas.rnn.train import train_text
from gdas.search import search
from tests.bench.search_step import random_images
from tests.bench.text_step import random_text
from tests.gpu.findings import Figures, Findings
from tests.gpu.passes import all_operations
from tests.gpu.sizes import Sizes

EPOCHS = 2

Run = Callable[[State | None], Iterator[Segment]]
FAST = AlphaUpdate(lr=0.05)
"""Quick enough that a few steps change what is drawn."""


# Training loops


def image_search(sizes: Sizes, device: torch.device, reduction: Any, **changes: Any) -> Run:
    batch = sizes.batches[0]
    half = (sizes.steps if reduction == "searched" else sizes.few) * batch
    config = SearchConfig(
        epochs=EPOCHS,
        batch_size=batch,
        train_images=half,
        valid_images=half,
        network=SupernetConfig(channels=sizes.channels, normals_per_block=1, reduction=reduction),
        alpha=FAST,
        **changes,
    )
    images = random_images(2 * half)
    return lambda state: search(config, ImageSpace(config, images, device), checkpoint=state)


def bench201_search(sizes: Sizes, device: torch.device, **changes: Any) -> Run:
    batch = sizes.batches[0]
    half = sizes.few * batch
    config = Bench201SearchConfig(
        epochs=EPOCHS,
        batch_size=batch,
        train_images=half,
        valid_images=half,
        channels=sizes.channels,
        normals_per_block=1,
        **changes,
    )
    images = random_images(2 * half)
    return lambda state: search(config, Bench201Space(config, images, device), checkpoint=state)


def image_training(sizes: Sizes, device: torch.device, *, photos: bool, **changes: Any) -> Run:
    channels, _, batch, side = sizes.imagenet if photos else (*sizes.final, 32)
    batch = max(2, batch // 4)
    cut = dataclasses.replace(IMAGE_DATA["cifar10"], cutout=16)
    data: AnyImageData = PHOTO_DATA["imagenet"] if photos else cut
    config = TrainConfig(
        data=data,
        epochs=EPOCHS,
        batch_size=batch,
        channels=channels,
        normals_per_block=1,
        stem="imagenet" if photos else "cifar",
        drop_path=0.3,
        auxiliary_weight=0.4 if side > 192 or side < 41 else 0.0,
        **changes,
    )
    images = random_images((sizes.few + 1) * batch, side)
    rows = torch.arange(len(images))
    given = (PUBLISHED["GDAS_V1"], images, rows[batch:], images, rows[:batch])
    return lambda state: train_image(
        config, *given, evaluated_on="valid", device=device, checkpoint=state
    )


def text_search(sizes: Sizes, device: torch.device, **changes: Any) -> Run:
    hidden, vocabulary, batch, bptt = sizes.recurrent
    config = TextSearchConfig(
        epochs=EPOCHS, hidden=hidden, batch_size=batch, bptt=bptt, alpha=FAST, **changes
    )
    text = random_text((bptt * sizes.few + 1) * batch, vocabulary)
    return lambda state: search(config, TextSpace(config, text, text, device), checkpoint=state)


def text_training(sizes: Sizes, device: torch.device, **changes: Any) -> Run:
    hidden, vocabulary, batch, bptt = sizes.language
    config = TextTrainConfig(epochs=EPOCHS, hidden=hidden, batch_size=batch, bptt=bptt, **changes)
    train = random_text((bptt * sizes.few + 1) * batch, vocabulary)
    valid = random_text(10 * bptt, vocabulary)
    genotype = PUBLISHED_RECURRENT["RNN_GDAS"]
    return lambda state: train_text(config, genotype, train, valid, device=device, checkpoint=state)


def loops(sizes: Sizes, device: torch.device, **changes: Any) -> dict[str, Run]:
    """Every kind of training loop, of one cell between reductions."""
    return {
        "search, both cells": image_search(sizes, device, "searched", **changes),
        "training, CIFAR": image_training(sizes, device, photos=False, **changes),
        "language model": text_training(sizes, device, **changes),
        "recurrent search": text_search(sizes, device, **changes),
        "training, ImageNet": image_training(sizes, device, photos=True, **changes),
        "search, FRC": image_search(sizes, device, "fixed", **changes),
        "NAS-Bench-201 search": bench201_search(sizes, device, **changes),
    }


def _tensors(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, of in value.items():
            yield from _tensors(of, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for i, of in enumerate(value):
            yield from _tensors(of, f"{path}.{i}")


def difference(one: State, other: State) -> Figures:
    """How many of a state's tensors differ, and the largest difference between numbers."""
    theirs = dict(_tensors(other))
    differ, largest, where = 0, 0.0, ""
    pairs = [(path, a, theirs[path]) for path, a in _tensors(one)]
    for path, a, b in pairs:
        if not torch.equal(a.cpu(), b.cpu()):
            differ += 1
            most = float((a.cpu().double() - b.cpu().double()).abs().max())
            if most > largest:
                largest, where = most, path
    return {"tensors that differ": f"{differ} of {len(pairs)}", "by up to": largest, "in": where}


def same(run: Run) -> Figures:
    """Whether a run is equal to itself, and resumed to uninterrupted."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        began = time.perf_counter()
        whole = _ends(run(None), folder)
        seconds = time.perf_counter() - began
        again = _ends(run(None))
        checkpoint, damaged = newest(folder)
        assert checkpoint is not None and not damaged
        resumed = _ends(run(checkpoint.state))
    figures: Figures = {
        "again": [a == b for (a, _), (b, _) in zip(whole, again, strict=True)],
        "resumed": resumed[-1][0] == whole[-1][0],
        "run_seconds": seconds,
    }
    for name, other in (("again", again), ("resumed", resumed)):
        if other[-1][0] != whole[-1][0]:
            figures[f"{name}, difference"] = difference(whole[-1][1], other[-1][1])
    return figures


def _ends(segments: Iterator[Segment], folder: Path | None = None) -> list[tuple[str, State]]:
    """Every segment's digest and state; the first segment is saved in `folder`."""
    ends: list[tuple[str, State]] = []
    for segment in segments:
        if folder is not None and not ends:
            save(folder, segment, [])
        state = segment.state
        assert state is not None
        copy = {path: tensor.detach().cpu().clone() for path, tensor in _tensors(state)}
        ends.append((digest([segment.metrics, segment.details, state]), copy))
    return ends


def warned(run: Run) -> Figures:
    """What PyTorch says of a run under its deterministic algorithms, and whether it is exact."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            figures = same(run)
        finally:
            torch.use_deterministic_algorithms(False)
    found = {
        re.sub(r" does not have a deterministic.*|, but you set.*", "", str(w.message), flags=re.S)
        for w in caught
        if "determinis" in str(w.message)
    }
    return figures | {"vary": sorted(text[:160] for text in found)}


FIRST = ("search, both cells", "training, CIFAR", "language model", "recurrent search")
"""Loops that are tried in every arithmetic before the others are in any but the default one."""


def run(of: Findings, device: torch.device, sizes: Sizes) -> None:
    """Loops as they are by default, the operations, then bfloat16 and what PyTorch warns of."""
    usual = loops(sizes, device)
    for name, loop in usual.items():
        of.take(name, partial(same, loop))
    of.take("operations", lambda: all_operations(of, sizes, device, bfloat16=False))
    coarse = loops(sizes, device, precision="bfloat16")
    for names in (FIRST, [name for name in usual if name not in FIRST]):
        for name in names:
            of.take(f"{name}, bfloat16", partial(same, coarse[name]))
        for name in names:
            of.take(f"{name}, deterministic algorithms", partial(warned, usual[name]))
    of.take("operations, bfloat16", lambda: all_operations(of, sizes, device, bfloat16=True))
