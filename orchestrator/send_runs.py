"""A study's runs to an MLflow server, afterwards: `python -m orchestrator.send_runs OUT --to URI`.

The records in the output folder are the truth; MLflow, wherever it is, is a copy of them. So
nothing is moved from one MLflow to another: the records are sent again, as the study sent them.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from gdas.errors import InputError
from orchestrator.store.recorded import driver, open_recorded, recorded_board, recorded_experiment
from orchestrator.terminal.console import run_command, say_next
from orchestrator.tracking.tracker import Tracker
from orchestrator.tracking.words import where_to_look

PATIENCE_S = 3600.0

EPILOG = """examples:
  mlflow server --host 127.0.0.1 --port 5000
  python -m orchestrator.send_runs runs/smoke --to http://127.0.0.1:5000
  python -m orchestrator.send_runs runs/smoke --to sqlite:////shared/mlflow.db

Runs, metrics with their times, artifacts, the report and the registered models. Sending again
adds nothing: it sends what the study has done since. The study itself goes on at the server with
mlflow.tracking_uri=URI behind its command.

Exit code: 0 all was sent, 1 not all, 2 no study there, it runs now, or nothing answers at URI."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m orchestrator.send_runs",
        description="Send a study's runs to another MLflow, as its records have them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", metavar="OUT", help="a study's output folder, or its address")
    parser.add_argument("--to", required=True, metavar="URI", help="of the MLflow to send them to")
    parser.add_argument("--experiment", help="its name there (default: as in the study)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(arguments)
    return run_command(lambda: _send(options.out, options.to, options.experiment))


def _send(out: str, uri: str, name: str | None) -> int:
    if not uri.startswith(("http://", "https://", "sqlite:///")):
        raise InputError(f"--to {uri}: must begin with http://, https:// or sqlite:///")
    store, study = open_recorded(out)
    if (holder := driver(store)) is not None:
        raise InputError(
            f"{out}: process {holder.pid} on {holder.host} drives it now; wait for its end"
        )
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
    except InputError:
        raise InputError(
            f"--to {uri}: no MLflow answers there; start it (mlflow server --host HOST --port "
            "PORT), or name another"
        ) from None
    sent = tracker.finish(recorded_board(store, study, driven=False), PATIENCE_S)
    if sent:
        print(f"{out}: {len(tracker.runs)} runs are in the experiment {there.experiment} at {uri}")
        say_next(where_to_look(uri, tracker.experiment_id))
        return 0
    say_next(f"python -m orchestrator.send_runs {out} --to {uri}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
