"""The environment of the processes of jobs: set before PyTorch's OpenMP is loaded in them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from gdas.errors import InputError
from orchestrator.run import AT_START, machines
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
    monkeypatch.setattr(machines, "probe", lambda address, version: False)  # a head answers
    for name, value in AT_START.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="cannot join it"), ray_cluster("10.0.0.1:6379"):
        pass
    given = seen["runtime_env"]["env_vars"]
    assert given["OMP_WAIT_POLICY"] == "passive"
    assert "glibc.malloc.hugetlb=1" in given["GLIBC_TUNABLES"]
    assert given["RAY_AIR_NEW_OUTPUT"] == "0"


HUGE = """
import torch
kept = [torch.ones(2**20) for _ in range(16)]
lines = open("/proc/self/smaps_rollup").read().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("AnonHugePages")))
"""


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists()
    or "[madvise]" not in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(),
    reason="this kernel does not give large pages on request",
)
def test_a_jobs_tensors_lie_in_large_pages() -> None:
    def kib_of(environment: dict[str, str]) -> int:
        own = {key: value for key, value in os.environ.items() if key not in AT_START}
        line = [sys.executable, "-c", HUGE]
        done = subprocess.run(line, env=own | environment, capture_output=True, text=True)
        return int(done.stdout)

    assert kib_of({}) < 2**14 < kib_of(AT_START)  # 64 MiB were written
