"""Shared by all tests: one thread, and warnings of our own packages are errors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
if not torch.cuda.is_available():
    # Triton's kernels run in its interpreter. It has to know before anyone imports it.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests' data sets are converted, once a session."""
    return tmp_path_factory.mktemp("data")
