"""For real: a search with the fixed reduction cell on real images of CIFAR-10, with its curve.

The images are those that tests.gpu.carry wrote to one file. The search has as many epochs as the
time allows, by the time of a few steps; its temperature and its rate fall over these epochs, so
that it is a whole, if short, search.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from gdas.cnn.config import SearchConfig
from gdas.cnn.space import ImageSpace, score_with_shared_weights
from gdas.data.arrow import Images
from gdas.search import SearchSteps, search
from tests.gpu.carry import carried
from tests.gpu.clock import wait
from tests.gpu.findings import Figures, Findings
from tests.gpu.setup import real_search
from tests.gpu.sizes import PAPER, Sizes

KEPT = 0.85
"""Share of the time that is planned for; the rest is for what was not foreseen."""
STEPS = 12
"""Steps whose time tells how many epochs there is time for."""


def run(of: Findings, device: torch.device, sizes: Sizes, file: Path) -> None:
    if not file.exists():
        of.note("search on CIFAR-10", {"not_run": f"no data: {file} is not there"})
        return
    images = carried(file)
    of.take("search on CIFAR-10", lambda: _search(of, device, sizes, images))


def _search(of: Findings, device: torch.device, sizes: Sizes, images: Images) -> Figures:
    config = real_search(sizes, sizes.batches[0], 1)
    space = ImageSpace(config, images, device)
    epoch_seconds = _step_seconds(config, space, device) * space.steps(0)
    epochs = max(1, int(KEPT * of.left() / epoch_seconds))
    epochs = epochs if sizes is PAPER else 1
    config = real_search(sizes, sizes.batches[0], epochs)
    figures: Figures = {
        "images": len(images),
        "batch": config.batch_size,
        "epochs": epochs,
        "expected_epoch_seconds": epoch_seconds,
        "curve": [],
    }
    began = time.perf_counter()
    for segment in search(config, ImageSpace(config, images, device)):
        curve = {key: value for key, value in segment.metrics.items() if key != "lr"}
        figures["curve"].append(curve | {"at_seconds": time.perf_counter() - began})
        figures["cell"] = segment.details.get("genotype")
        of.note("search on CIFAR-10", figures)
        if of.left() <= 0:
            return figures | {"cut": "the time was over"}
    assert segment.state is not None
    score = score_with_shared_weights(config, images, segment.state, device)
    return figures | {"cell_top1": score.top1}


def _step_seconds(config: SearchConfig, space: ImageSpace, device: torch.device) -> float:
    run = SearchSteps(config, space)
    run.space.weights.train()
    for index in range(2 * STEPS):
        if index == STEPS:  # the first ones warm up
            wait(device)
            began = time.perf_counter()
        run.weight_step(0, index % space.steps(0), 5.0)
        run.alpha_step(0, index % space.steps(0), 5.0)
    wait(device)
    return (time.perf_counter() - began) / STEPS
