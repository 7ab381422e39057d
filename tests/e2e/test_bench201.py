"""NAS-Bench-201 on Ray: searches as Tune trials, lookups after them, MLflow and the report."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from orchestrator.experiment.load import load_experiment
from orchestrator.store.results import SearchResult
from orchestrator.work.search import run_search
from tests.e2e import driving
from tests.narrow import present
from tests.orchestrator.bench201_study import (
    YAML,
    run_without_ray,
    without_times,
    write_table,
)

LABELS = [
    f"{kind}-{name}-seed{seed}"
    for kind in ("lookup", "search")
    for name in ("darts", "gdas")
    for seed in (0, 1)
]

EPOCHS = 20
"""Of the searches that are killed."""


@pytest.mark.slow
def test_a_study_of_nasbench201_ends_with_every_search_looked_up(tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "data"
    data.mkdir()
    write_table(data)
    command = [*driving.COMMAND, str(YAML), "--out", str(out), "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    folders = driving.folders(out)
    assert sorted(folders) == LABELS
    for label, folder in folders.items():
        if label.startswith("lookup-"):
            search = folders[label.replace("lookup", "search")]
            ended = driving.records(search)[-1]["time"]
            assert all(record["started"] >= ended for record in driving.records(folder))
    with sqlite3.connect(out / "mlflow.db") as database:
        stages = database.execute(
            "select value, count(*) from tags where key = 'stage' group by value order by value"
        ).fetchall()
        looked_up = database.execute(
            "select count(*) from metrics where key = 'derived/percentile'"
        ).fetchone()
    assert stages == [("lookup", 4), ("search", 4), ("study", 1)]
    assert looked_up == (4 * 3,), "an epoch a point"
    report = (out / "report" / "report.md").read_text()
    assert "**gdas is " in report and "**darts is " in report
    selection = json.loads((out / "selections" / "gdas.json").read_text())
    assert selection["by"] == "shared_weights" and len(selection["candidates"]) == 2

    alone = tmp_path / "alone"
    alone.mkdir()
    source = folders["search-gdas-seed1"]
    (alone / "settings.json").write_text((source / "settings.json").read_text())
    assert run_search(str(alone))["digest"] == driving.result(source)["digest"], "without Ray"


@pytest.mark.slow
def test_killed_in_a_search_and_in_a_lookup_the_same_command_ends_with_the_same_cells(
    tmp_path: Path,
) -> None:
    """As if the machine lost its power: the driver, Ray and every trial end at once, twice."""
    out, data = tmp_path / "out", tmp_path / "data"
    data.mkdir()
    write_table(data)
    # Searches and lookups of some seconds, so that a kill hits one.
    settings = [
        "searches.darts.seeds=[0]",
        f"bench201_search.recipe.epochs={EPOCHS}",
        "bench201_search.lookup.cells=300",
    ]
    rng = random.Random(os.getpid())

    def start() -> driving.Running:
        return driving.start(out, data, *settings, experiment=YAML)

    def lookups() -> list[Path]:
        return [path for label, path in driving.folders(out).items() if label.startswith("lookup")]

    def power_lost(process: driving.Running) -> None:
        family = process.family()
        process.end()
        gone = "all processes to be gone"
        driving.wait_for(lambda: not any(map(driving.alive, family)), gone, timeout=30)

    process = start()
    driving.wait_for_search_records(out, rng.randint(1, EPOCHS))  # of three times as many
    time.sleep(rng.uniform(0, 0.2))
    power_lost(process)
    unfinished = [
        path
        for label, path in driving.folders(out).items()
        if label.startswith("search") and not (path / "result.json").exists()
    ]
    assert unfinished, "a search was cut"

    process = start()
    driving.wait_for(lambda: bool(lookups()), "a lookup")
    time.sleep(rng.uniform(0, 1.5))  # somewhere in it, its process' start included
    power_lost(process)
    assert [path for path in lookups() if not (path / "result.json").exists()], "a lookup was cut"

    process = start()
    code, output = driving.finish(process)
    assert code == 0, output
    alone = run_without_ray(load_experiment(str(YAML), settings), tmp_path / "alone", data)
    for job in alone.study:
        if job.kind not in ("search", "lookup"):
            continue
        expected = alone.store.folder(job)
        found = driving.folders(out)[job.label]
        if job.kind == "search":
            searched = present(expected.result(SearchResult))
            assert driving.result(found)["digest"] == searched["digest"], job.label
        else:
            looked_up = present(expected.result())
            assert without_times(driving.result(found)) == without_times(looked_up), job.label
            search = driving.folders(out)[job.label.replace("lookup", "search")]
            ended = driving.records(search)[-1]["time"]
            assert all(record["started"] >= ended for record in driving.records(found))
        positions = [record["position"] for record in driving.records(found)]
        assert positions == list(range(1, EPOCHS + 1)), job.label
    with sqlite3.connect(out / "mlflow.db") as database:
        looked_up = database.execute(
            "select count(*), count(distinct run_uuid || ':' || step) from metrics "
            "where key = 'derived/percentile'"
        ).fetchone()
    assert looked_up == (3 * EPOCHS, 3 * EPOCHS), "no doubled and no missing point"
