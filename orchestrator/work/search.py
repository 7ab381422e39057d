"""A Tune trial around gdas.search; the short proxy training that scores its cell; measurements.

None opens the test split: they know no way to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import gdas.genotype
from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.derive import derive_bench201_genotype
from gdas.bench201.network import CELL_TYPE
from gdas.bench201.space import Bench201Space
from gdas.bench201.space import score_with_shared_weights as score_bench201_cells
from gdas.cnn.config import SearchConfig, TrainConfig
from gdas.cnn.derive import derive_genotype
from gdas.cnn.genotype import Genotype
from gdas.cnn.halves import search_split
from gdas.cnn.measure import measure_iterations
from gdas.cnn.space import ImageSpace, Score, compare_drawn_with_uniform, score_with_shared_weights
from gdas.cnn.train import build_network, train_image
from gdas.data.images import open_images
from gdas.data.text import open_tokens
from gdas.derive import DerivedCell
from gdas.genotype import AnyGenotype
from gdas.metrics import count_parameters, require_finite
from gdas.presets import ImageSearchConfig
from gdas.rnn.config import TextSearchConfig
from gdas.rnn.genotype import RecurrentGenotype
from gdas.rnn.space import TextSpace
from gdas.rnn.train import build_language_model, train_text
from gdas.search import search
from orchestrator.experiment.decode import decode_search, decode_train
from orchestrator.store.results import (
    MeasureResult,
    ProxyResult,
    Record,
    SearchResult,
)
from orchestrator.work.body import Finished, Loop, OpenJob, open_job, record_of, run_to_end

Report = Callable[[Record], None]


def run_search(path: str, on_record: Report = lambda record: None) -> SearchResult:
    """Run the search job in the folder `path` to its end; returns its result."""
    with open_job(path) as job:
        config = decode_search(job.recipe["config"])
        result = SEARCHES[config.task](job, config, on_record)
        job.folder.write_result(result)
        return result


def _search_images(job: OpenJob, config: SearchConfig, on_record: Report) -> SearchResult:
    images = open_images(config.data, "train", job.data)
    space = ImageSpace(config, images, job.device)
    finished = run_to_end(job.folder, partial(search, config, space), on_record)
    genotype, cells = derive_genotype(config, finished.state["logits"])
    score = score_with_shared_weights(config, images, finished.state, job.device)
    pairs = compare_drawn_with_uniform(config, images, finished.state, job.device)
    result = _searched(config, finished, space.weights, genotype, cells, score)
    result["drawn_against_uniform"] = pairs
    return result


def _search_text(job: OpenJob, config: TextSearchConfig, on_record: Report) -> SearchResult:
    train, valid = (open_tokens(config.data, split, job.data) for split in ("train", "valid"))
    space = TextSpace(config, train, valid, job.device)
    finished = run_to_end(job.folder, partial(search, config, space), on_record)
    # The cell of the epoch of lowest validation loss (authors' code).
    best = min(finished.records, key=lambda record: float(record["metrics"]["valid/loss"]))
    return {
        "digest": finished.digest,
        "metrics": finished.metrics,
        "weights": count_parameters(space.weights, without=None),
        "seconds": finished.seconds,
        "genotype": best["details"]["genotype"],
        "epoch": best["position"],
        "entropy": {"recurrent": best["metrics"]["recurrent/entropy"]},
        "margins": best["details"]["margins"],
    }


def _search_bench201(job: OpenJob, config: Bench201SearchConfig, on_record: Report) -> SearchResult:
    images = open_images(config.data, "train", job.data)
    space = Bench201Space(config, images, job.device)
    finished = run_to_end(job.folder, partial(search, config, space), on_record)
    genotype, cell = derive_bench201_genotype(config, finished.state["logits"])
    (score,) = score_bench201_cells(config, images, finished.state, [genotype], job.device)
    return _searched(config, finished, space.weights, genotype, {CELL_TYPE: cell}, score)


def _searched(
    config: ImageSearchConfig,
    finished: Finished,
    weights: torch.nn.Module,
    genotype: AnyGenotype,
    cells: dict[str, DerivedCell],
    score: Score,
) -> SearchResult:
    """Of a search on images: the derived cell, and its score with the shared weights.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    scored = {"valid/loss": score.loss, "valid/top1": score.top1}
    rates = f"learning rates that began at weights.lr={config.weights.lr:g}"
    require_finite(scored, f"scoring {genotype.name} with the shared weights", rates)
    return {
        "digest": finished.digest,
        "metrics": finished.metrics,
        "weights": count_parameters(weights, without=None),
        "seconds": finished.seconds,
        "genotype": genotype.to_json(),
        "entropy": {kind: cell.entropy for kind, cell in cells.items()},
        "margins": {kind: list(cell.margins) for kind, cell in cells.items()},
        "shared_weights": scored,
    }


SEARCHES: dict[str, Callable[[OpenJob, Any, Report], SearchResult]] = {
    "image": _search_images,
    "text": _search_text,
    "bench201": _search_bench201,
}
"""A search by the task of its settings."""


def run_proxy(path: str, on_record: Report = lambda record: None) -> ProxyResult:
    """Train a searched or a random cell on D_T and score it on D_V."""
    with open_job(path) as job:
        config = decode_train(job.recipe["config"])
        searched = decode_search(job.recipe["search"])
        if job.settings["needs"]:
            result_of_search = job.needed().result(SearchResult)
            assert result_of_search is not None, "a proxy training runs after its search"
            genotype = gdas.genotype.any_from_json(result_of_search["genotype"])
        else:
            genotype = gdas.genotype.any_from_json(job.recipe["genotype"])
        start: Loop
        network: torch.nn.Module
        if isinstance(config, TrainConfig):
            assert isinstance(genotype, Genotype)
            assert isinstance(searched, SearchConfig)
            images = open_images(config.data, "train", job.data)
            train_T, valid_V = search_split(searched, len(images))
            start = partial(
                train_image,
                config,
                genotype,
                images,
                train_T,
                images,
                valid_V,
                evaluated_on="valid",
                device=job.device,
            )
            network = build_network(config, genotype, images.classes)
        else:
            assert isinstance(genotype, RecurrentGenotype)
            train, valid = (open_tokens(config.data, s, job.data) for s in ("train", "valid"))
            start = partial(train_text, config, genotype, train, valid, None, device=job.device)
            network = build_language_model(config, genotype, train.vocabulary)
        finished = run_to_end(job.folder, start, on_record)
        result: ProxyResult = {
            "digest": finished.digest,
            "metrics": finished.metrics,
            "weights": count_parameters(network, without=None),
            "seconds": finished.seconds,
            "genotype": genotype.to_json(),
            "parameters": count_parameters(network),
        }
        job.folder.write_result(result)
        return result


def run_measure(path: str) -> MeasureResult:
    """Measure one search iteration, accelerated and not."""
    with open_job(path) as job:
        config = decode_search(job.recipe["config"])
        assert isinstance(config, SearchConfig)
        images = open_images(config.data, "train", job.data)
        started = time.time()
        costs = measure_iterations(config, images, job.device, job.recipe["iterations"])
        metrics = {f"{how}/{key}": v for how, cost in costs.items() for key, v in cost.items()}
        record = record_of(1, 1, metrics, {}, started)
        job.folder.rewrite_records([record])
        result: MeasureResult = {
            "metrics": metrics,
            "iterations": costs,
            "seconds": record["seconds"],
            "device": str(job.device),
        }
        job.folder.write_result(result)
        return result
