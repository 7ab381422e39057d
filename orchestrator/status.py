"""The state of a study's jobs: `python -m orchestrator.status OUT`. From records alone, no Ray.

It works while the study runs, from any machine that sees the folder, and afterwards.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

from orchestrator.experiment.study import Job, Study
from orchestrator.store.board import Board
from orchestrator.store.recorded import (
    damaged_results,
    driver,
    open_recorded,
    recorded_board,
    started_at,
)
from orchestrator.store.storage import is_address
from orchestrator.store.store import Store
from orchestrator.terminal.command import add_study, command_parser, run_command, say_next
from orchestrator.terminal.progress import (
    command_after,
    failure_lines,
    job_progress,
    overview,
    tally,
)

MORE = """examples:
  python -m orchestrator.status runs/smoke                the state of every job, once
  python -m orchestrator.status runs/smoke --json         for scripts
  watch -n 5 python -m orchestrator.status runs/smoke     the same, every 5 seconds
  python -m orchestrator.status s3://BUCKET/runs/paper    a study on a cluster, from anywhere

states: waiting (not begun), running, done, stopped (begun; the same command goes on from its last
epoch), failed (its error is shown), blocked (needs a job that failed)."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser(
        "orchestrator.status",
        "Show every job of a study, from its records alone: state, epoch, metric, elapsed and "
        "remaining time, last error and log file.",
        MORE,
        done="whatever the jobs did",
    )
    add_study(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(parser(), _status, arguments)


def _status(options: argparse.Namespace) -> int:
    out: str = options.out
    store, study = open_recorded(out)
    holder = driver(store)
    board = recorded_board(store, study, driven=holder is not None)

    if options.json:
        print(json.dumps(as_json(store, study, board, driven=holder is not None), indent=1))
        return 0

    def progress_of(job: Job) -> Mapping[str, str]:
        since = started_at(store, job) if board.states[job.id] == "running" else None
        return job_progress(job, store, since=since)

    name = store.study().get("settings", {}).get("name", "study")
    where = f"driven by process {holder.pid} on {holder.host}" if holder else "nobody drives it now"
    print(f"{name} in {out}: {tally(study.jobs, board)}; {where}\n")
    print("\n".join(overview(study, board, progress_of)))
    if failed := failure_lines(study, store, board):
        print("\n" + "\n".join(failed))
    if damaged := damaged_results(study, store):
        print("\n" + "\n".join(damaged))
    if (heard := _last_heard(study, store)) is not None:
        print(f"\nlast record {heard}")
    if store.moved():
        print(
            "\nThe folder was moved or copied: its MLflow follows with the next command, or with "
            f"python -m orchestrator.send_runs {quote(out)}"
        )
    if holder is not None:
        say_next(f"watch -n 5 python -m orchestrator.status {quote(quote(out))}")
    elif board.all_done():
        say_next(f"{_to_the_report(store)}; python -m orchestrator.compare {quote(out)} OTHER")
    else:
        own = store.command() or "the command that started it; it goes on"
        say_next(command_after(study, store, board, own))
    return 0


def as_json(store: Store, study: Study, board: Board, *, driven: bool) -> dict[str, Any]:
    """The state of every job as numbers and words, for scripts."""
    jobs = []
    for job in study:
        records = store.records(job)
        last: dict[str, Any] = dict(records[-1]["metrics"]) if records else {}
        jobs.append(
            {
                "label": job.label,
                "id": job.id,
                "state": board.states[job.id],
                "segments": records[-1]["position"] if records else 0,
                "of": records[-1]["of"] if records else None,
                "seconds": sum(record["seconds"] for record in records),
                "metrics": last,
                "failures": board.failures.get(job.id, 0),
                "error": board.notes.get(job.id),
                "folder": None if job.in_driver else store.folder(job).address,
            }
        )
    name = store.study().get("settings", {}).get("name")
    return {"name": name, "out": store.address, "driven": driven, "jobs": jobs}


def _to_the_report(store: Store) -> str:
    """The command that opens the report."""
    if not is_address(store.address):
        return f"open {quote(store.address)}/report/report.html"
    address = store.address_of("report").partition("?")[0]
    return f"aws s3 sync {quote(address)} report && open report/report.html"


def _last_heard(study: Study, store: Store) -> str | None:
    """When the newest record was written, in words; None if there is none."""
    times = [
        records[-1]["time"] for job in study.in_cluster if (records := store.folder(job).records())
    ]
    if not times:
        return None
    seconds = max(0.0, time.time() - max(times))
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} seconds ago"


if __name__ == "__main__":
    sys.exit(main())
