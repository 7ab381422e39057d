"""A final's network comes back from MLflow's registry with the accuracy that was reported."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gdas.data.images import open_images
from gdas.data.text import open_tokens
from orchestrator.experiment.build import build_study
from orchestrator.experiment.load import load_experiment
from orchestrator.store.job_folder import JobFolder
from orchestrator.store.results import Result
from orchestrator.store.store import Store
from orchestrator.tracking.final_model import load_final, write_final
from orchestrator.work.final import settle_provenance, train_worker
from tests.orchestrator.test_study import identity

YAML = """
finals:
  image:
    cell: {published: GDAS_F1}
    recipe: {data: {name: digits}, channels: 4, normals_per_block: 1, epochs: 2, batch_size: 64}
  text:
    cell: {published: RNN_GDAS}
    recipe: {data: {name: prose}, hidden: 16, epochs: 1, batch_size: 16, train_tokens: 4000}
"""


def trained(name: str, tmp_path: Path, data: Path) -> tuple[JobFolder, Result]:
    """A finished final, trained without Ray."""
    from orchestrator.run.checks import fixed_cells

    (tmp_path / "finals.yaml").write_text(YAML)
    experiment = load_experiment(str(tmp_path / "finals.yaml"), [])
    cells = {key: cell.to_json() for key, cell in fixed_cells(experiment).items()}
    job = next(job for job in build_study(experiment, identity, cells) if job.name == name)
    folder = Store(tmp_path / "out").prepare(job, {"data": str(data)})
    settle_provenance(folder, folder.settings(), tmp_path)
    train_worker(str(folder.path))
    result = folder.result()
    assert result is not None
    return folder, result


def top1(scores_NK: np.ndarray[Any, Any], labels_N: np.ndarray[Any, Any]) -> float:
    return float(100 * (scores_NK.argmax(axis=1) == labels_N).mean())


def test_the_written_model_gives_the_reported_accuracy_and_holds_no_code(
    tmp_path: Path, data_folder: Path
) -> None:
    folder, result = trained("image", tmp_path, data_folder)
    write_final(folder, tmp_path / "model")
    test = open_images("digits", "test", data_folder)
    scores = load_final(tmp_path / "model").predict(test.images_NCHW.numpy())
    assert top1(scores, test.labels_N.numpy()) == result["metrics"]["test/top1"]
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"final.json", "weights.pt"}


def test_the_written_language_model_gives_the_reported_perplexity(
    tmp_path: Path, data_folder: Path
) -> None:
    folder, result = trained("text", tmp_path, data_folder)
    write_final(folder, tmp_path / "model")
    ids = open_tokens("prose", "test", data_folder).ids_N.numpy()
    entropies = load_final(tmp_path / "model").predict(ids)
    assert len(entropies) == len(ids) - 1
    found = math.exp(entropies.astype(np.float64).mean())
    assert found == pytest.approx(result["metrics"]["test/perplexity"], rel=1e-5)


@pytest.mark.slow
def test_the_registered_model_gives_the_reported_accuracy_after_reload(
    tmp_path: Path, data_folder: Path
) -> None:
    import mlflow
    from mlflow import MlflowClient

    from orchestrator.tracking.registry import LOADER_TAG, log_final

    folder, result = trained("image", tmp_path, data_folder)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    place = (tmp_path / "mlruns").as_uri()
    run = client.create_run(client.create_experiment("x", artifact_location=place)).info.run_id
    address = log_final(client, run, folder, "finals-image")
    assert address == "models:/finals-image/1"
    assert log_final(client, run, folder, "finals-image") == address, "once"
    tags = client.get_model_version("finals-image", "1").tags
    error = 100 - result["metrics"]["test/top1"]
    assert tags["test_error"] == f"{error:.2f}" and tags["cell"] == "GDAS_F1"
    assert int(tags["parameters"]) > 1000
    assert int(client.get_model_version_by_alias("finals-image", "best").version) == 1
    assert "the newest" in client.get_registered_model("finals-image").tags["best"]
    (code,) = (tmp_path / "mlruns").rglob("served_model.py")
    code.write_text("import orchestrator.moved_away")  # as an older build may have logged it
    client.set_tag(run, LOADER_TAG, "orchestrator.moved_away")
    assert log_final(client, run, folder, "finals-image") == address, "mended in its place"
    mlflow.set_tracking_uri(uri)
    model = mlflow.pyfunc.load_model(address)
    test = open_images("digits", "test", data_folder)
    pixels = test.images_NCHW.numpy()
    assert top1(model.predict(pixels), test.labels_N.numpy()) == result["metrics"]["test/top1"]
    assert model.metadata.signature.inputs.inputs[0].shape == (-1, 3, 32, 32)
    assert model.input_example is not None
    for path in (tmp_path / "mlruns").rglob("*"):
        assert path.suffix not in (".pkl", ".pickle", ".cloudpickle")
