"""What a job printed, from its folder: `python -m orchestrator.log OUT JOB`. No Ray."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from shlex import quote

from gdas.errors import InputError, suggestion
from orchestrator.experiment.study import Job, Study
from orchestrator.store.failure import read_failure, traceback_of
from orchestrator.store.job_folder import LOG
from orchestrator.store.recorded import driver, open_recorded
from orchestrator.store.store import Store
from orchestrator.terminal.command import add_study, command_parser, run_command, say_next

MORE = """examples:
  python -m orchestrator.log runs/smoke search-gdas-frc-seed0
  python -m orchestrator.log runs/smoke search-gdas-frc-seed0 --follow      while it runs
  python -m orchestrator.log runs/smoke train-gdas-frc-digits --traceback   of its last error
  python -m orchestrator.log s3://BUCKET/runs/paper train-v1                from anywhere

JOB is a label as orchestrator.status prints it. A job keeps the last MiB of what it printed."""

EVERY_S = 1.0
"""Seconds between two readings of a log that is followed."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser(
        "orchestrator.log",
        "Print what a job of a study has printed: its starts, a line per segment, its errors.",
        MORE,
        done="it was printed",
    )
    add_study(parser)
    parser.add_argument("job", metavar="JOB", help="the job's label, such as search-gdas-frc-seed0")
    parser.add_argument("--follow", action="store_true", help="go on until the study ends")
    parser.add_argument("--traceback", action="store_true", help="only that of its last error")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(parser(), _log, arguments)


def _log(options: argparse.Namespace) -> int:
    store, study = open_recorded(options.out)
    job = job_named(options.job, study)
    if options.traceback:
        return _traceback(store, job)
    text = _text(store, job)
    if not text and not options.follow:
        raise InputError(f"{job.label}: has printed nothing yet; --follow waits for it")
    print(text, end="", flush=True)
    while options.follow and driver(store) is not None and not store.done(job):
        time.sleep(EVERY_S)
        store.refresh_quietly()
        text, before = _text(store, job), text
        print(_new(text, before), end="", flush=True)
    say_next(f"python -m orchestrator.status {quote(options.out)}")
    return 0


def job_named(label: str, study: Study) -> Job:
    """The job of that label, name or id, or the only one whose label begins so.

    Raises:
        InputError: there is none, or several begin so; names the closest.
    """
    named = study.named(label) if label else []
    alike = [job for job in named if not job.in_driver]
    if named and not alike:
        raise InputError(
            f"{named[0].label}: is done by the study's command itself and has no log; what it "
            f"found is in OUT/selections/{named[0].name}.json"
        )
    for job in alike:
        if len(alike) == 1 or label in (job.label, job.name, job.id):
            return job
    if alike:
        names = ", ".join(job.label for job in alike)
        raise InputError(f"{label}: {len(alike)} jobs begin so; name one of {names}")
    close = suggestion(label, [job.label for job in study.in_cluster])
    raise InputError(f"{label}: no such job{close}")


def _traceback(store: Store, job: Job) -> int:
    place = store.folder(job).place
    failure = read_failure(place)
    if failure is None:
        raise InputError(f"{job.label}: no error is recorded; leave --traceback out")
    print(traceback_of(place) or f"{failure.error} (it left no traceback)")
    return 0


def _text(store: Store, job: Job) -> str:
    """The whole log; on an object store, as the job last published it."""
    try:
        return store.folder(job).place.read(LOG).decode(errors="replace")
    except OSError:
        return ""


def _new(text: str, before: str) -> str:
    """What was added to a log, from which the older part may have been dropped."""
    if text.startswith(before):
        return text[len(before) :]
    last = before[-200:]
    return text.rpartition(last)[2] if last and last in text else text


if __name__ == "__main__":
    sys.exit(main())
