"""Two studies, shared by the tests that look at them: one killed and run again, one left alone."""

from __future__ import annotations

import os
import random
import socket
import time
from pathlib import Path

import pytest

from tests.e2e import driving


@pytest.fixture(scope="session")
def interrupted(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    """A study killed in its searches, harmed, and ended by the same command.

    It is SIGKILL, a damaged checkpoint and a torn record; the drill has all the others. Beside it
    stands how many jobs ran at one moment at the most.
    """
    out, most = tmp_path_factory.mktemp("interrupted"), 0

    def count(running: driving.Running) -> None:
        nonlocal most
        most = max(most, driving.running_trials(running))

    rng = random.Random(os.getpid())  # another moment each time; the digests must agree for all
    process = driving.start(out, data_folder)
    try:
        driving.wait_for_search_records(out, rng.randint(2, 7), process)  # of 12
        count(process)
        time.sleep(rng.uniform(0, 0.3))  # somewhere inside a segment
    except BaseException:
        process.end()  # with its family
        raise
    driving.kill(process)
    assert not (out / "selections" / "frc.json").exists()
    first, second = driving.two_with_records(out)
    damaged = driving.newest_checkpoint(first) / rng.choice(["state.pt", "manifest.json"])
    driving.flip_a_bit(damaged, rng)
    driving.tear_the_last_line(second / "records.jsonl", rng)
    driving.harmed(out).write_text(f"{first.name}\n{second.name}\n")
    driving.assert_it_goes_on(out, data_folder, watch=count)
    driving.at_once(out).write_text(str(most))
    return out


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    """A study left alone."""
    out = tmp_path_factory.mktemp("undisturbed")
    code, output = driving.run(out, data_folder)
    assert code == 0, output
    return out


@pytest.fixture
def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
