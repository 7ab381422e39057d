"""How long a step takes on a card, from `cards.yaml`: what the pack `tests.gpu` measured on one.

Only steps that were measured count: a search or a training with another size, batch, precision or
execution is guessed as before. `python -m tests.gpu.cards` writes the file from the pack's results.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
import yaml

from orchestrator.cost.work import PASSES, Work
from orchestrator.experiment.study import Job, flat

FILE = Path(__file__).with_name("cards.yaml")


class Step(NamedTuple):
    """A step that was timed on a card.

    Attributes:
        of: "search" (an iteration: a step of W and one of alpha) or "train".
        settings: the settings of the job that decide its time, by their dotted names, as text.
        ms: the median of its milliseconds.
    """

    of: str
    settings: dict[str, str]
    ms: float


class Card(NamedTuple):
    """A card, and the steps that were timed on it.

    Attributes:
        name: as PyTorch gives it.
        measured: the day.
        steps: the steps that were timed.
    """

    name: str
    measured: str
    steps: list[Step]


@cache
def measured_card() -> Card:
    """The card of `cards.yaml`."""
    found = yaml.safe_load(FILE.read_text())
    steps = [Step(step["of"], flat(step["settings"]), float(step["ms"])) for step in found["steps"]]
    return Card(found["card"], str(found["measured"]), steps)


def said_of_card() -> str:
    """A line under a plan that took hours from the measured card."""
    card = measured_card()
    return f"on a card: by steps timed on one {card.name}, {card.measured}; another card differs"


def measured_seconds(job: Job, work: Work) -> float | None:
    """Seconds of a job's work on a whole card of the measured kind.

    Returns:
        None if no such step was measured, or if this machine has a card of another name.
    """
    trains = work.epochs and "iterations" not in job.recipe
    if job.resources["device"] != "cuda" or job.workers > 1 or not trains:
        return None
    card = measured_card()
    if torch.cuda.is_available() and torch.cuda.get_device_name() != card.name:
        return None
    config = job.recipe["config"]
    of = "search" if job.of.config == "search" else "train"
    has = {"execution": "eager", **flat(config)}  # an eager search's settings do not name it
    for step in card.steps:
        if step.of == of and step.settings.items() <= has.items():
            steps = -(-work.examples // config["batch_size"]) * work.epochs
            forward = 1 / (2 * PASSES if of == "search" else PASSES)
            scored = work.passes / config["batch_size"] * forward
            return float((steps + scored) * step.ms / 1e3)
    return None
