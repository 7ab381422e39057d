"""Every machine of a cluster reports in a line of its own, and what is wrong there is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator import nodes

NODE = {"NodeManagerAddress": "10.0.0.7", "Resources": {"CPU": 4.0, "GPU": 1.0}}


@pytest.fixture
def here(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "mark").touch()
    as_a_gpus = {"gpus": 1, "gpu": "A10G", "free": 90 * 2**30, "no_kernels": ""}
    return nodes.report(str(tmp_path), "mark") | as_a_gpus


def test_a_machine_like_the_head_is_well(here: dict[str, Any]) -> None:
    found = nodes.finding(NODE, here, here)
    assert found.level == "ok" and found.what.startswith("10.0.0.7 (")
    assert "1 x A10G, 90 GiB free" in found.what


@pytest.mark.parametrize(
    ("harm", "level", "said"),
    [
        ({"torch": "1.0"}, "BAD", "10.0.0.7: torch 1.0, here "),
        ({"code": "older"}, "BAD", "code older"),
        ({"gpus": 0}, "BAD", "PyTorch sees 0 GPUs, Ray would hand out 1"),
        ({"storage": "--out s3://b: ACCESS_DENIED"}, "BAD", "ACCESS_DENIED"),
        ({"free": 2**30}, "note", "1 GiB free"),
        ({"no_kernels": "there is no C++ compiler"}, "note", "no fused kernels"),
    ],
)
def test_what_is_wrong_with_a_machine_is_named(
    here: dict[str, Any], harm: dict[str, Any], level: str, said: str
) -> None:
    found = nodes.finding(NODE, here | harm, here)
    assert found.level == level and said in found.what and found.fix


def test_a_machine_that_does_not_answer_is_bad() -> None:
    found = nodes.finding(NODE, "none within 90 s", {})
    assert found.level == "BAD" and "no answer (none within 90 s)" in found.what


def test_a_folder_that_the_head_does_not_have_is_found(tmp_path: Path) -> None:
    assert "is not the folder that the head has" in nodes.report(str(tmp_path), "mark")["storage"]
    assert "No such file" in nodes.report(str(tmp_path / "no"), "mark")["storage"]
    assert list(tmp_path.iterdir()) == [], "nothing is left there"


def test_an_out_that_cannot_be_is_refused_before_ray_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert nodes.main(["--out", str(tmp_path / "file" / "out")]) == 2
    assert "cannot be written to" in capsys.readouterr().err


@pytest.mark.slow
def test_all_machines_of_a_cluster_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        cluster.add_node(num_cpus=1)
        cluster.add_node(num_cpus=1, num_gpus=1)  # which this machine has not
        done = subprocess.run(
            [
                *(sys.executable, "-m", "orchestrator.nodes", "--address", cluster.address),
                *("--out", str(tmp_path / "out")),
            ],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=200,
        )
    finally:
        cluster.shutdown()
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done.stdout + done.stderr
    assert [line.split()[0] for line in lines[:3]].count("ok") == 2
    assert sum("PyTorch sees 0 GPUs, Ray would hand out 1" in line for line in lines) == 1
    assert lines[3] == "3 machines, 2 CPUs and 1 GPUs for jobs; 1 bad"
    assert list((tmp_path / "out").iterdir()) == []
