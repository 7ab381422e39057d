"""One undisturbed study, shared by the tests that look at it or compare with it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.e2e import driving


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    """A study left alone; beside it stands how many jobs ran at one moment at the most."""
    out, most = tmp_path_factory.mktemp("undisturbed"), 0

    def count(running: driving.Running) -> None:
        nonlocal most
        most = max(most, driving.running_trials(running))

    code, output = driving.run(out, data_folder, watch=count)
    assert code == 0, output
    driving.at_once(out).write_text(str(most))
    return out


@pytest.fixture
def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
