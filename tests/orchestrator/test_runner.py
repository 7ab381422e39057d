"""What of Ray can be told without starting it."""

from __future__ import annotations

import errno
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import ray
from ray import tune

from gdas.errors import InputError
from orchestrator import runner
from orchestrator.runner import ray_cluster, run_study
from orchestrator.scheduler import Scheduler
from tests.orchestrator.fake_study import fake_study

Usage = namedtuple("Usage", "free")


@pytest.mark.parametrize(
    ("address", "said"),
    [(None, "Ray did not start on this machine"), ("10.0.0.1:6379", "--address 10.0.0.1:6379: no")],
)
def test_a_ray_that_does_not_start_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, address: str | None, said: str
) -> None:
    def fails(**_: object) -> None:
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(InputError) as refused, ray_cluster(address):
        pass
    assert str(refused.value).startswith(said)
    assert "timed out during startup" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(("free", "raised"), [(0, OSError), (1 << 40, EOFError)])
def test_a_disk_too_full_for_tunes_own_files_is_said_as_that(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, raised: type[Exception]
) -> None:
    class Torn:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def fit(self) -> None:
            raise EOFError("Ran out of input")

    monkeypatch.setattr(tune, "Tuner", Torn)
    monkeypatch.setattr(runner, "look_at_cluster", lambda scheduler: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(free))
    _, study, store = fake_study(tmp_path)
    with pytest.raises(raised) as failed:
        run_study(Scheduler(study, store, {"CPU": 2.0, "GPU": 0.0}, print), {})
    if raised is OSError:
        assert getattr(failed.value, "errno", None) == errno.ENOSPC
