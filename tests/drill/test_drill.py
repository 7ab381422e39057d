"""The drill's own parts: what it draws, how it finds and ends processes, what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.drill.__main__ import KINDS, draw, main, table
from tests.e2e import driving


def test_every_kind_is_drawn_once_before_any_comes_twice() -> None:
    kinds = list(KINDS)
    drawn = draw(7, 2 * len(kinds) + 3, kinds)
    assert sorted(drawn[: len(kinds)]) == sorted(drawn[len(kinds) : -3]) == sorted(kinds)
    assert drawn == draw(7, len(drawn), kinds) and drawn != draw(8, len(drawn), kinds)


def test_an_unknown_kind_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--only", "driver-killed,flood", "--out", str(tmp_path / "out")]) == 2
    assert "--only flood: no such fault; there are driver-killed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_row_says_what_was_lost_and_whether_the_bits_are_the_same() -> None:
    row = {"number": 1, "fault": "disk-full", "moment": "m", "remarks": ["r"], "equal": False}
    lines = table([row | {"lost_segments": 2, "lost_seconds": 1.25, "recovery_seconds": 3.0}])
    assert lines.splitlines()[-1] == (
        "| 1 | disk-full | m; r | 1.2 s, 2 segments | 3.0 s | DIFFERENT |"
    )


PARENT = """
import subprocess, sys, time
code = "import time; print('started', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", code, "grandchild"])
time.sleep(600)
"""


def test_all_that_a_process_started_is_found_and_ended() -> None:
    command = [sys.executable, "-c", PARENT, "child"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as root:
        assert root.stdout is not None and root.stdout.readline() == b"started\n"
        family = driving.family_of(root.pid)
        assert [driving.title(member).split()[-1] for member in family] == ["child", "grandchild"]
        assert all(map(driving.alive, family))
        root.kill()
        driving.wait_for(lambda: not driving.alive(family[0]), "a zombie counts as gone")
        assert driving.alive(family[1]), "it outlives what started it"
        driving.end(family)
    driving.wait_for(lambda: not any(map(driving.alive, family)), "the end of all")
    assert driving.family_of(root.pid) == [] and driving.process(root.pid) is None
    assert driving.title(family[1]) == ""
