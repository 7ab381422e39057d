"""How long a job takes here: a few real steps of every kind of job, timed in this process.

Each job's own network and batch size, on random images or words (photos: its own); two epochs of
two steps, of which the second counts. What a job does beside its steps is counted as forward
passes, a third of a training step.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import gdas.cnn.genotype
import gdas.rnn.genotype
from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.space import Bench201Space
from gdas.checkpoint import Segment
from gdas.cnn.config import SearchConfig, TrainConfig
from gdas.cnn.space import ImageSpace
from gdas.cnn.train import train_image
from gdas.compute import open_device
from gdas.data.arrow import Images
from gdas.data.images import known, open_images
from gdas.data.settings import AnyImageData, PhotoData
from gdas.data.source import ImageSource
from gdas.data.text import Tokens, batch_tokens
from gdas.presets import ImageSearchConfig
from gdas.rnn.config import TextSearchConfig, TextTrainConfig
from gdas.rnn.space import TextSpace
from gdas.rnn.train import build_language_model, evaluate, train_text
from gdas.search import SearchSpace, search
from orchestrator.cost.workload import PASSES, halves, images_in, text_of, training_tokens
from orchestrator.experiment.decode import decode_search, decode_train
from orchestrator.experiment.study import Job

STEPS = 2


def timed_seconds(job: Job, data: Path) -> float:
    """Seconds of work of a whole job on this machine, from a few steps of it.

    Args:
        job: of any kind but a selection; this machine has its device.
        data: the folder of the data sets.
    """
    device = open_device(job.resources["device"], threads=job.resources["threads"])
    if job.kind in ("search", "lookup", "measure"):
        config = decode_search(job.recipe["config"])
        if isinstance(config, TextSearchConfig):
            return _text_search(job, config, device)
        return _image_search(job, config, data, device)
    train = decode_train(job.recipe["config"])
    if isinstance(train, TextTrainConfig):
        return _text_training(job, train, device)
    workers = int(job.resources.get("workers", 1))
    return _image_training(job, train, data, device) / workers


def _second(segments: Iterator[Segment]) -> float:
    """Seconds from the first segment to the second."""
    next(segments)
    started = time.perf_counter()
    next(segments)
    return time.perf_counter() - started


def _images(data: AnyImageData, folder: Path, count: int) -> ImageSource:
    if isinstance(data, PhotoData) and (folder / data.name).exists():
        return open_images(data, "train", folder)
    of: Any = data if isinstance(data, PhotoData) else known(data.name)
    draw = torch.Generator().manual_seed(0)
    images_NCHW = torch.randint(
        256, (count, 3, of.size, of.size), generator=draw, dtype=torch.uint8
    )
    return Images(images_NCHW, torch.arange(count) % of.classes, of.classes)


def _image_search(job: Job, config: ImageSearchConfig, data: Path, device: torch.device) -> float:
    batch = config.batch_size
    few = STEPS * batch
    short = dataclasses.replace(config, epochs=2, train_images=few, valid_images=few)
    images = _images(config.data, data, 2 * few)
    space: SearchSpace
    if isinstance(short, Bench201SearchConfig):
        space = Bench201Space(short, images, device)
    else:
        space = ImageSpace(short, images, device)
    step = _second(search(short, space)) / STEPS
    if job.kind == "measure":  # accelerated, and with all eight operations
        return float((job.recipe["iterations"] + 1) * step * 9)
    train, valid = halves(job)
    forward = step / (2 * PASSES)  # one W and one alpha step
    if job.kind == "lookup":
        lookup = job.recipe["lookup"]
        return float(
            lookup["cells"] * (lookup["images"] / batch + config.recalibration_batches) * forward
        )
    cells, seen = 0, 0
    if isinstance(config, SearchConfig):
        cells, seen = 2 * config.compared_cells, min(config.compared_images, valid)
    passes = (valid + cells * seen) / batch + (1 + cells) * config.recalibration_batches
    return float(-(-train // batch) * config.epochs * step + passes * forward)


def _image_training(job: Job, config: TrainConfig, data: Path, device: torch.device) -> float:
    batch = config.batch_size
    short = dataclasses.replace(
        config, epochs=2, train_images=None, evaluate_every=2, segments_per_epoch=1
    )
    images = _images(config.data, data, STEPS * batch)
    rows = torch.arange(STEPS * batch)
    genotype = gdas.cnn.genotype.PUBLISHED["GDAS_F1" if _fixed(job) else "GDAS_V1"]
    segments = train_image(
        short, genotype, images, rows, images, rows[:batch], evaluated_on="valid", device=device
    )
    step = _second(segments) / (STEPS + 1 / PASSES)
    if job.kind == "proxy":
        train, seen = halves(job)
    else:
        train = config.train_images or images_in(job, "train")
        seen = images_in(job, "test")
    evaluations = -(-config.epochs // config.evaluate_every)
    return -(-train // batch) * config.epochs * step + evaluations * seen / batch * step / PASSES


def _fixed(job: Job) -> bool:
    """Whether its cell has the fixed reduction cell, where that can be known before the search."""
    genotype = job.recipe.get("genotype") or job.recipe.get("cell", {}).get("genotype")
    return genotype is not None and genotype.get("reduce") is None


def _words(count: int, vocabulary: int) -> Tokens:
    draw = torch.Generator().manual_seed(0)
    ids_N = torch.randint(vocabulary, (count,), generator=draw, dtype=torch.int32)
    return Tokens(ids_N, vocabulary)


def _text_search(job: Job, config: TextSearchConfig, device: torch.device) -> float:
    of = text_of(job)
    text = _words((STEPS * config.bptt + 1) * config.batch_size, of.vocabulary)
    short = dataclasses.replace(config, epochs=2, train_tokens=None, valid_tokens=None)
    row = _second(search(short, TextSpace(short, text, text, device))) / (STEPS * config.bptt)
    return training_tokens(job) / config.batch_size * config.epochs * row


def _text_training(job: Job, config: TextTrainConfig, device: torch.device) -> float:
    of = text_of(job)
    genotype = gdas.rnn.genotype.PUBLISHED_RECURRENT["RNN_GDAS"]
    text = _words((STEPS * config.bptt + 1) * config.batch_size, of.vocabulary)
    short = dataclasses.replace(config, epochs=2, train_tokens=None)
    row = _second(train_text(short, genotype, text, None, None, device=device))
    row /= STEPS * config.bptt
    workers = int(job.resources.get("workers", 1))
    epochs = training_tokens(job) / config.batch_size * config.epochs * row / workers
    seen = of.counts["valid"] / config.batch_size * config.epochs * row / PASSES / workers
    if job.kind == "proxy":
        return epochs + seen
    model = build_language_model(config, genotype, of.vocabulary).to(device)
    few_N = _words(STEPS * config.bptt + 1, of.vocabulary).ids_N
    few_TB = batch_tokens(few_N, 1).to(device)
    evaluate(config, model, few_TB, "test")
    started = time.perf_counter()
    evaluate(config, model, few_TB, "test")
    test = (time.perf_counter() - started) / (STEPS * config.bptt)
    test /= min(workers, config.test_batch_size)
    return epochs + seen + of.counts["test"] / config.test_batch_size * test
