"""A final training: a Ray Train run around gdas.train_image.

The test split opens only where the cell's provenance is on disk (`open_test`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import gdas.genotype
from gdas.checkpoint import Segment, State
from gdas.compute import open_device
from gdas.config import TrainConfig
from gdas.data.arrow import Images
from gdas.data.images import open_images, subset
from gdas.distributed import workers
from gdas.files import write_json
from gdas.genotype import Genotype
from gdas.metrics import count_multiply_adds, count_parameters
from gdas.train_image import build_network, train_image
from orchestrator.experiment import decode
from orchestrator.job_body import failure_recorded, open_job, run_to_end
from orchestrator.store import JobFolder, Record


def settle_provenance(folder: JobFolder, settings: dict[str, Any], selections: Path) -> Genotype:
    """Write down which cell this final trains and where it comes from; returns the cell.

    Args:
        selections: the study's folder of selection records.

    Raises:
        RuntimeError: the selection record is missing or of another study.
    """
    cell = settings["recipe"]["cell"]
    provenance: dict[str, Any] = {"source": cell["source"]}
    if cell["source"] == "searched":
        path = selections / f"{cell['track']}.json"
        record = json.loads(path.read_text())
        if record["id"] not in settings["needs"]:
            raise RuntimeError(f"{path}: the record of other settings; run the study again")
        provenance |= {
            "selection": record["id"],
            "track": record["track"],
            "by": record["by"],
            "seed": record["winner"]["seed"],
            "genotype": record["winner"]["genotype"],
        }
    else:
        provenance["genotype"] = cell["genotype"]
    write_json(folder.path / "provenance.json", provenance)
    return gdas.genotype.from_json(provenance["genotype"], str(folder.path / "provenance.json"))


def open_test(folder: JobFolder, name: str, data: Path) -> Images:
    """The test split, for a final whose provenance record is on disk and for nothing else.

    Raises:
        PermissionError: there is no provenance record.
    """
    path = folder.path / "provenance.json"
    try:
        provenance = json.loads(path.read_text())
        gdas.genotype.from_json(provenance["genotype"], str(path))
    except (OSError, ValueError, KeyError):
        raise PermissionError(
            f"the test split of {name} stays closed: no provenance record {path}"
        ) from None
    return open_images(name, "test", data)


def train_worker(path: str, on_record: Callable[[Record], None] = lambda record: None) -> None:
    """What each worker of a final training does; worker 0 writes.

    Works without Ray too: one worker where torch.distributed is not initialised.
    """
    folder, settings = open_job(path)
    with failure_recorded(folder):
        config = decode(TrainConfig, settings["recipe"]["config"], "recipe")
        resources, data = settings["resources"], Path(settings["environment"]["data"])
        device = open_device(resources["device"], threads=resources["threads"])
        provenance = json.loads((folder.path / "provenance.json").read_text())
        genotype = gdas.genotype.from_json(provenance["genotype"])
        images = open_images(config.data.name, "train", data)
        test = open_test(folder, config.data.name, data)
        rows = subset(len(images), config.seed, config.train_images)

        def start(state: State | None) -> Iterator[Segment]:
            return train_image(
                config,
                genotype,
                images,
                rows,
                test,
                torch.arange(len(test)),
                evaluated_on="test",
                device=device,
                checkpoint=state,
            )

        if workers().rank > 0:
            from gdas.checkpoint import newest

            checkpoint, _ = newest(folder.checkpoints)
            for _ in start(checkpoint.state if checkpoint else None):
                pass
            return
        finished = run_to_end(folder, start, on_record)
        network = build_network(config, genotype, images.classes)
        scored = [r for r in finished.records if "test/top1" in r["metrics"]]
        best = max(scored, key=lambda r: r["metrics"]["test/top1"])
        folder.write_result(
            {
                "digest": finished.digest,
                "genotype": genotype.to_json(),
                "provenance": provenance,
                "metrics": finished.records[-1]["metrics"],
                "best": {"epoch": best["position"], "test/top1": best["metrics"]["test/top1"]},
                "parameters": count_parameters(network),
                "multiply_adds": count_multiply_adds(
                    network, torch.zeros(1, 3, images.size, images.size)
                ),
                "train_images": len(rows),
                "workers": workers().size,
                "seconds": finished.seconds,
            }
        )
