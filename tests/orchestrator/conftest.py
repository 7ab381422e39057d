from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.tracking.database import begin_empty, keep_empty
from tests.cloud import aws

__all__ = ["aws"]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that MLflow has made and nobody used: making one takes seconds, so it is kept."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    begin_empty(path)
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    keep_empty(path)
    return path


@pytest.fixture
def empty_database(template: Path) -> Callable[[Path], str]:
    """Puts an empty database of MLflow's into a folder; gives its address."""

    def copy(folder: Path) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(template, folder / "mlflow.db")
        return f"sqlite:///{folder / 'mlflow.db'}"

    return copy


@pytest.fixture(scope="module")
def bench201_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that has a table of NAS-Bench-201, to which a study adds its images."""
    from tests.orchestrator.bench201_study import write_table  # brings PyTorch along

    return write_table(tmp_path_factory.mktemp("data")).parent.parent


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
