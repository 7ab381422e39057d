"""Upload a study's runs to an MLflow server: `python -m orchestrator.send_runs OUT --to URI`.

The records in the output folder are the original, and any MLflow has a copy of them. So nothing is
moved from one MLflow to another: the records are uploaded again, as the study uploads them.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Sequence

from gdas.errors import InputError
from orchestrator.store.recorded import driver, open_recorded, recorded_board, recorded_experiment
from orchestrator.terminal.command import (
    add_operations,
    add_study,
    command_parser,
    run_command,
    say_next,
)
from orchestrator.terminal.words import counted
from orchestrator.tracking.reach import fault_of
from orchestrator.tracking.tracker import Tracker
from orchestrator.tracking.words import where_to_look

PATIENCE_S = 3600.0

MORE = """examples:
  mlflow server --host 127.0.0.1 --port 5000
  python -m orchestrator.send_runs runs/smoke --to http://127.0.0.1:5000
  python -m orchestrator.send_runs runs/smoke --to sqlite:////shared/mlflow.db
  python -m orchestrator.send_runs runs/moved      the study's own, after the folder was moved

This uploads runs, metrics with their times, artifacts, the report and the registered models. A
second upload adds only what the study has done since. To let the study itself use the server, add
mlflow.tracking_uri=URI to its command."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser(
        "orchestrator.send_runs",
        "Upload a study's runs to another MLflow, from its records.",
        MORE,
        done="everything was sent",
        failed="something was not or was refused",
    )
    add_study(parser)
    parser.add_argument(
        "--to",
        metavar="URI",
        help="the address of that MLflow (default: the study's own database, which follows a "
        "folder that was moved or copied)",
    )
    parser.add_argument("--experiment", help="MLflow experiment (default: the study's own)")
    add_operations(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(parser(), _send, arguments)


def _send(options: argparse.Namespace) -> int:
    out, uri, name = options.out, options.to, options.experiment
    if uri is not None and not uri.startswith(("http://", "https://", "sqlite:///")):
        raise InputError(
            f"--to {uri}: must begin with http://, https:// or sqlite:///, as http://127.0.0.1:5000"
        )
    store, study = open_recorded(out)
    if (holder := driver(store)) is not None:
        raise InputError(
            f"{out}: process {holder.pid} on {holder.host} drives it now; wait for its end"
        )
    store.settle()  # a moved or copied folder has no driver yet that would do it
    store.fetch_report()
    experiment = recorded_experiment(store)
    there = dataclasses.replace(
        experiment.mlflow,
        tracking_uri=uri,
        unreachable="error",
        experiment=name or experiment.mlflow.experiment,
    )
    try:
        tracker = Tracker(study, store, dataclasses.replace(experiment, mlflow=there))
    except InputError as problem:
        if fault := fault_of(uri or ""):
            raise InputError(f"--to {uri}: no MLflow answers there ({fault})") from None
        raise InputError(f"--to {uri}: {problem}") from None
    tracker.named = options.operations
    sent = tracker.finish(recorded_board(store, study, driven=False), PATIENCE_S)
    if sent:
        at = f"the experiment {there.experiment} at {tracker.uri}"
        count = len(tracker.runs)
        print(f"{out}: {counted(count, 'run')} {'is' if count == 1 else 'are'} in {at}")
        say_next(where_to_look(tracker.uri, tracker.experiment_id))
        return 0
    to = ["--to", uri] if uri else []
    say_next(shlex.join(["python", "-m", "orchestrator.send_runs", out, *to]))
    return 1


if __name__ == "__main__":
    sys.exit(main())
