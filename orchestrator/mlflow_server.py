"""The MLflow server of a cluster's head.

Usage: `python -m orchestrator.mlflow_server --folder DIR --backup s3://BUCKET/PREFIX`.

The database is a file on the head, because SQLite does not work on shared or object storage. Every
few minutes and at the end, a copy goes to the backup. SQLite makes the copy, so it is consistent
whatever the server is doing. A new head starts from the newest copy. A crash loses nothing: a
study's driver uploads again whatever MLflow does not have.
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from orchestrator.store.storage import Storage, open_storage
from orchestrator.terminal.command import command_parser, run_command

DATABASE = "mlflow.db"
EVERY_S = 300.0
ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

MORE = """examples:
  python -m orchestrator.mlflow_server --folder /var/lib/mlflow --backup s3://BUCKET/mlflow

A new machine starts from the newest copy. Studies on the head use the server with
mlflow.tracking_uri=http://127.0.0.1:5000. SIGTERM copies the database once more and ends it."""


def server_command(database: Path, artifacts: str, port: int) -> list[str]:
    """The command of a tracking server that listens only on this machine; run it with ENVIRONMENT.

    Args:
        database: the SQLite file.
        artifacts: the folder or address in which the server keeps artifacts.
        port: the port.
    """
    return [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{database}"),
        *("--artifacts-destination", artifacts),
    ]


def restore(folder: Path, backup: Storage) -> bool:
    """Fetch the newest copy if this machine has no database.

    Returns:
        Whether a copy was fetched.
    """
    if (folder / DATABASE).exists():
        return False
    try:
        backup.fetch(DATABASE, folder / DATABASE)
    except FileNotFoundError:
        return False
    return True


def back_up(folder: Path, backup: Storage) -> None:
    """Copy the database to the backup, in a consistent state.

    Raises:
        OSError: the store does not answer; the earlier copy there is unchanged.
    """
    copy = folder / f"{DATABASE}.copy"
    source, target = sqlite3.connect(folder / DATABASE), sqlite3.connect(copy)
    try:
        source.backup(target)
    finally:
        source.close()
        target.close()
    backup.put(copy, DATABASE)
    copy.unlink()


def serve(folder: Path, backup: Storage, port: int, every_s: float = EVERY_S) -> int:
    """Run the server until it ends or SIGTERM arrives; returns the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    restore(folder, backup)
    server = subprocess.Popen(
        server_command(folder / DATABASE, backup.under("artifacts").address, port),
        env=os.environ | ENVIRONMENT,
    )
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    copied = time.monotonic()
    while server.poll() is None:
        time.sleep(0.5)
        if time.monotonic() - copied > every_s:
            copied = time.monotonic()
            _back_up_or_say(folder, backup)
    _back_up_or_say(folder, backup)
    return server.returncode


def _back_up_or_say(folder: Path, backup: Storage) -> None:
    try:
        back_up(folder, backup)
    except (OSError, sqlite3.Error) as problem:
        print(f"MLflow's database was not copied to {backup.address} ({problem})", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser(
        "orchestrator.mlflow_server",
        "Run an MLflow server on this machine, and copy its database to an object store.",
        MORE,
        done="the server ended well",
        failed="or more: the server's own exit code",
    )
    parser.add_argument("--folder", type=Path, required=True, help="folder of its database")
    parser.add_argument(
        "--backup", required=True, help="s3://BUCKET/PREFIX, for copies and artifacts"
    )
    parser.add_argument("--port", type=int, default=5000, help="on 127.0.0.1 (default: 5000)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(parser(), _serve, arguments)


def _serve(options: argparse.Namespace) -> int:
    return serve(options.folder, open_storage(options.backup, option="--backup"), options.port)


if __name__ == "__main__":
    sys.exit(main())
