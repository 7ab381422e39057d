"""What every job does around its training loop: resume, save, record.

A job finds its own newest valid checkpoint, so a new trial, a retry and a new study are the same
case. A segment's checkpoint is committed before its record is appended, and on resume the records
are replaced by the checkpoint's history.
"""

from __future__ import annotations

import errno
import os
import platform
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, Protocol, TypedDict, cast

import torch

from gdas.checkpoint import Checkpoint, Segment, State, newest, save
from gdas.compute import open_device
from gdas.config import Kernels
from gdas.errors import InputError, one_line
from gdas.outside import source_checksum
from orchestrator.experiment.kinds import load
from orchestrator.store.data import data_on_this_node
from orchestrator.store.failure import MEMORY_ADVICE, write_failure
from orchestrator.store.job_folder import NO_SPACE, JobFolder
from orchestrator.store.kernels import kernels_here, other_kernels
from orchestrator.store.place import TakenOver
from orchestrator.store.results import Cause, Details, JobSettings, Record, Result
from orchestrator.store.store import selection_records
from orchestrator.work.job_log import logged, say_segment
from orchestrator.work.machine import measured

Report = Callable[[Record], None]
"""A callback for every record, called once the record is on disk."""


class Loop(Protocol):
    """A training loop that starts from a checkpoint's state, or from the beginning."""

    def __call__(self, *, checkpoint: State | None) -> Iterator[Segment]:
        """Start from `checkpoint`, or from the beginning if it is None."""


class Finished(NamedTuple):
    """A loop that ran to its end.

    Attributes:
        digest: a hash of the final state.
        records: one per segment.
        state: the final state.
    """

    digest: str
    records: list[Record]
    state: State

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the last segment."""
        return self.records[-1]["metrics"]

    @property
    def seconds(self) -> float:
        """Seconds spent in segments, over all starts."""
        return float(sum(record["seconds"] for record in self.records))


def run_to_end(
    folder: JobFolder,
    start: Loop,
    on_record: Report = lambda record: None,
    kernels: Kernels | None = None,
) -> Finished:
    """Run a loop from the newest checkpoint to its end, and commit every segment.

    Args:
        start: the loop.
        on_record: called with each record once it is on disk.
        kernels: the kernels that it runs with; None: it has no such choice.
    """
    folder.claim()
    checkpoint = newest_checkpoint(folder, noted=True)
    records = cast(list[Record], list(checkpoint.records)) if checkpoint else []
    folder.rewrite_records(records)
    if line := other_kernels(records, kernels):
        print(f"{folder.path.name}: {line}", file=sys.stderr)
    digest, state = (checkpoint.digest, checkpoint.state) if checkpoint else ("", {})
    started = time.time()
    for segment in start(checkpoint=checkpoint.state if checkpoint else None):
        record = record_of(
            segment.position, segment.of, segment.metrics, cast(Details, segment.details), started
        )
        if kernels is not None:
            record["kernels"] = kernels
        records.append(record)
        digest = save(folder.checkpoints, segment, records)
        folder.commit_checkpoint(segment.position)
        folder.append_record(record)
        say_segment(folder, record)
        with suppress(OSError):
            folder.publish_samples()
        state = segment.state or {}
        on_record(record)
        started = time.time()
    return Finished(digest, records, state)


def newest_checkpoint(folder: JobFolder, *, noted: bool = False) -> Checkpoint | None:
    """The newest valid checkpoint of a job; damaged ones are skipped and named on stderr.

    Args:
        noted: whether to record the damaged ones in the job's folder too, for the driver.
    """
    position = None
    while True:
        position = folder.fetch_checkpoint(below=position)
        checkpoint, damaged = newest(folder.checkpoints, older=position is not None)
        for line in damaged:
            print(line, file=sys.stderr)
        if damaged and noted:
            folder.note_damage(damaged)
        if checkpoint is not None or position is None:
            return checkpoint
        shutil.rmtree(folder.checkpoints / f"{position:06d}")


def record_of(
    position: int, of: int, metrics: dict[str, float], details: Details, started: float
) -> Record:
    """Make the record of a segment that ends now, in this process."""
    now = time.time()
    return {
        "position": position,
        "of": of,
        "metrics": metrics,
        "details": details,
        "started": started,
        "time": now,
        "seconds": now - started,
        **where_and_who(),
    }


@contextmanager
def failure_recorded(folder: JobFolder) -> Iterator[None]:
    """Write an error record to the job's folder if the block raises; the error is raised again."""
    try:
        yield
    except TakenOver:
        raise  # the folder belongs to a later start now, so this error does not count
    except Exception as error:
        # On a full disk there is no room for the record; Ray gets the error all the same.
        with suppress(OSError):
            write_failure(folder.place, describe(error), traceback.format_exc(), _cause(error))
        raise


