"""The cost of searches and trainings on text.

A guess counts the products with W0, the step matrices and the decoder for every token; its memory
is the words' scores and the states of every step and time. For a timing, the job's own network and
batch size run on random words.
"""

from __future__ import annotations

import dataclasses
import time
from functools import cache
from pathlib import Path
from typing import cast

import torch

from gdas.data.settings import TextData
from gdas.data.text import TextCounts, Tokens, batch_tokens, text_counts
from gdas.data.vocabulary import Split
from gdas.rnn.config import TextSearchConfig, TextTrainConfig
from gdas.rnn.genotype import PUBLISHED_RECURRENT, RECURRENT_OPERATIONS
from gdas.rnn.space import TextSpace
from gdas.rnn.train import build_language_model, evaluate, train_text
from gdas.search import search
from orchestrator.cost.work import FLOAT, FLOPS, PASSES, SLACK, TIMED_STEPS, Cost, Work, timed
from orchestrator.experiment.decode import decode_search, decode_train
from orchestrator.experiment.study import Job

STANDING_IN = PUBLISHED_RECURRENT["RNN_GDAS"]
"""Stands for any cell that is not known before its search."""
CPU_FLOPS = 25e9
GPU_FLOPS = (3e12, 3e12)


def _text(job: Job) -> TextCounts:
    """The sizes of the text that a job reads."""
    data = TextData(**job.recipe["config"]["data"])
    return _counted(data, tuple(sorted(job.recipe["data"].items())))


@cache
def _counted(data: TextData, identities: tuple[tuple[str, str], ...]) -> TextCounts:
    """The sizes of a text, kept because counting takes a moment."""
    return text_counts(data, dict(identities))


def examples(job: Job, split: str) -> int:
    """How many tokens of a split the job reads."""
    config = job.recipe["config"]
    whole = _text(job).counts[cast(Split, split)]
    if split != "train":
        return whole
    search = job.recipe.get("search", {})  # a proxy training's
    return int(config["train_tokens"] or search.get("train_tokens") or whole)


def _cell_size(job: Job) -> tuple[int, int]:
    """The steps of the job's cell and the edges that it runs; all edges, in a search."""
    config = job.recipe["config"]
    if "steps" in config:  # a search's
        return config["steps"], config["steps"] * (config["steps"] + 1) // 2
    steps = len(STANDING_IN.recurrent)
    return steps, steps


def _flops(job: Job, work: Work, passes: int) -> float:
    """Floating point operations of so many forward and backward passes per token and epoch."""
    config = job.recipe["config"]
    n, vocabulary = config["hidden"], _text(job).vocabulary
    _, edges = _cell_size(job)
    per_token = 2 * n * 2 * n + edges * n * 2 * n + vocabulary * n
    return float(work.examples * work.epochs * per_token * FLOPS * PASSES * passes)


def _bytes(job: Job, work: Work) -> float:
    """Bytes of the weights, of the words' scores, and of the states of every step and time."""
    config = job.recipe["config"]
    vocabulary = _text(job).vocabulary
    n, tokens = config["hidden"], config["bptt"] * -(-config["batch_size"] // job.workers)
    steps, edges = _cell_size(job)
    weights = vocabulary * n + (2 * n) * (2 * n) + steps * n * 2 * n
    return float(SLACK * FLOAT * (3 * weights + tokens * (3 * vocabulary + 8 * n * edges)))


def _words(count: int, vocabulary: int) -> Tokens:
    draw = torch.Generator().manual_seed(0)
    ids_N = torch.randint(vocabulary, (count,), generator=draw, dtype=torch.int32)
    return Tokens(ids_N, vocabulary)


def _search_seconds(job: Job, work: Work, data: Path, device: torch.device) -> float:
    config = decode_search(job.recipe["config"])
    assert isinstance(config, TextSearchConfig)
    vocabulary = _text(job).vocabulary
    text = _words((TIMED_STEPS * config.bptt + 1) * config.batch_size, vocabulary)
    short = dataclasses.replace(config, epochs=2, train_tokens=None, valid_tokens=None)
    row = timed(search(short, TextSpace(short, text, text, device))) / (TIMED_STEPS * config.bptt)
    return work.examples / config.batch_size * work.epochs * row


def _training_seconds(job: Job, work: Work, data: Path, device: torch.device) -> float:
    config = decode_train(job.recipe["config"])
    assert isinstance(config, TextTrainConfig)
    vocabulary = _text(job).vocabulary
    text = _words((TIMED_STEPS * config.bptt + 1) * config.batch_size, vocabulary)
    short = dataclasses.replace(config, epochs=2, train_tokens=None)
    row = timed(train_text(short, STANDING_IN, text, None, None, device=device))
    row /= TIMED_STEPS * config.bptt * config.batch_size * job.workers
    seconds = (work.epochs * work.examples + work.passes / PASSES) * row
    if "test" not in job.recipe["data"]:
        return seconds
    model = build_language_model(config, STANDING_IN, vocabulary).to(device)
    few_N = _words(TIMED_STEPS * config.bptt + 1, vocabulary).ids_N
    few_TB = batch_tokens(few_N, 1).to(device)
    evaluate(config, model, few_TB, "test")
    started = time.perf_counter()
    evaluate(config, model, few_TB, "test")
    test = (time.perf_counter() - started) / (TIMED_STEPS * config.bptt)
    test /= min(job.workers, config.test_batch_size)
    return seconds + examples(job, "test") / config.test_batch_size * test


SEARCH = Cost(
    examples=examples,
    operations=lambda job: len(RECURRENT_OPERATIONS),
    flops=lambda job, work: _flops(job, work, 2),  # a W and an alpha step
    cpu_flops=CPU_FLOPS,
    gpu_flops=GPU_FLOPS,
    seconds=_search_seconds,
    bytes=_bytes,
)
TRAINING = Cost(
    examples=examples,
    operations=lambda job: len(RECURRENT_OPERATIONS),
    flops=lambda job, work: _flops(job, work, 1),
    cpu_flops=CPU_FLOPS,
    gpu_flops=GPU_FLOPS,
    seconds=_training_seconds,
    bytes=_bytes,
)
