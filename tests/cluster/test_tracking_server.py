"""A real MLflow server whose files cannot be written: everything else arrives."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import send_runs
from orchestrator.mlflow_server import ENVIRONMENT
from orchestrator.tracking.reach import fault_of
from tests.orchestrator.fake_study import fake_study, finish, select


@pytest.fixture
def server(tmp_path: Path, free_port: int) -> Iterator[str]:
    """A server that names a place for files that no client can make."""
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--no-serve-artifacts"]
    command += ["--host", "127.0.0.1", "--port", str(free_port)]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
    command += ["--default-artifact-root", "file:///proc/none"]
    process = subprocess.Popen(command, env=os.environ | ENVIRONMENT, cwd=tmp_path)
    uri, end = f"http://127.0.0.1:{free_port}", time.monotonic() + 180
    try:
        while fault_of(uri, 1.0) is not None:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.3)
        yield uri
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_runs_and_metrics_arrive_and_end_where_no_file_can_be_written(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    out = tmp_path / "out"
    _, study, store = fake_study(out)
    for job in study.of_kind("search"):
        finish(store, job)
    select(store, study)
    finish(store, study.jobs[-1])
    assert send_runs.main([str(out), "--to", server]) == 1
    said = capsys.readouterr().err
    assert "refuses a file" in said and "does not answer" not in said
    client = MlflowClient(tracking_uri=server)
    experiment = client.get_experiment_by_name("gdas")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 6 and {run.info.status for run in runs} == {"FINISHED"}
    assert all(run.data.metrics for run in runs if run.data.tags["stage"] == "search")
