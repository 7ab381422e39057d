"""Selection never sees the test set: without its file, search and selection are the same."""

from __future__ import annotations

import hashlib
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import gdas.data.cifar
from gdas.errors import InputError
from orchestrator.experiment.build import build_study
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.load import load_experiment
from orchestrator.run.checks import identity, prepare_data
from orchestrator.run.scheduler import Scheduler
from orchestrator.store.store import Store
from orchestrator.work.search import run_search

YAML = """
search:
  seeds: [0, 1]
  select_by: shared_weights
  recipe:
    epochs: 1
    batch_size: 16
    train_images: 32
    valid_images: 32
    recalibration_batches: 1
    network: {channels: 4, normals_per_block: 1, nodes: 1}
searches: {frc: {}}
finals:
  frc: {cell: {searched: frc}, recipe: {channels: 4, normals_per_block: 1, epochs: 1}}
"""


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with CIFAR-10 in its official layout, but small."""
    base = tmp_path / "data" / "cifar-10-batches-py"
    base.mkdir(parents=True)
    rng = np.random.default_rng(0)
    files: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        images = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        content = pickle.dumps({"data": images, "labels": rng.integers(0, 10, 20).tolist()})
        (base / name).write_bytes(content)
        split = "test" if name == "test_batch" else "train"
        files[split].append((name, hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(gdas.data.cifar, "cifar_files", lambda _, split: files[split])
    return base.parent


def experiment(tmp_path: Path) -> Experiment:
    path = tmp_path / "small.yaml"
    path.write_text(YAML)
    return load_experiment(str(path), [])


def search_and_select(tmp_path: Path, name: str, data: Path) -> tuple[list[str], dict[str, object]]:
    """Digests of the searches and what was selected, without Ray."""
    found = build_study(experiment(tmp_path), partial(identity, data), {}).only(["select-"])
    store = Store(tmp_path / name)
    prepare_data(found, store, data)
    scheduler = Scheduler(found, store, {"CPU": 1.0}, lambda line: None)
    digests = []
    while (job := scheduler.next_job()) is not None:
        folder = store.prepare(job, {"data": str(data)})
        digests.append(run_search(str(folder.path))["digest"])
        scheduler.finished(job)
    assert scheduler.board.all_done()
    record = store.selection(found.jobs[-1])
    assert record is not None
    return digests, {key: record[key] for key in ("id", "candidates", "winner")}


def test_without_the_test_file_search_and_selection_are_the_same(
    tmp_path: Path, cifar: Path
) -> None:
    with_test = search_and_select(tmp_path, "with", cifar)
    assert [path.name for path in (cifar / "arrow").iterdir()] == ["cifar10-train.arrow"]
    (cifar / "cifar-10-batches-py" / "test_batch").unlink()
    assert search_and_select(tmp_path, "without", cifar) == with_test


def test_a_final_without_the_test_file_is_refused_before_anything_starts(
    tmp_path: Path, cifar: Path
) -> None:
    (cifar / "cifar-10-batches-py" / "test_batch").unlink()
    found = build_study(experiment(tmp_path), partial(identity, cifar), {})
    with pytest.raises(InputError, match="test_batch: cannot read"):
        prepare_data(found, Store(tmp_path / "out"), cifar)
