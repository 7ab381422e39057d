"""The environment of the processes of jobs: set before PyTorch's OpenMP is loaded in them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import ray

from gdas.errors import InputError
from orchestrator.run.machines import ray_cluster
from tests.readme import ROOT

SHOW = "import orchestrator.run, os; print(os.environ['OMP_WAIT_POLICY'])"


@pytest.mark.parametrize(
    ("given", "found"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"},) * 2]
)
def test_waiting_threads_sleep_unless_the_user_says_otherwise(given: Any, found: Any) -> None:
    own = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    line = [sys.executable, "-c", SHOW]
    done = subprocess.run(line, cwd=ROOT, env=own | given, capture_output=True, text=True)
    wanted = found if isinstance(found, str) else found["OMP_WAIT_POLICY"]
    assert done.stdout.strip() == wanted, done.stderr


def test_jobs_on_a_cluster_get_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def init(**options: Any) -> None:
        seen.update(options)
        raise ConnectionError("no cluster")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    with pytest.raises(InputError, match="no Ray cluster answers"), ray_cluster("10.0.0.1:6379"):
        pass
    assert seen["runtime_env"]["env_vars"]["OMP_WAIT_POLICY"] == "passive"
    assert seen["runtime_env"]["env_vars"]["RAY_AIR_NEW_OUTPUT"] == "0"
