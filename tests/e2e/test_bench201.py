"""NAS-Bench-201 on Ray: searches as Tune trials, lookups after them, MLflow and the report."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from pathlib import Path

import pytest

from orchestrator.search_trial import run_search
from tests.e2e import driving
from tests.orchestrator.test_truth import YAML, write_table

LABELS = [
    f"{kind}-{name}-seed{seed}"
    for kind in ("lookup", "search")
    for name in ("darts", "gdas")
    for seed in (0, 1)
]


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
