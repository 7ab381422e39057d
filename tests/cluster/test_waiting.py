"""A machine that leaves takes the only room for a job with it: the study waits, and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import driving

WIDE = ("search.seeds=[0,1]", "search.resources.cpus=1", "final.resources.workers=1",
        "final.resources.cpus_per_worker=2")  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_whose_only_machine_left_waits_without_hanging_the_study(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        wide = cluster.add_node(num_cpus=2)
        cluster.add_node(num_cpus=1)
        process = driving.start(
            tmp_path, data_folder, "--address", str(cluster.address), "retries=0", *WIDE
        )
        try:
            driving.wait_for_search_records(tmp_path, 1)
            cluster.remove_node(wide, allow_graceful=False)  # one search, the final's only room
            driving.wait_for(
                lambda: (
                    "train-frc-digits: waits, needs 2 CPUs and the cluster has 1 now"
                    in process.output()
                ),
                "the final to wait",
                process,
                timeout=240,
            )
            results = list(tmp_path.glob("jobs/search-*/result.json"))
            assert len(results) == 2 and not process.ended(), process.output()
            cluster.add_node(num_cpus=2)
            assert process.wait(timeout=240) == 0, process.output()
        finally:
            process.end()
    finally:
        cluster.shutdown()
    assert "\nall done" in process.output()
