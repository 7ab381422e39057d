"""From the pack's results to the table by which plans know how long a step takes on that card.

    python -m tests.gpu.cards [tests/gpu/results.json]

writes `orchestrator/cost/cards.yaml`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from gdas.cnn.config import SearchConfig, SupernetConfig, TrainConfig
from gdas.files import write_text
from orchestrator.cost.cards import FILE
from orchestrator.experiment.build import settings_of
from orchestrator.experiment.study import flat
from tests.gpu.sizes import PAPER

RESULTS = Path(__file__).with_name("results.json")
HEAD = """\
# Steps timed on a card by `python -m tests.gpu`; written by `python -m tests.gpu.cards`. A plan
# takes its hours from here for jobs with these settings. `ms` is the median of `n` repeats.
"""
REDUCTIONS = {"search, FRC": "fixed", "search, both cells": "searched"}
DECIDE = ("network.", "sampler.relaxation", "sampler.acceleration", "alpha.gates", "precision",
          "channels_last", "compile")  # fmt: skip
"""The settings that decide a search's time, beside its batch and how it is executed."""
Figures = dict[str, Any]


def settings_of_search(reduction: str, batch: int, execution: str) -> dict[str, str]:
    """The settings that decide the time of a search's iteration."""
    network = SupernetConfig(
        channels=PAPER.channels,
        normals_per_block=PAPER.normals,
        reduction=reduction,  # type: ignore[arg-type]
    )
    config = SearchConfig(network=network, batch_size=batch)
    own = {k: v for k, v in flat(settings_of(config)).items() if k.startswith(DECIDE)}
    return {"execution": execution, "batch_size": str(batch), **own}


def settings_of_training(batch: int) -> dict[str, str]:
    """The settings that decide the time of a CIFAR training's step; it has no auxiliary head."""
    channels, normals, _ = PAPER.final
    config = TrainConfig(channels=channels, normals_per_block=normals, batch_size=batch)
    keys = ("channels", "normals_per_block", "batch_size", "stem", "macro", "precision",
            "channels_last", "compile")  # fmt: skip
    every = flat({key: getattr(config, key) for key in keys})
    return {**every, "auxiliary_weight": "0.0"}


def steps(results: Figures) -> Iterator[Figures]:
    """The steps that were timed, in the form of `cards.yaml`."""
    for name, reduction in REDUCTIONS.items():
        graph = results.get("graph", {}).get("checks", {}).get(name, {})
        ways = {way: graph[way] for way in ("graph", "eager") if way in graph}
        fast = results.get("fast", {}).get("checks", {}).get(name, {})
        if "eager" not in ways and "ours" in fast.get("ways", {}):
            ways["eager"] = fast["ways"]["ours"]
        for execution, figures in ways.items():
            batch = int((graph or fast)["batch"])
            yield _step("search", settings_of_search(reduction, batch, execution), figures)
    training = results.get("fast", {}).get("checks", {}).get("training, CIFAR", {})
    if "ways" in training:
        settings = settings_of_training(int(training["batch"]))
        yield _step("train", settings, training["ways"]["ours"])


def _step(of: str, settings: dict[str, str], figures: Figures) -> Figures:
    ms = figures["ms"]
    return {"of": of, "ms": ms["median"], "n": ms["n"], "settings": settings}


def table(results: Figures) -> str:
    """`cards.yaml` for the results of a card."""
    about = results["about"]
    found = {"card": about["device"], "measured": about["measured"], "versions": about["versions"]}
    every = {**found, "steps": list(steps(results))}
    return HEAD + yaml.safe_dump(every, sort_keys=False, width=100)


if __name__ == "__main__":
    results = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    write_text(FILE, table(json.loads(results.read_text())))
