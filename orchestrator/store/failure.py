"""The last error of a job, as failure.json in its folder holds it."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import get_args

from gdas.files import write_json
from orchestrator.store.place import Place
from orchestrator.store.results import Cause, FailureFile

FAILURE = "failure.json"


@dataclass(frozen=True)
class Failure:
    """What is known of a job's last failure.

    Attributes:
        error: its text, in one line.
        cause: whose fault it was.
        times: failures in the command that last ran the job.
        given_up: that command will not try the job again.
    """

    error: str
    cause: Cause
    times: int
    given_up: bool


def read_failure(job: Place) -> Failure | None:
    """The job's last failure; None where nobody left a word, or a damaged one."""
    try:
        found = _load(job)
        cause = found.get("cause", "own")
        return Failure(
            error=str(found["error"]),
            cause=cause if cause in get_args(Cause) else "own",
            times=int(found.get("times", 1)),
            given_up=not found.get("again", True),
        )
    except (OSError, ValueError, OverflowError, KeyError, TypeError, RecursionError):
        return None


def write_failure(job: Place, error: str, trace: str, cause: Cause = "own") -> None:
    """Leave an error and its traceback in the job's folder."""
    found: FailureFile = {
        "error": error,
        "traceback": trace,
        "time": time.time(),
        "cause": cause,
    }
    write_json(job.path / FAILURE, found)
    try:
        job.publish(FAILURE)
    except OSError as problem:  # what failed is raised, not this
        print(f"{job.address}: {FAILURE} cannot be written ({problem})", file=sys.stderr)


def note_failure(job: Place, why: str, cause: Cause, times: int, *, again: bool) -> None:
    """The driver's word on a failure, beside what the job left of it.

    Args:
        times: failures in this command.
        again: the job will be tried again.
    """
    try:
        found = _load(job)
    except (OSError, ValueError, TypeError, RecursionError):
        found = {"error": why, "traceback": "", "time": time.time(), "cause": cause}
    try:
        write_json(job.path / FAILURE, {**found, "times": times, "again": again})
        job.publish(FAILURE)
    except OSError:
        return  # a full disk, or a store that is away: the driver knows it still


def clear_failure(job: Place) -> None:
    """The job has no failure from here on."""
    job.remove(FAILURE)


def _load(job: Place) -> FailureFile:
    found: FailureFile = json.loads((job.path / FAILURE).read_text())
    if not isinstance(found, dict):
        raise TypeError(f"{FAILURE} is no JSON object")
    return found
