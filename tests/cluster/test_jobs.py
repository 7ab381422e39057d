"""The way in and out as README.md has it: submit, disconnect, come back, stop, submit again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import driving

RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]


@pytest.fixture
def server(free_port: int) -> Iterator[str]:
    """A local cluster's job server, at this address."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 2,
            "include_dashboard": True,
            "dashboard_port": free_port,
            "dashboard_agent_listen_port": 0,  # any: another Ray here may hold the usual one
        },
    )
    try:
        yield f"http://{cluster.webui_url}"
    finally:
        cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


def ray(server: str, *words: str, timeout: float = 60) -> str:
    done = subprocess.run(
        [*RAY, "job", *words],
        env=os.environ | {"RAY_API_SERVER_ADDRESS": server},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_submitted_study_outlives_the_client_stops_and_goes_on(
    undisturbed: Path, data_folder: Path, tmp_path: Path, server: str
) -> None:
    command = [*driving.COMMAND, str(driving.TINY), "--address", "auto"]
    command += ["--out", str(tmp_path), "--data", str(data_folder)]
    ray(server, "submit", "--no-wait", "--submission-id", "tiny-1", "--", *command)
    # The client has gone; the study runs.
    driving.wait_for_search_records(tmp_path, 1)
    assert "search-frc-seed0  starts" in ray(server, "logs", "tiny-1")
    assert "RUNNING" in ray(server, "status", "tiny-1")
    ray(server, "stop", "tiny-1")
    assert "was stopped" in ray(server, "status", "tiny-1")
    assert not (tmp_path / "selections" / "frc.json").exists()
    output = ray(server, "submit", "--submission-id", "tiny-2", "--", *command, timeout=400)
    assert "all done" in output and "goes on after epoch" in output
    assert driving.digests(tmp_path) == driving.digests(undisturbed)
