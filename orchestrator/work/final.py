"""A final training, in one of several processes: gdas.cnn.train or gdas.rnn.train.

The test split opens only if the cell's provenance is on disk (`require_provenance`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NotRequired, TypedDict

import torch

import gdas.genotype
from gdas.cnn.config import TrainConfig
from gdas.cnn.genotype import Genotype
from gdas.cnn.train import build_network, train_image
from gdas.data.images import open_images, subset
from gdas.data.text import open_tokens
from gdas.distributed import workers
from gdas.files import write_json
from gdas.metrics import count_multiply_adds, count_parameters
from gdas.rnn.config import TextTrainConfig
from gdas.rnn.genotype import RecurrentGenotype
from gdas.rnn.train import build_language_model, train_text
from orchestrator.experiment.decode import decode_train
from orchestrator.experiment.kinds import load
from orchestrator.experiment.spaces import SPACES
from orchestrator.store.job_folder import JobFolder
from orchestrator.store.results import FinalResult, JobSettings, Provenance, Selection
from orchestrator.work.body import (
    Finished,
    Loop,
    Report,
    newest_checkpoint,
    open_job,
    run_to_end,
)


def settle_provenance(folder: JobFolder, settings: JobSettings, selections: Path) -> None:
    """Record which cell this final trains and where the cell comes from.

    Args:
        selections: the study's folder of selection records.

    Raises:
        FileNotFoundError: there is no selection record.
        RuntimeError: the selection record was made for other settings.
    """
    cell = settings["recipe"]["cell"]
    provenance: Provenance
    if cell["source"] == "searched":
        record = _selected(cell["track"], settings, selections)
        provenance = {
            "source": cell["source"],
            "selection": record["id"],
            "track": record["track"],
            "by": record["by"],
            "seed": record["winner"]["seed"],
            "genotype": record["winner"]["genotype"],
        }
    elif cell["source"] == "combined":
        tracks = [cell["normal"], *([cell["reduce"]] if cell["reduce"] != "fixed" else [])]
        records = [_selected(track, settings, selections) for track in tracks]
        halves = [gdas.genotype.any_from_json(r["winner"]["genotype"]) for r in records]
        normal, reduce = halves[0], halves[1] if len(halves) > 1 else None
        assert isinstance(normal, Genotype) and (reduce is None or isinstance(reduce, Genotype))
        name = f"{cell['normal']}-{cell['reduce']}"
        combined = Genotype(name, normal.normal, reduce.reduce if reduce else None)
        provenance = {
            "source": cell["source"],
            "selections": [record["id"] for record in records],
            "seeds": [record["winner"]["seed"] for record in records],
            "genotype": combined.to_json(),
        }
    else:
        provenance = {"source": cell["source"], "genotype": cell["genotype"]}
    write_json(folder.path / "provenance.json", provenance)
    folder.publish("provenance.json")


def _selected(track: str, settings: JobSettings, selections: Path) -> Selection:
    """The selection record of a search, which must be one that the job needs."""
    path = selections / f"{track}.json"
    record: Selection = json.loads(path.read_text())
    if record["id"] not in settings["needs"]:
        raise RuntimeError(f"{path}: the record of other settings; run the study again")
    return record


def require_provenance(folder: JobFolder) -> Provenance:
    """Read the provenance record of a final, without which the test split stays shut.

    Raises:
        PermissionError: there is none, or it is damaged.
    """
    path = folder.path / "provenance.json"
    try:
        provenance: Provenance = json.loads(path.read_text())
        gdas.genotype.any_from_json(provenance["genotype"], str(path))
    except (OSError, ValueError, KeyError):
        raise PermissionError(f"the test split stays closed: no provenance record {path}") from None
    return provenance


def train_worker(path: str, on_record: Report = lambda record: None) -> None:
    """Run one worker of a final training; only worker 0 writes.

    It works without Ray too: if torch.distributed is not initialised, there is one worker.
    """
    with open_job(path) as job:
        config = decode_train(job.recipe["config"])
        provenance = require_provenance(job.folder)
        genotype = gdas.genotype.any_from_json(provenance["genotype"])
        prepare = load(SPACES[config.task].final)
        training: Training = prepare(config, genotype, job.data, job.device)
        start, describe = training
        if workers().rank > 0:
            checkpoint = newest_checkpoint(job.folder)
            for _ in start(checkpoint=checkpoint.state if checkpoint else None):
                pass
            return
        finished = run_to_end(job.folder, start, on_record, job.kernels)
        result: FinalResult = {
            "digest": finished.digest,
            "genotype": genotype.to_json(),
            "provenance": provenance,
            "metrics": finished.metrics,
            "workers": workers().size,
            "seconds": finished.seconds,
            **describe(finished),
        }
        job.finish(result)


class Described(TypedDict):
    """What a final's result holds about its network and best epoch."""

    best: dict[str, float]
    parameters: int
    multiply_adds: NotRequired[int]
    train_images: NotRequired[int]


Training = tuple[Loop, Callable[[Finished], Described]]
"""A final's loop, and a function that describes its network and best epoch after the end."""


def train_on_images(
    config: TrainConfig, genotype: Genotype, data: Path, device: torch.device
) -> Training:
    """Prepare the training of a convolutional cell's network on the training images."""
    images = open_images(config.data, "train", data)
    test = open_images(config.data, "test", data)
    rows = subset(len(images), config.seed, config.train_images)
    network, image = build_network(config, genotype, images.classes), (3, images.size, images.size)
    # Counted before the training: an operation that cannot be counted is bad input.
    counts = count_parameters(network), count_multiply_adds(network, torch.zeros(1, *image))
    del network

    def describe(finished: Finished) -> Described:
        scored = [r for r in finished.records if "test/top1" in r["metrics"]]
        best = max(scored, key=lambda r: float(r["metrics"]["test/top1"]))
        hits = {k: v for k, v in best["metrics"].items() if k in ("test/top1", "test/top5")}
        return {
            "best": {"epoch": best["position"] // config.segments_per_epoch} | hits,
            "parameters": counts[0],
            "multiply_adds": counts[1],
            "train_images": len(rows),
        }

    start = partial(
        train_image,
        config,
        genotype,
        images,
        rows,
        test,
        torch.arange(len(test)),
        evaluated_on="test",
        device=device,
    )
    return start, describe


def train_on_text(
    config: TextTrainConfig, genotype: RecurrentGenotype, data: Path, device: torch.device
) -> Training:
    """Prepare the training of a recurrent cell's language model."""
    train, valid, test = (
        open_tokens(config.data, split, data) for split in ("train", "valid", "test")
    )

    def describe(finished: Finished) -> Described:
        network = build_language_model(config, genotype, train.vocabulary)
        best = min(finished.records, key=lambda r: float(r["metrics"]["valid/loss"]))
        return {
            "best": {
                "epoch": best["position"],
                "valid/perplexity": best["metrics"]["valid/perplexity"],
            },
            "parameters": count_parameters(network),
        }

    return partial(train_text, config, genotype, train, valid, test, device=device), describe
