"""The error record of a job: its last error, in failure.json in the job's folder."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import get_args

from gdas.files import without_surrogates, write_json
from orchestrator.store.place import Place
from orchestrator.store.results import Cause, FailureFile

FAILURE = "failure.json"
MEMORY_ADVICE = (
    "give it a larger device, let fewer jobs share one (resources: cpus or gpus), or lower "
    "recipe.batch_size or the network's size, which changes the result"
)


@dataclass(frozen=True)
class Failure:
    """A job's last failure.

    Attributes:
        error: the error's text, in one line.
        cause: where the error came from.
        times: how often the job failed in the command that last ran it.
        given_up: whether that command will not retry the job.
        traceback: of the job's own exception; "" if its process died without one.
    """

    error: str
    cause: Cause
    times: int
    given_up: bool
    traceback: str = ""

    @property
    def settled(self) -> bool:
        """Whether the next command does not try the job again: its loss would diverge again."""
        return self.given_up and self.cause == "diverged"

    def then(self, label: str) -> str:
        """What becomes of the job with the next command, and what to do.

        Args:
            label: the job's.
        """
        if not self.settled:
            return "the study's command tries it again"
        return (
            "not tried again, for it would go the same way: change one of its settings, which "
            f"makes it a new job, or, with other code or another machine, add --only {label}"
        )


def read_failure(job: Place) -> Failure | None:
    """Read the job's error record; None if there is none or it is damaged."""
    try:
        found = _load(job)
        cause = found.get("cause", "own")
        return Failure(
            error=str(found["error"]),
            cause=cause if cause in get_args(Cause) else "own",
            times=int(found.get("times", 1)),
            given_up=not found.get("again", True),
            traceback=str(found.get("traceback", "")),
        )
    except (OSError, ValueError, OverflowError, KeyError, TypeError, RecursionError):
        return None


def traceback_of(job: Place) -> str:
    """The traceback of a job's last error; empty if none is recorded."""
    try:
        return str(_load(job)["traceback"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def write_failure(job: Place, error: str, trace: str, cause: Cause = "own") -> None:
    """Write an error and its traceback to the job's folder."""
    found: FailureFile = {
        "error": without_surrogates(error),
        "traceback": without_surrogates(trace),
        "time": time.time(),
        "cause": cause,
    }
    write_json(job.path / FAILURE, found)
    try:
        job.publish(FAILURE)
    except OSError as problem:  # the job's own error is the one to raise, not this one
        print(f"{job.address}: {FAILURE} cannot be written ({problem})", file=sys.stderr)


def note_failure(
    job: Place, why: str, cause: Cause, times: int, *, again: bool, trace: str = ""
) -> None:
    """Add what only the driver knows to a job's error record, or make one if there is none.

    Args:
        why: the error's text, used if the job left no record of its own.
        times: how often the job has failed in this command.
        again: whether the job will be retried.
        trace: what Ray said, used if the job left no record of its own.
    """
    try:
        found = _load(job)
    except (OSError, ValueError, TypeError, RecursionError):
        found = {"error": why, "traceback": trace, "time": time.time(), "cause": cause}
    try:
        write_json(job.path / FAILURE, {**found, "times": times, "again": again})
        job.publish(FAILURE)
    except OSError:
        return  # a full disk, or a store that does not answer; the driver has it in memory


def clear_failure(job: Place) -> None:
    """Delete the job's error record."""
    job.remove(FAILURE)


def _load(job: Place) -> FailureFile:
    found: FailureFile = json.loads((job.path / FAILURE).read_text())
    if not isinstance(found, dict):
        raise TypeError(f"{FAILURE} is no JSON object")
    return found
