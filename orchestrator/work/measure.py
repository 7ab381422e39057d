"""Measure one search iteration's time and memory, accelerated and not."""

from __future__ import annotations

import time

from gdas.cnn.config import SearchConfig
from gdas.cnn.measure import measure_iterations
from gdas.data.images import open_images
from orchestrator.experiment.decode import decode_search
from orchestrator.store.results import MeasureResult
from orchestrator.work.body import Report, open_job, record_of


def run_measure(path: str, on_record: Report = lambda record: None) -> MeasureResult:
    """Run the measurement in the folder `path`; returns its result."""
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
        job.finish(result)
        on_record(record)
        return result
