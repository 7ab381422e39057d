"""What every job does around its training loop: resume, save, record.

A job finds its own newest whole checkpoint, so that a new trial, a retry and a new study are one
case. A segment's checkpoint is committed before its record is appended, and the checkpoint's
history replaces the records on resume.
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
from gdas.errors import InputError, one_line
from orchestrator.store.data import data_on_this_node
from orchestrator.store.failure import write_failure
from orchestrator.store.job_folder import NO_SPACE, JobFolder
from orchestrator.store.place import TakenOver
from orchestrator.store.results import Cause, Details, JobSettings, Record

Report = Callable[[Record], None]
"""What is told of every record once it is on disk."""


class Loop(Protocol):
    """A training loop that begins from a state, or from nothing."""

    def __call__(self, *, checkpoint: State | None) -> Iterator[Segment]: ...


class Finished(NamedTuple):
    """A loop that ran to its end.

    Attributes:
        digest: of the final state.
        records: of every segment.
        state: the final state.
    """

    digest: str
    records: list[Record]
    state: State

    @property
    def metrics(self) -> dict[str, float]:
        """Of the last segment."""
        return self.records[-1]["metrics"]

    @property
    def seconds(self) -> float:
        """Time spent in segments, over all starts."""
        return float(sum(record["seconds"] for record in self.records))


def run_to_end(folder: JobFolder, start: Loop, on_record: Report = lambda record: None) -> Finished:
    """Go on from the newest checkpoint, committing every segment.

    Args:
        start: the loop.
        on_record: told of every segment once it is on disk.
    """
    folder.claim()
    checkpoint = newest_checkpoint(folder)
    records = cast(list[Record], list(checkpoint.records)) if checkpoint else []
    folder.rewrite_records(records)
    digest, state = (checkpoint.digest, checkpoint.state) if checkpoint else ("", {})
    started = time.time()
    for segment in start(checkpoint=checkpoint.state if checkpoint else None):
        record = record_of(
            segment.position, segment.of, segment.metrics, cast(Details, segment.details), started
        )
        records.append(record)
        digest = save(folder.checkpoints, segment, records)
        folder.commit_checkpoint(segment.position)
        folder.append_record(record)
        state = segment.state or {}
        on_record(record)
        started = time.time()
    return Finished(digest, records, state)


def newest_checkpoint(folder: JobFolder) -> Checkpoint | None:
    """The newest whole checkpoint of a job; damaged ones are passed over and named."""
    position = None
    while True:
        position = folder.fetch_checkpoint(below=position)
        checkpoint, damaged = newest(folder.checkpoints)
        for line in damaged:
            print(line, file=sys.stderr)
        if checkpoint is not None or position is None:
            return checkpoint
        shutil.rmtree(folder.checkpoints / f"{position:06d}")


def record_of(
    position: int, of: int, metrics: dict[str, float], details: Details, started: float
) -> Record:
    """The record of a segment that ends now, in this process."""
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
    """Leave an error's text in the job's folder on its way out."""
    try:
        yield
    except TakenOver:
        raise  # the folder is another's: it is not this start's failure that counts
    except Exception as error:
        # On a full disk there is no room for a word; the error itself tells Ray.
        with suppress(OSError):
            cause: Cause = "input" if isinstance(error, InputError) else "own"
            write_failure(folder.place, describe(error), traceback.format_exc(), cause)
        raise


def describe(error: Exception) -> str:
    """An error in one line, with what to change where that is known."""
    text = one_line(error) or type(error).__name__
    if isinstance(error, InputError):
        return f"bad input: {text}"
    if isinstance(error, MemoryError) or any(sign in text for sign in OUT_OF_MEMORY):
        return f"out of memory ({type(error).__name__}: {text[:200]}); {MEMORY_ADVICE}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NO_SPACE
    return f"{type(error).__name__}: {text}"


OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory")
"""What PyTorch, CUDA and Linux say."""

MEMORY_ADVICE = (
    "give it a larger device, let fewer jobs share one (resources: cpus or gpus), or lower "
    "recipe.batch_size or the network's size, which changes the result"
)


class OpenJob(NamedTuple):
    """A job that runs in this process.

    Attributes:
        settings: what `Store.prepare` wrote.
        data: the folder of the data sets, on this node.
    """

    folder: JobFolder
    settings: JobSettings
    device: torch.device
    data: Path

    @property
    def recipe(self) -> dict[str, Any]:
        return self.settings["recipe"]

    def needed(self) -> JobFolder:
        """The folder of the first job that it needs."""
        return self.folder.beside(self.settings["needs"][0])


@contextmanager
def open_job(path: str) -> Iterator[OpenJob]:
    """Set this process up for the job in the folder `path`; an error inside is left there.

    Args:
        path: as `JobFolder.open` takes it.
    """
    folder = JobFolder.open(path)
    settings = folder.settings()
    with failure_recorded(folder):
        resources = settings["resources"]
        device = open_device(resources["device"], threads=resources["threads"])
        yield OpenJob(folder, settings, device, data_on_this_node(settings))


class Process(TypedDict):
    """A process as records name it, and the GPUs that it was given."""

    host: str
    pid: int
    gpu: NotRequired[str]


def where_and_who() -> Process:
    """This process."""
    here: Process = {"host": platform.node(), "pid": os.getpid()}
    if gpus := os.environ.get("CUDA_VISIBLE_DEVICES", ""):
        here["gpu"] = gpus
    return here
