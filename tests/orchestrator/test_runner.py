"""What of Ray can be told without starting it."""

from __future__ import annotations

import errno
import gc
import shutil
import subprocess
import sys
import threading
import types
import weakref
from collections import namedtuple
from pathlib import Path

import pytest
import ray
from ray import tune

from gdas.errors import InputError
from orchestrator.run import machines, ray_study
from orchestrator.run.machines import ray_cluster
from orchestrator.run.ray_study import run_study
from orchestrator.run.scheduler import ClusterLost, Scheduler
from tests.orchestrator.fake_study import fake_study
from tests.orchestrator.written import NO_DATA

Usage = namedtuple("Usage", "free")


def test_a_ray_that_does_not_start_is_given_a_second_chance(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It gives itself half a minute, and leaves processes; a cluster elsewhere is asked once."""
    asked: list[object] = []
    running: list[subprocess.Popen[bytes]] = [subprocess.Popen(["sleep", "60"])]

    def fails_once(**words: object) -> None:
        asked.append(words["address"])
        if len(asked) == 1:
            running.append(subprocess.Popen(["sleep", "60"]))
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", fails_once)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(machines, "cluster_budget", lambda: {"CPU": 2.0})
    with ray_cluster(None) as budget:
        assert budget == {"CPU": 2.0}
        earlier, left = running
        assert left.poll() is not None, "what the first start left has ended"
        assert earlier.poll() is None, "and nothing else"
        earlier.kill()
        earlier.wait()
    assert asked == ["local", "local"]
    assert "timed out during startup.); once more" in capsys.readouterr().err
    asked.clear()
    monkeypatch.setattr(machines, "probe", lambda address, version: False)  # a head answers
    with pytest.raises(InputError), ray_cluster("10.0.0.1:6379"):
        pass
    assert asked == ["10.0.0.1:6379"]


def test_a_command_whose_own_cluster_is_gone_ends_and_one_of_others_waits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, study, store = fake_study(tmp_path)
    scheduler = Scheduler(study, store, {}, print)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": False, "NodeID": "a", "Resources": {}}])
    monkeypatch.setattr(ray, "cluster_resources", dict)
    monkeypatch.setattr(machines, "_largest", dict)
    machines.look_at_cluster(scheduler)
    assert scheduler.nodes == []
    scheduler.private = True
    with pytest.raises(ClusterLost, match="lost its hold of this machine"):
        machines.look_at_cluster(scheduler)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (None, "Ray did not start on this machine"),
        ("10.0.0.1:6379", "--address 10.0.0.1:6379: a head"),
    ],
)
def test_a_ray_that_does_not_start_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, address: str | None, said: str
) -> None:
    def fails(**_: object) -> None:
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.setattr(ray, "init", fails)
    monkeypatch.setattr(machines, "probe", lambda address, version: False)  # a head answers
    with pytest.raises(InputError) as refused, ray_cluster(address):
        pass
    assert str(refused.value).startswith(said)
    assert "timed out during startup" in str(refused.value) and "\n" not in str(refused.value)


class Cycle:
    """Only a garbage collection can end it."""

    def __init__(self, held: object = None) -> None:
        self.itself, self.held = self, held


def test_no_garbage_is_collected_while_ray_shuts_down_and_its_errors_end_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shuts_down() -> None:
        assert left() is None, "collected before"
        new = weakref.ref(Cycle())
        assert len([Cycle() for _ in range(5000)]) == 5000
        assert new() is not None, "and nothing meanwhile"
        raise RuntimeError("a process\ndid not end")

    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", shuts_down)
    monkeypatch.setattr(machines, "cluster_budget", lambda: {"CPU": 2.0})
    with ray_cluster(None):
        left = weakref.ref(Cycle())
    assert gc.isenabled()
    assert capsys.readouterr().err == "Ray did not end cleanly (a process did not end)\n"


SHUTDOWN = """
import gc, threading, ray
from ray._private.worker import global_worker
from orchestrator.run.machines import ray_cluster
from tests.orchestrator.test_runner import Cycle

ended = threading.Event()
kept = []
def goes_on():  # as the thread that sends to MLflow does
    while global_worker.connected: pass
    while not ended.is_set():
        kept[:5] = []
        [Cycle() for _ in range(1000)]

with ray_cluster(None):
    gc.freeze()  # or the next full collection is far away
    gc.collect()
    gc.set_threshold(100, 2, 2)
    kept += [Cycle(ray.put(i)) for i in range(3000)]
    threading.Thread(target=goes_on).start()
ended.set()
print("the report")
"""


@pytest.mark.slow
def test_references_let_go_while_ray_shuts_down_do_not_end_the_driver() -> None:
    done = subprocess.run([sys.executable, "-c", SHUTDOWN], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "the report\n"), done.stderr


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
    monkeypatch.setattr(ray_study, "look_at_cluster", lambda scheduler: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(free))
    _, study, store = fake_study(tmp_path)
    with pytest.raises(raised) as failed:
        run_study(Scheduler(study, store, {"CPU": 2.0, "GPU": 0.0}, print), NO_DATA)
    if raised is OSError:
        assert getattr(failed.value, "errno", None) == errno.ENOSPC


@pytest.mark.parametrize(
    ("text", "noticed", "retries_used"),
    [
        ("The actor 1f is unavailable: Socket closed", True, 0),  # Ray learns it a moment later
        ("The actor 1f is unavailable: Socket closed", False, 1),
        ("its worker process has died", True, 1),  # no machine went while that was asked
    ],
)
def test_a_machine_that_ray_has_not_missed_yet_uses_up_no_retry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, noticed: bool, retries_used: int
) -> None:
    alive, ended = {"head", "spot"}, threading.Event()

    def living() -> set[str]:
        if noticed and ended.is_set():  # it was asked once before
            alive.discard("spot")
        elif failed.is_set():
            ended.set()
        return set(alive)

    failed = threading.Event()
    monkeypatch.setattr(ray_study, "living_nodes", living)
    monkeypatch.setattr(machines, "living_nodes", living)
    monkeypatch.setattr(machines, "NOTICED_AFTER_S", 1.5)
    _, study, store = fake_study(tmp_path)
    scheduler = Scheduler(study, store, {"CPU": 1.0, "GPU": 0.0}, print, retries=1)
    searcher = ray_study.StudySearcher(scheduler, NO_DATA)
    assert isinstance(searcher.suggest("a"), dict)
    job = searcher.job_of_trial["a"]
    trial = types.SimpleNamespace(trial_id="a", get_error=lambda: text)
    ray_study.Starts(searcher).on_trial_start(0, [], trial)
    failed.set()
    ray_study.Queue(searcher).on_trial_error(None, trial)
    searcher.on_trial_complete("a", error=True)
    assert scheduler.board.states[job.id] == "waiting"
    assert scheduler.used[job.id] == retries_used
