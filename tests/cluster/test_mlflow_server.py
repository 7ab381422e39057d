"""MLflow's database is backed up whole, and a new head begins from the copy."""

from __future__ import annotations

import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from orchestrator.mlflow_server import back_up, restore
from orchestrator.store.storage import open_storage
from tests.cloud import Server


def test_a_copy_is_whole_while_the_server_writes_and_a_new_head_begins_from_it(
    aws: Server, tmp_path: Path
) -> None:
    backup = open_storage(f"s3://bucket/{uuid.uuid4().hex}")
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    assert not restore(new, backup), "nothing there yet"
    with sqlite3.connect(old / "mlflow.db") as database:
        database.execute("create table runs (name text)")
        database.execute("insert into runs values ('committed')")
        database.commit()
        database.execute("insert into runs values ('in flight')")
        back_up(old, backup)
    assert restore(new, backup)
    with sqlite3.connect(new / "mlflow.db") as database:
        assert database.execute("select name from runs").fetchall() == [("committed",)]
    assert not restore(old, backup), "a head that has its database keeps it"
    assert {path.name for path in old.iterdir()} == {"mlflow.db"}


@pytest.mark.slow
def test_a_run_outlives_the_head(aws: Server, tmp_path: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = int(s.getsockname()[1])
    address = f"s3://bucket/{uuid.uuid4().hex}"

    def start(folder: Path) -> subprocess.Popen[bytes]:
        words = ["--folder", str(folder), "--backup", address, "--port", str(port)]
        server = subprocess.Popen([sys.executable, "-m", "orchestrator.mlflow_server", *words])
        end = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return server
            except OSError:
                assert time.monotonic() < end and server.poll() is None
                time.sleep(0.2)

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"http://127.0.0.1:{port}")
    first = start(tmp_path / "first")
    try:
        run = client.create_run("0", run_name="kept")
        client.log_metric(run.info.run_id, "x", 1.5)
        client.log_text(run.info.run_id, "hello", "note.txt")
    finally:
        first.send_signal(signal.SIGTERM)
        first.wait(60)
    second = start(tmp_path / "second")
    try:
        assert client.get_run(run.info.run_id).data.metrics == {"x": 1.5}
        assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["note.txt"]
    finally:
        second.send_signal(signal.SIGTERM)
        second.wait(60)
