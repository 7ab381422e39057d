"""A Tune trial around gdas.search; and the short proxy training that scores its cell.

Neither opens the test split: they know no way to.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gdas.genotype
from gdas.checkpoint import State
from gdas.cnn.space import (
    ImageSpace,
    derive_genotype,
    score_with_shared_weights,
    search_split,
)
from gdas.compute import open_device
from gdas.config import SearchConfig, TrainConfig
from gdas.data.images import open_images
from gdas.metrics import count_parameters
from gdas.search import search
from gdas.train_image import build_network, train_image
from orchestrator.experiment import decode
from orchestrator.job_body import failure_recorded, open_job, run_to_end
from orchestrator.store import JobFolder, Record

Report = Callable[[Record], None]


def run_search(path: str, on_record: Report = lambda record: None) -> dict[str, Any]:
    """Run the search job in the folder `path` to its end; returns its result."""
    folder, settings = open_job(path)
    with failure_recorded(folder):
        config = decode(SearchConfig, settings["recipe"]["config"], "recipe")
        resources = settings["resources"]
        device = open_device(resources["device"], threads=resources["threads"])
        images = open_images(config.data.name, "train", Path(settings["environment"]["data"]))

        space = ImageSpace(config, images, device)
        finished = run_to_end(
            folder, lambda state: search(config, space, checkpoint=state), on_record
        )
        genotype, cells = derive_genotype(config, finished.state["logits"])
        score = score_with_shared_weights(config, images, finished.state, device)
        result = {
            "digest": finished.digest,
            "genotype": genotype.to_json(),
            "entropy": {kind: cell.entropy for kind, cell in cells.items()},
            "probabilities": {kind: cell.probabilities for kind, cell in cells.items()},
            "margins": {kind: cell.margins for kind, cell in cells.items()},
            "shared_weights": {"valid/loss": score.loss, "valid/top1": score.top1},
            "metrics": finished.records[-1]["metrics"],
            "weights": count_parameters(space.weights, without=None),
            "seconds": finished.seconds,
        }
        folder.write_result(result)
        return result


def run_proxy(path: str, on_record: Report = lambda record: None) -> dict[str, Any]:
    """Train the cell of the search that this job needs on D_T and score it on D_V."""
    folder, settings = open_job(path)
    with failure_recorded(folder):
        config = decode(TrainConfig, settings["recipe"]["config"], "recipe")
        searched = decode(SearchConfig, settings["recipe"]["search"], "recipe.search")
        resources = settings["resources"]
        device = open_device(resources["device"], threads=resources["threads"])
        images = open_images(config.data.name, "train", Path(settings["environment"]["data"]))
        result_of_search = JobFolder(folder.path.parent / settings["needs"][0]).result()
        assert result_of_search is not None, "a proxy training runs after its search"
        genotype = gdas.genotype.from_json(result_of_search["genotype"])
        train_T, valid_V = search_split(searched, len(images))

        def start(state: State | None) -> Any:
            return train_image(
                config,
                genotype,
                images,
                train_T,
                images,
                valid_V,
                evaluated_on="valid",
                device=device,
                checkpoint=state,
            )

        finished = run_to_end(folder, start, on_record)
        result = {
            "digest": finished.digest,
            "genotype": genotype.to_json(),
            "metrics": finished.records[-1]["metrics"],
            "parameters": count_parameters(build_network(config, genotype, images.classes)),
            "seconds": finished.seconds,
        }
        folder.write_result(result)
        return result
