"""What an MLflow has of a study, comparable with what another has."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

PARENT, NOTE = "mlflow.parentRunId", "mlflow.note.content"
OF_THE_PLACE = ("mlflow.user", "mlflow.source.name", "mlflow.source.type")


def everything(uri: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Every run's name to all that is there of it: points, parameters, tags, times, artifacts,
    whose child it is, and its model's versions.

    Args:
        folder: where artifacts are copied to, to be read.
    """
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    client = MlflowClient(tracking_uri=uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    runs = client.search_runs(experiments)
    names = {run.info.run_id: run.info.run_name for run in runs}
    assert len(set(names.values())) == len(names), "a doubled run"
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        tags = {key: value for key, value in run.data.tags.items() if key not in OF_THE_PLACE}
        parent = tags.pop(PARENT, None)
        if NOTE in tags:  # leads to this very experiment's charts
            tags[NOTE] = re.sub(r"#/experiments/\d+/", "#/experiments/N/", tags[NOTE])
        points = sorted(
            (point.key, point.step, point.timestamp, point.value)
            for key in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, key)
        )
        place = folder / run.info.run_id
        place.mkdir(parents=True)
        download_artifacts(run_id=run.info.run_id, dst_path=str(place), tracking_uri=uri)
        files = {
            path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(place.rglob("*"))
            if path.is_file()
        }
        found[run.info.run_name] = {
            "child of": names.get(parent),
            "points": points,
            "parameters": run.data.params,
            "data": sorted(
                (one.dataset.name, one.dataset.digest, tag.value)
                for one in run.inputs.dataset_inputs
                for tag in one.tags
            ),
            "tags": tags,
            "files": files,
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "models": sorted(
                (version.name, str(version.version))
                for version in client.search_model_versions(f"run_id = '{run.info.run_id}'")
            ),
        }
    return found
