"""Compare what a search of NAS-Bench-201 has found with the table; no other job opens the table.

A lookup needs its search, and refuses to open the table before the search's result is on disk. It
looks up the cells that the logits derive after each epoch, the last of which is the search's
result. Beside them it looks up one uniformly drawn cell, and the best of several uniformly drawn
cells by their score with the search's shared weights. The scores of these and further uniform cells
give the rank correlation of shared weights with the true accuracy. Every seed draws its own cells,
so that seeds are independent.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.genotype import (
    CELLS,
    Accuracy,
    Bench201Genotype,
    bench201_cell,
    bench201_from_json,
    reaches_output,
)
from gdas.bench201.network import picks_of
from gdas.bench201.space import score_with_shared_weights
from gdas.bench201.table import Table, read_table, table_path
from gdas.checkpoint import newest
from gdas.data.images import open_images
from gdas.data.settings import TableData
from gdas.files import write_text
from gdas.randomness import generator
from orchestrator.experiment.config import LookupSpec
from orchestrator.experiment.decode import decode, decode_search
from orchestrator.store.job_folder import JobFolder
from orchestrator.store.results import (
    BestStanding,
    Distribution,
    EpochStanding,
    Figure,
    LookupResult,
    Record,
    SearchResult,
    Standing,
)
from orchestrator.work.body import Report, open_job, record_of

DISTRIBUTION = "distribution.json"
"""A file in the job's folder: every accuracy in the column, and how many cells have it."""

FIGURES: tuple[Figure, ...] = get_args(Figure)
"""The numbers of a standing."""


def open_table(search: JobFolder, data: Path) -> tuple[Table, SearchResult]:
    """Read the table, and the result of the search whose cells are looked up.

    Raises:
        PermissionError: the search has not ended.
        InputError: the table cannot be read.
    """
    result = search.result(SearchResult)
    if result is None:
        raise PermissionError(
            f"the table stays closed: the search has no result in {search.address}"
        )
    return read_table(table_path(TableData(), data)), result


def run_lookup(path: str, on_record: Report = lambda record: None) -> LookupResult:
    """Look up the cells of the search that the job in the folder `path` needs."""
    with open_job(path) as job:
        started = time.time()
        config = decode_search(job.recipe["config"])
        assert isinstance(config, Bench201SearchConfig)
        spec = decode(LookupSpec, job.recipe["lookup"], "lookup")
        search = job.needed()
        table, found = open_table(search, job.data)

        def standing(cell: Bench201Genotype) -> Standing:
            s = table.standing(cell, spec.accuracy)
            return {"cell": str(cell), **s._asdict()}  # type: ignore[typeddict-item]  # its fields

        epochs: list[EpochStanding] = [
            {
                "epoch": record["position"],
                **standing(bench201_from_json(record["details"]["genotype"])),
            }
            for record in search.records()
        ]
        scoring = time.time()
        cells, scores = scored_cells(config, spec, search, job.data, job.device)
        seconds_a_cell = (time.time() - scoring) / len(cells)
        best = max(range(spec.best_of), key=scores.__getitem__)  # the first drawn, if several tie
        uniform = standing(uniform_cells(config.seed, "a uniform cell", 1)[0])
        best_of: BestStanding = {**standing(cells[best]), "k": spec.best_of, "score": scores[best]}
        correlation = table.correlation(cells, scores, spec.accuracy)
        records = _records(epochs, uniform, best_of, correlation, config.epochs, started)
        job.folder.rewrite_records(records)
        on_record(records[-1])
        _write_distribution(table, spec.accuracy, job.folder)
        result: LookupResult = {
            "column": spec.accuracy,
            "seed": config.seed,
            "derived": standing(bench201_from_json(found["genotype"])),
            "uniform": uniform,
            "best_of": best_of,
            "correlation": correlation,
            "scored": [
                (str(cell), score, table.standing(cell, spec.accuracy).accuracy)
                for cell, score in zip(cells, scores, strict=True)
            ],
            "epochs": epochs,
            "search_seconds": found["seconds"],
            "best_of_seconds": spec.best_of * seconds_a_cell,
            "metrics": records[-1]["metrics"],
            "seconds": time.time() - started,
        }
        job.finish(result)
        return result


def _records(
    epochs: list[EpochStanding],
    uniform: Standing,
    best_of: BestStanding,
    correlation: float | None,
    of: int,
    started: float,
) -> list[Record]:
    """One record per epoch of the search; the last one also has the cells it is compared with."""
    records = [
        record_of(epoch["epoch"], of, _metrics("derived", epoch), {}, started) for epoch in epochs
    ]
    records[-1]["metrics"] |= {
        **_metrics("uniform", uniform),
        **_metrics("best_of", best_of),
        **({} if correlation is None else {"correlation": correlation}),
    }
    for record in records:  # one measured time, shared equally
        record["seconds"] = (records[-1]["time"] - started) / len(records)
    return records


def _write_distribution(table: Table, column: Accuracy, folder: JobFolder) -> None:
    values, counts = np.unique(table.accuracies_N(column), return_counts=True)
    distribution: Distribution = {
        "accuracies": values.tolist(),
        "cells": counts.tolist(),
        "function_percentile": float(table.function_percentiles_N(column).mean()),
    }
    write_text(folder.path / DISTRIBUTION, json.dumps(distribution))
    folder.publish(DISTRIBUTION)


def _metrics(name: str, standing: Standing) -> dict[str, float]:
    """A standing as metrics."""
    return {f"{name}/{key}": float(standing[key]) for key in FIGURES}


def uniform_cells(seed: int, stream: str, count: int) -> list[Bench201Genotype]:
    """Draw cells uniformly from all cells, with replacement."""
    numbers = torch.randint(CELLS, (count,), generator=generator(seed, stream))
    return [bench201_cell(number) for number in numbers.tolist()]


def scored_cells(
    config: Bench201SearchConfig,
    spec: LookupSpec,
    search: JobFolder,
    data: Path,
    device: torch.device,
) -> tuple[list[Bench201Genotype], list[float]]:
    """Draw cells uniformly and score them with the search's shared weights.

    If no path leads through a cell to its output, the cell gives every image the same scores. It is
    not run, and its score is that of a guess among the classes.

    Returns:
        The cells, and the top-1 of each in percent on images of D_V.

    Raises:
        RuntimeError: the search has no valid checkpoint any more.
    """
    search.fetch_checkpoint()
    checkpoint, damaged = newest(search.checkpoints)
    if checkpoint is None or damaged:
        raise RuntimeError(
            f"{search.place.address_of('checkpoints')}: no whole checkpoint of the search is left"
        )
    images = open_images(config.data, "train", data)
    cells = uniform_cells(config.seed, "uniform cells", spec.cells)
    judged: Sequence[Bench201Genotype] = [
        cell for cell in cells if reaches_output([k for _, k in picks_of(cell)])
    ]
    few = dataclasses.replace(config, valid_images=spec.images)
    top1 = [
        score.top1
        for score in score_with_shared_weights(few, images, checkpoint.state, judged, device)
    ]
    of_cell = dict(zip(map(str, judged), top1, strict=True))
    return cells, [of_cell.get(str(cell), 100.0 / images.classes) for cell in cells]
