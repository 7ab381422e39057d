"""What keeps Ray from starting, or a job's code from running, is named with its fix."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from gdas.errors import InputError
from orchestrator.experiment.config import TrainResources, TrialResources
from orchestrator.run import footing
from orchestrator.run.process import Signals, interruptible


@pytest.fixture(autouse=True)
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which Ray starts."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(footing, "ROOM_BYTES", 0)


def test_nothing_is_said_of_a_sound_machine() -> None:
    assert footing.faults() == []


def test_a_long_temporary_folder_is_named_with_the_most_it_may_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ray._private.utils import validate_socket_filepath

    fits = "/tmp/" + "x" * (footing.SOCKET_BYTES - len(footing.SOCKET) - len("/tmp/"))
    validate_socket_filepath(fits + footing.SOCKET)
    with pytest.raises(OSError):
        validate_socket_filepath(fits + "x" + footing.SOCKET)
    monkeypatch.setattr(footing, "_temporary", lambda: None)
    monkeypatch.setenv("RAY_TMPDIR", fits)
    assert footing.faults() == []
    monkeypatch.setenv("RAY_TMPDIR", fits + "x")
    ((what, fix),) = footing.faults()
    assert "paths of 108 bytes, and 107 is the most" in what and "RAY_TMPDIR" in fix


def test_a_full_or_closed_temporary_folder_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(footing, "ROOM_BYTES", shutil.disk_usage("/tmp").total * 2)
    ((what, _),) = footing.faults()
    assert "/tmp: Ray's temporary folder has only" in what
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", "/proc/none")
    ((what, fix),) = footing.faults()
    assert "cannot be written to" in what and "RAY_TMPDIR" in fix


def test_a_home_that_cannot_hold_rays_token_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "access", lambda path, how: False)
    ((what, fix),) = footing.faults()
    assert f"{tmp_path}: Ray keeps its token" in what and "set HOME" in fix
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a secret")
    assert footing.faults() == []


def test_a_private_ray_is_not_tried_where_it_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.run.machines import ray_cluster

    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 90)
    with pytest.raises(InputError, match=r"Ray cannot start on this machine: .* RAY_TMPDIR"):
        ray_cluster(None).__enter__()


def test_shares_of_a_gpu_that_ray_does_not_hand_out_are_refused() -> None:
    TrialResources(gpus=0.25, device="cuda")
    TrialResources(gpus=2.0, device="cuda")
    with pytest.raises(InputError, match=r"gpus=1\.5: must be a whole number.*use 1 or 2"):
        TrialResources(gpus=1.5, device="cuda")
    with pytest.raises(InputError, match=r"gpus_per_worker=1\.5: must be a whole number"):
        TrainResources(gpus_per_worker=1.5, device="cuda")
    with pytest.raises(InputError, match=r"gpus=5e-05: must be 0\.0001 or more"):
        TrialResources(gpus=0.00005, device="cuda")
    with pytest.raises(InputError, match=r"cpus=5e-05: must be 0\.0001 or more"):
        TrialResources(cpus=0.00005)


def test_a_closed_terminal_ends_a_study_as_sigterm_does_but_not_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may be under nohup themselves
    try:
        signals = Signals()
        with pytest.raises(KeyboardInterrupt), interruptible(signals):
            os.kill(os.getpid(), signal.SIGHUP)
            signal.pause()
        assert signals.terminated
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with interruptible(Signals()):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


ELSEWHERE = """\x1b[36mray::ImplicitFunc.train()\x1b[39m (pid=7, ip=10.0.0.2, actor_id=ab)
Traceback (most recent call last):
  File "job_folder.py", line 1, in settings
{last}
"""


def test_a_failure_outside_the_jobs_code_is_told_in_rays_own_last_line(tmp_path: Path) -> None:
    from orchestrator.run.ray_study import word_of_ray
    from orchestrator.run.scheduler import WITHOUT_A_WORD

    missing = f"FileNotFoundError: [Errno 2] No such file or directory: '{tmp_path}/settings.json'"
    said = word_of_ray(ELSEWHERE.format(last=missing), tmp_path)
    assert said.startswith("--out is not the same folder on 10.0.0.2: FileNotFoundError")
    package = "ModuleNotFoundError: No module named 'gdas'"
    said = word_of_ray(ELSEWHERE.format(last=package), tmp_path)
    assert said.startswith(f"{package} on 10.0.0.2; python -m orchestrator.nodes")
    said = word_of_ray(ELSEWHERE.format(last="ValueError: odd"), tmp_path)
    assert said == "ValueError: odd (on 10.0.0.2, outside the job's own code)"
    assert word_of_ray("The actor died unexpectedly.", tmp_path) == WITHOUT_A_WORD
