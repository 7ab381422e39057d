"""A finished final's network, for the commands that use it outside the study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gdas.cnn.config import TrainConfig
from gdas.data.images import DIGIT_PHOTOS, open_images
from gdas.data.settings import AnyImageData, PhotoData
from gdas.data.shard_index import open_index
from gdas.data.source import Wanted
from gdas.errors import InputError, suggestion
from gdas.files import without_surrogates
from gdas.outside import check_named
from orchestrator.cost.images import image_side
from orchestrator.experiment.study import Job, Study
from orchestrator.store.data import data_on_this_node
from orchestrator.store.failure import read_failure
from orchestrator.store.recorded import driver, open_recorded, recorded_board
from orchestrator.store.results import FinalResult
from orchestrator.store.store import Store
from orchestrator.tracking.final_model import About, FinalModel, model_of
from orchestrator.work.body import newest_checkpoint

LABELS = {
    "cifar10": [
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ],
    "digits": list("0123456789"),
    DIGIT_PHOTOS: list("0123456789"),
}
"""The names of the classes of known data sets, by label; CIFAR-100's are in its own files."""


class Final(NamedTuple):
    """A finished final on images.

    Attributes:
        job: its job.
        model: its network, on the CPU, in evaluation mode.
        about: its settings, cell and metrics.
        labels: the names of its classes; their numbers, if the names are not on this machine.
        size: the side of its images, in pixels.
        data: the folder of its data sets, which may be gone.
    """

    job: Job
    model: FinalModel
    about: About
    labels: list[str]
    size: int
    data: Path

    @property
    def config(self) -> TrainConfig:
        """The settings of its training."""
        assert isinstance(self.model.config, TrainConfig)
        return self.model.config


def open_final(named: str, operations: Sequence[str], data: str | None = None) -> Final:
    """Open the network of a finished final.

    Args:
        named: OUT:FINAL, the study's folder or address and the final's name.
        operations: the operations from outside the package that may be imported.
        data: the folder or address of the data sets, if they are elsewhere now.

    Raises:
        InputError: there is no such final, it is not finished or no network of images, or its cell
            has an operation that is not named.
    """
    out, separator, name = named.rpartition(":")
    if not separator or not out:
        raise InputError(f"{named}: must be OUT:FINAL, such as runs/smoke:gdas-frc-digits")
    store, study = open_recorded(out)
    job = _job(name, study, out)
    if not model_of(job.recipe["config"]).images:
        raise InputError(f"{named}: is a language model; name a final on images")
    folder = store.folder(job)
    about, weights = _finished(store, study, job)
    check_named(about["config"].get("operations", ()), operations, named, "--operations {}")
    model = FinalModel(about, weights)
    assert isinstance(model.config, TrainConfig)
    settings = folder.settings()
    settings["environment"]["data"] = data or settings["environment"]["data"]
    place = data_on_this_node(settings)
    labels = _labels(model.config.data, about["outputs"], place)
    return Final(job, model, about, labels, image_side(about["config"]["data"]), place)


def _job(name: str, study: Study, out: str) -> Job:
    finals = [job for job in study.in_cluster if job.of.model]
    ids = study.finals.get(name, ())
    found = [job for job in finals if name in (job.label, job.name, job.id) or job.id in ids]
    if not found:
        raise InputError(
            f"{out}:{name}: no such final{suggestion(name, [job.name for job in finals])}"
        )
    if len(found) > 1:
        names = ", ".join(job.name for job in found)
        raise InputError(f"{out}:{name}: has {len(found)} seeds; name one of {names}")
    return found[0]


def _why_open(store: Store, study: Study, job: Job) -> str:
    """Why a final has no network yet, and what to do."""
    board = recorded_board(store, study, driven=driver(store) is not None)
    state, then = board.states[job.id], "run the study's command again"
    if state == "running":
        return "is not finished; wait for it"
    lost = next((other for other in lineage(study, job) if board.states[other.id] == "failed"), job)
    failure = None if lost.in_driver else read_failure(store.folder(lost).place)
    if failure is None or board.states[lost.id] != "failed":
        return f"is not finished; {then}"
    what = "failed" if lost is job else f"could not run, since {lost.label} failed"
    return f"{what} ({failure.error}); {failure.then(lost.label)}"


def lineage(study: Study, job: Job) -> list[Job]:
    """A job and all that it depends on, the job first."""
    kept = {job.id}
    for other in reversed(study.jobs):
        if other.id in kept:
            kept.update(other.needs)
    return [other for other in reversed(study.jobs) if other.id in kept]


def _finished(store: Store, study: Study, job: Job) -> tuple[About, dict[str, Tensor]]:
    folder = store.folder(job)
    result = folder.result(FinalResult)
    if result is None:
        raise InputError(f"{job.label}: {_why_open(store, study, job)}")
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        where = folder.address
        raise InputError(
            f"{job.label}: is done, but its checkpoints are not in {where}, as in a copy without "
            "them; copy them from where it was trained, or delete that folder and run the study's "
            "command again, which trains it anew"
        )
    config = job.recipe["config"]
    weights = checkpoint.state[model_of(config).tested]
    about: About = {
        "config": config,
        "genotype": result["genotype"],
        "outputs": len(weights["classifier.bias"]),
        "metrics": result["metrics"],
        "parameters": result["parameters"],
    }
    return about, weights


def _labels(data: AnyImageData, classes: int, folder: Path) -> list[str]:
    numbers = [str(number) for number in range(classes)]
    if data.name in LABELS:
        return LABELS[data.name]
    if not isinstance(data, PhotoData):
        return numbers
    try:
        names = [without_surrogates(name) for name in open_index(data, folder).classes]
    except (InputError, OSError):
        return numbers
    return names if len(names) == classes else numbers


def images_to_check(final: Final, count: int = 16) -> tuple[Tensor, str]:
    """The first test images of a final, and what they are; random ones if they are not here."""
    data = final.config.data
    there = final.data / data.name if isinstance(data, PhotoData) else final.data / "arrow"
    if there.exists():
        try:
            images = open_images(data, "test", final.data)
            rows = torch.arange(min(count, len(images)))
            return images.take(Wanted(rows, None)).pixels_BCHW, f"{len(rows)} test images"
        except (InputError, OSError):
            pass
    noise = torch.Generator().manual_seed(0)
    shape = (count, 3, final.size, final.size)
    pixels = torch.randint(256, shape, generator=noise, dtype=torch.uint8)
    return pixels, f"{count} random images, since {final.data} has no test images"
