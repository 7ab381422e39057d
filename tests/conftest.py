"""Shared by all tests: one thread, and warnings of our own packages are errors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from gdas.cnn.fused import build

torch.set_num_threads(1)
# Tests that change HOME use the kernels that are compiled already.
os.environ.setdefault("GDAS_CACHE", str(build.cache_folder(os.environ)))
if not torch.cuda.is_available():
    # Triton's kernels run in its interpreter. It has to know before anyone imports it.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests' data sets are converted, once a session."""
    return tmp_path_factory.mktemp("data")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Studies come first, since what takes longest must not begin last, and have time."""
    for item in items:
        if _end_to_end(item) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1800))  # they wait for progress, not for a clock
    items.sort(key=lambda item: not _end_to_end(item))


def _end_to_end(item: pytest.Item) -> bool:
    return Path(item.path).parent.name == "e2e"
