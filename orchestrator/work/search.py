"""A search, in the space that its settings name. It has no access to the test split."""

from __future__ import annotations

from functools import partial

import torch

from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.derive import derive_bench201_genotype
from gdas.bench201.network import CELL_TYPE
from gdas.bench201.space import Bench201Space
from gdas.bench201.space import score_with_shared_weights as score_bench201_cells
from gdas.cnn.config import SearchConfig
from gdas.cnn.derive import derive_genotype
from gdas.cnn.graph.search import search_by_graphs
from gdas.cnn.space import (
    ImageSpace,
    Score,
    compare_drawn_with_uniform,
    score_with_shared_weights,
)
from gdas.data.images import open_images
from gdas.data.text import open_tokens
from gdas.derive import DerivedCell
from gdas.genotype import AnyGenotype
from gdas.metrics import count_parameters, require_finite
from gdas.presets import ImageSearchConfig
from gdas.rnn.config import TextSearchConfig
from gdas.rnn.space import TextSpace
from gdas.search import search
from orchestrator.experiment.decode import decode_search
from orchestrator.experiment.kinds import load
from orchestrator.experiment.spaces import SPACES
from orchestrator.store.results import SearchResult
from orchestrator.work.body import Finished, OpenJob, Report, open_job, run_to_end


def run_search(path: str, on_record: Report = lambda record: None) -> SearchResult:
    """Run the search job in the folder `path` to its end; returns its result."""
    with open_job(path) as job:
        config = decode_search(job.recipe["config"])
        run_in_space = load(SPACES[config.task].search)
        result: SearchResult = run_in_space(job, config, on_record)
        job.finish(result)
        return result


def search_images(job: OpenJob, config: SearchConfig, on_record: Report) -> SearchResult:
    """Search for convolutional cells."""
    images = open_images(config.data, "train", job.data)
    space = ImageSpace(config, images, job.device)
    loop = search_by_graphs if config.execution == "graph" else search
    finished = run_to_end(job.folder, partial(loop, config, space), on_record, job.kernels)
    genotype, cells = derive_genotype(config, finished.state["logits"])
    score = score_with_shared_weights(config, images, finished.state, job.device)
    pairs = compare_drawn_with_uniform(config, images, finished.state, job.device)
    result = _searched(config, finished, space.weights, genotype, cells, score)
    result["drawn_against_uniform"] = pairs
    return result


def search_text(job: OpenJob, config: TextSearchConfig, on_record: Report) -> SearchResult:
    """Search for recurrent cells."""
    train, valid = (open_tokens(config.data, split, job.data) for split in ("train", "valid"))
    space = TextSpace(config, train, valid, job.device)
    finished = run_to_end(job.folder, partial(search, config, space), on_record)
    # The cell derived after the epoch with the lowest validation loss (authors' code).
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


def search_bench201(job: OpenJob, config: Bench201SearchConfig, on_record: Report) -> SearchResult:
    """Search for cells of NAS-Bench-201."""
    images = open_images(config.data, "train", job.data)
    space = Bench201Space(config, images, job.device)
    loop = partial(search, config, space)
    finished = run_to_end(job.folder, loop, on_record, job.kernels)
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
    """The result of a search on images: the derived cell, and its score with the shared weights.

    Raises:
        FloatingPointError: the score is not finite.
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