def _cause(error: Exception) -> Cause:
    if isinstance(error, InputError):
        return "input"
    return "diverged" if isinstance(error, FloatingPointError) else "own"


def describe(error: Exception) -> str:
    """An error in one line, with what to change if that is known."""
    text = one_line(error) or type(error).__name__
    if isinstance(error, InputError):
        return f"bad input: {text}"
    if isinstance(error, MemoryError) or any(sign in text for sign in OUT_OF_MEMORY):
        return f"out of memory ({type(error).__name__}: {text[:200]}); {MEMORY_ADVICE}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NO_SPACE
    return f"{type(error).__name__}: {text}"


OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory")
"""How PyTorch, CUDA and Linux word it."""


class OpenJob(NamedTuple):
    """A job that runs in this process.

    Attributes:
        folder: its folder.
        settings: its settings.json, as `Store.prepare` wrote it.
        device: where its tensors go.
        data: the folder of the data sets, on this node.
        end_measuring: takes the last sample of the machine.
    """

    folder: JobFolder
    settings: JobSettings
    device: torch.device
    data: Path
    end_measuring: Callable[[], None]

    @property
    def recipe(self) -> dict[str, Any]:
        """Everything that the job's id is hashed from besides what it needs."""
        return self.settings["recipe"]

    @property
    def kernels(self) -> Kernels | None:
        """Which kernels it runs with on this machine; None if its settings have no such choice."""
        return kernels_here(self.recipe, self.settings["resources"])

    def needed(self) -> JobFolder:
        """The folder of the first job that it needs."""
        return self.folder.beside(self.settings["needs"][0])

    def finish(self, result: Result) -> None:
        """Write the result, which marks the job done; nothing of it may be written after that."""
        self.end_measuring()
        self.folder.write_result(result)


@contextmanager
def open_job(path: str) -> Iterator[OpenJob]:
    """Set this process up for the job in the folder `path`; an error inside is recorded there.

    Args:
        path: the path or address that `JobFolder.open` takes.
    """
    folder = JobFolder.open(path)
    settings = folder.settings()
    resources = settings["resources"]
    here = f"process {os.getpid()} on {platform.node()}, {resources['device']}"
    with (
        logged(folder, here),
        failure_recorded(folder),
        measured(folder, resources["device"]) as end,
    ):
        _check_code(settings["recipe"])
        device = open_device(resources["device"], threads=resources["threads"])
        yield OpenJob(folder, settings, device, data_on_this_node(settings), end)


def _check_code(recipe: dict[str, Any]) -> None:
    """Raise InputError if the user's functions are written otherwise on this machine."""
    for name, checksum in recipe.get("code", {}).items():
        if source_checksum(name) != checksum:
            raise InputError(
                f"{name}: its file on {platform.node()} is not the one that the study "
                "was started with; copy it to every machine, or start the study again"
            )


def run_job(address: str, body: str, before: str | None) -> None:
    """Run the job in the folder at `address` in this process, whatever its kind.

    Args:
        body: the kind's body, named as text.
        before: what its kind calls first, named as text; None: nothing.
    """
    if before is not None:
        prepare_job(JobFolder.open(address), before)
    load(body)(address, lambda record: None)


def prepare_job(folder: JobFolder, before: str) -> None:
    """Call what a kind of job calls before its body; an error inside is recorded."""
    settings = folder.settings()
    with failure_recorded(folder):
        selections = selection_records(settings["environment"]["selections"])
        load(before)(folder, settings, selections)


class Process(TypedDict):
    """A process as records name it, and the GPUs that it was given."""

    host: str
    pid: int
    gpu: NotRequired[str]
    kernels: NotRequired[str]


def where_and_who() -> Process:
    """This process, for a record."""
    here: Process = {"host": platform.node(), "pid": os.getpid()}
    if gpus := os.environ.get("CUDA_VISIBLE_DEVICES", ""):
        here["gpu"] = gpus
    return here
