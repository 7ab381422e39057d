"""A study over three nodes on one machine, its output on moto's S3, nodes and store failing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.store.storage import Storage, open_storage
from tests.cloud import Server
from tests.e2e import driving

# One CPU a search and a worker, so that every one has a node of its own. Not part of what a job is.
ONE_A_NODE = ("search.resources.cpus=1", "final.resources.cpus_per_worker=1")


class Nodes:
    """A head that does not train, and nodes of one CPU that can be killed and added."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.address = str(self.cluster.address)
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(count)]

    def kill_the_one_with(self, pid: int) -> None:
        """As when a machine is taken back: its Ray and all that runs on it end at once."""
        above = {process.pid for process in psutil.Process(pid).parents()}
        node = next(n for n in self.nodes if n.all_processes["raylet"][0].process.pid in above)
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def add(self) -> None:
        self.nodes.append(self.cluster.add_node(num_cpus=1))


@pytest.fixture
def nodes(aws: Server) -> Iterator[Nodes]:
    before = dict(os.environ)
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    started = Nodes(3)
    try:
        yield started
    finally:
        started.cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


def records(storage: Storage) -> dict[str, list[dict[str, Any]]]:
    """Label to records, read from the store."""
    found = {}
    for name in storage.listing():
        if name.endswith("/records.jsonl"):
            label = name.split("/")[1].rpartition("-")[0]
            lines = storage.read(name).decode().splitlines()
            found[label] = [json.loads(line) for line in lines]
    return found


def digests(storage: Storage) -> dict[str, str]:
    return {
        name.split("/")[1].rpartition("-")[0]: json.loads(storage.read(name))["digest"]
        for name in storage.listing()
        if name.endswith("/result.json")
    }


def wait_for_record(
    storage: Storage, fits: Callable[[str, list[dict[str, Any]]], bool], what: str
) -> int:
    """The process that wrote the newest record of the first job that fits."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        for label, of_job in records(storage).items():
            if of_job and fits(label, of_job):
                return int(of_job[-1]["pid"])
        time.sleep(0.2)
    raise AssertionError(f"waited for {what}")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_that_loses_nodes_and_its_store_ends_with_the_undisturbed_ones_digests(
    undisturbed: Path,
    data_folder: Path,
    aws: Server,
    nodes: Nodes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GDAS_CACHE", str(tmp_path / "cache"))
    out = f"s3://bucket/{uuid.uuid4().hex}"
    storage = open_storage(out)
    process = driving.start(
        tmp_path / "none",
        data_folder,
        "--address",
        nodes.address,
        "--out",
        out,
        "retries=0",
        *ONE_A_NODE,
    )
    try:
        # Any search that is not at its end yet.
        pid = wait_for_record(
            storage, lambda label, r: label.startswith("search-") and len(r) < 3, "a search"
        )
        nodes.kill_the_one_with(pid)
        assert aws.process is not None
        os.kill(aws.process.pid, signal.SIGSTOP)  # the store hangs, and comes back
        time.sleep(8)
        os.kill(aws.process.pid, signal.SIGCONT)
        nodes.add()
        pid = wait_for_record(
            storage, lambda label, r: label.startswith("train-") and len(r) < 3, "the final"
        )
        nodes.kill_the_one_with(pid)
        nodes.add()
        code, output = driving.finish(process, timeout=400)
    finally:
        process.end()
    assert code == 0, output
    assert output.count("uses up no retry") >= 2, output
    assert digests(storage) == driving.digests(undisturbed)
    for label, of_job in records(storage).items():
        positions = [record["position"] for record in of_job]
        assert positions == list(range(1, len(positions) + 1)), label
    names = set(storage.listing())
    assert {"report/report.html", "study.json", "selections/frc.json"} <= names
    assert not [name for name in names if name.startswith("ray/")]
    again = subprocess.run(
        [*driving.COMMAND, str(driving.TINY), "--data", str(data_folder), "--out", out],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert again.returncode == 0 and again.stdout.count(": done") == 6, again.stdout + again.stderr
