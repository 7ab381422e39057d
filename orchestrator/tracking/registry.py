"""The finals' networks in MLflow's model registry.

`mlflow.pyfunc.load_model("models:/EXPERIMENT-FINAL@best")` loads a model that takes test images and
returns the scores behind the reported accuracy.

A model's versions differ in their settings. The alias `best` never follows their error on the test
set, since that would be to select on it: it follows the score, on validation data, by which the
study selected the version's cell. Versions are compared if that score is of the same kind; those
without one (published, random and combined cells, and files) are not, and if none has one, the
newest is `best`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.store.job_folder import JobFolder
from orchestrator.store.results import Provenance, Selection
from orchestrator.tracking.final_model import About, example, load_final, write_final

TAG = "gdas.model"
LOADER_TAG = "gdas.model.loader"
"""Tag of the module that a logged model imports."""
BEST = "best"
SCORE, SCORE_OF = "selection_score", "selection_score_is"
"""A version's tags: the score by which its cell was selected, and what that is."""


def version_tags(about: About) -> dict[str, str]:
    """A version's tags: the cell's name, the parameters, and the error on the test set."""
    metrics = about["metrics"]
    tags = {"cell": str(about["genotype"].get("name", ""))}
    if "test/top1" in metrics:
        tags["test_error"] = f"{100 - metrics['test/top1']:.2f}"
    if "test/perplexity" in metrics:
        tags["test_perplexity"] = f"{metrics['test/perplexity']:.2f}"
    if about.get("parameters"):
        tags["parameters"] = str(about["parameters"])
    return tags


def selection_tags(folder: JobFolder) -> dict[str, str]:
    """The score by which a final's cell was selected, and what it is; nothing of other cells."""
    try:
        provenance: Provenance = json.loads((folder.path / "provenance.json").read_text())
        selections = folder.path.parent.parent / "selections"
        record: Selection = json.loads((selections / f"{provenance['track']}.json").read_text())
        if record["id"] != provenance["selection"]:
            return {}
        score, kind = record["winner"]["score"], f"{record['metric']} by {record['by']}"
        return {SCORE: f"{score:.4f}", SCORE_OF: f"{kind}, the {record['best']} wins"}
    except (OSError, ValueError, KeyError):  # not searched, or its selection has changed since
        return {}


def mark_best(client: Any, name: str) -> str:
    """Give a model's alias `best` to the version with the best selection score; returns it.

    Args:
        client: an MlflowClient.
        name: a registered model, which has a version.
    """
    versions = sorted(
        client.search_model_versions(f"name = '{name}'"), key=lambda one: -int(one.version)
    )
    kinds = [one.tags[SCORE_OF] for one in versions if SCORE_OF in one.tags]
    best = versions[0]
    if kinds:  # of the newest one's kind; of equal ones, the newest
        sign = 1 if kinds[0].endswith("highest wins") else -1
        alike = [one for one in versions if one.tags.get(SCORE_OF) == kinds[0]]
        best = max(alike, key=lambda one: sign * float(one.tags[SCORE]))
    rule = f"the best {kinds[0]}, on validation data" if kinds else "the newest: none has a score"
    client.set_registered_model_alias(name, BEST, best.version)
    client.set_registered_model_tag(name, "best", f"{rule}; never by the test set")
    return str(best.version)


def log_final(
    client: Any, run_id: str, folder: JobFolder, name: str, named: Sequence[str] | None = None
) -> str:
    """Log a finished final's network to its run and register it.

    This happens once: a run that has a model keeps it. If the module that a logged model imports
    has moved since, the model's files are logged again, under the address that it has.

    Args:
        client: an MlflowClient.
        run_id: the final's run.
        folder: the final's job folder.
        name: the name of the registered model.
        named: as load_final takes it.

    Returns:
        The model's models:/ address.

    Raises:
        Exception: whatever MLflow raises; the caller only reports it.
    """
    import mlflow

    tags, loader = client.get_run(run_id).data.tags, load_final.__module__
    if TAG in tags and tags.get(LOADER_TAG) == loader:
        return str(tags[TAG])
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "model"
        about = _save(folder, Path(temporary) / "final", model, named)
        client.log_artifacts(run_id, str(model), "model")
    client.set_tag(run_id, LOADER_TAG, loader)
    if TAG in tags:
        return str(tags[TAG])
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    try:
        client.create_registered_model(name)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        name,
        source,
        run_id=run_id,
        tags=version_tags(about) | selection_tags(folder),
        description=f"Load it with MLFLOW_TRACKING_URI set to this MLflow:\n\n"
        f'```python\nmlflow.pyfunc.load_model("models:/{name}/latest")\n```',
    )
    mark_best(client, name)
    address = f"models:/{name}/{version.version}"
    client.set_tag(run_id, TAG, address)
    return address


def _save(folder: JobFolder, final: Path, model: Path, named: Sequence[str] | None) -> About:
    """Write a final's files to `final`, and the model that MLflow makes of them to `model`."""
    import mlflow
    from mlflow.models import infer_signature

    about = write_final(folder, final)
    inputs = example(about)
    signature = infer_signature(inputs, load_final(final, named).predict(inputs))
    mlflow.pyfunc.save_model(
        path=str(model),
        python_model=str(Path(__file__).with_name("served_model.py")),
        artifacts={"final": str(final)},
        signature=signature,
        input_example=inputs,
        pip_requirements=["torch", "torchvision", "numpy", "mlflow"],
        metadata={"metrics": about["metrics"]},
    )
    return about
