"""Every job finds the state of a new process, whatever ran before it; and none outlives its end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import orchestrator.work.fork_server as fork_server
from orchestrator.run.ray_study import word_of_ray
from orchestrator.run.scheduler import WITHOUT_A_WORD
from orchestrator.work.body import run_job
from orchestrator.work.fork_server import CallFailed, ForkServer, ProcessDied, how_it_ended
from tests.orchestrator.fake_study import fake_study

HERE = "tests.orchestrator.forked"
TORCH = "torch._dynamo"


@pytest.fixture
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def with_torch() -> Iterator[ForkServer]:
    """One that has imported PyTorch, as those of jobs have, on a machine with several cores."""
    server = ForkServer()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            patch.delenv(name, raising=False)
        yield server
    server.close()


def soon(condition: Callable[[], bool], seconds: float = 300) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_what_a_job_changes_no_later_job_finds(with_torch: ForkServer, tmp_path: Path) -> None:
    first, then = tmp_path / "first.json", tmp_path / "then.json"
    with_torch.call(f"{HERE}:write_state", str(first), modules=[TORCH])
    with_torch.call(f"{HERE}:change_everything", str(tmp_path), modules=[TORCH])
    with_torch.call(f"{HERE}:write_state", str(then), modules=[TORCH])
    assert json.loads(then.read_text()) == json.loads(first.read_text())


def test_a_job_has_the_same_bits_here_and_forked_after_other_jobs(
    with_torch: ForkServer, tmp_path: Path, data_folder: Path
) -> None:
    """A search, forked after a job that changed everything; end-to-end tests have a first fork."""
    small = ["search.recipe.epochs=1", "search.recipe.train_images=32"]
    small += ["search.recipe.valid_images=32", "search.recipe.compared_cells=0"]
    _, study, store = fake_study(tmp_path, *small)
    job = next(job for job in study if job.kind == "search")
    folder = store.prepare(job, {"data": str(data_folder), "selections": ""})

    here, forked = (shutil.copytree(folder.path, tmp_path / "jobs" / f"search-{x}") for x in "ab")
    body = "orchestrator.work.search:run_search"
    modules = ["orchestrator.work.body", TORCH, "orchestrator.work.search"]
    with_torch.call(f"{HERE}:change_everything", str(tmp_path), modules=[TORCH])
    with_torch.call("orchestrator.work.body:run_job", str(forked), body, None, modules=modules)
    assert with_torch.process is not None, "it forked, and so lives on"
    run_job(str(here), body, None)
    one, other = (json.loads((path / "result.json").read_text()) for path in (here, forked))
    assert one["digest"] == other["digest"]


def test_an_exception_comes_back_with_its_traceback(server: ForkServer) -> None:
    with pytest.raises(CallFailed, match=r"(?s)Traceback .*forked.py.*\nValueError: no such cell$"):
        server.call(f"{HERE}:fail", "no such cell")
    with pytest.raises(CallFailed, match=r"ModuleNotFoundError: No module named 'nowhere'$"):
        server.call("nowhere:run")


def test_a_process_that_dies_is_told_from_one_that_raises(server: ForkServer) -> None:
    server.call(f"{HERE}:leave", "0")
    with pytest.raises(ProcessDied, match="ended by itself with exit code 3"):
        server.call(f"{HERE}:leave", "3")


def waiting(server: ForkServer, path: Path) -> tuple[int, threading.Thread, list[Exception]]:
    """A call that waits, in a thread; the number of its process, and what it raises later."""
    raised: list[Exception] = []

    def call() -> None:
        try:
            server.call(f"{HERE}:write_pid_and_wait", str(path))
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert soon(path.exists)
    return int(path.read_text()), thread, raised


def test_a_killed_job_is_a_death_and_the_next_one_runs(server: ForkServer, tmp_path: Path) -> None:
    pid, thread, raised = waiting(server, tmp_path / "pid")
    os.kill(pid, signal.SIGKILL)
    thread.join()
    assert str(raised[0]) == "its process was ended by SIGKILL"
    rays = "ray::f() (pid=1, ip=10.0.0.1)\nTraceback (most recent call last):\nwork.ProcessDied: "
    assert word_of_ray(f"{rays}{raised[0]}", tmp_path) == WITHOUT_A_WORD
    crashed = word_of_ray(f"{rays}{how_it_ended(-signal.SIGSEGV)}", tmp_path)
    assert crashed.startswith("its process was ended by SIGSEGV (on 10.0.0.1")
    server.call(f"{HERE}:leave", "0")


def test_a_job_dies_with_its_server_and_another_server_takes_the_next(
    server: ForkServer, tmp_path: Path
) -> None:
    pid, thread, raised = waiting(server, tmp_path / "pid")
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    thread.join()
    assert isinstance(raised[0], ProcessDied)
    assert soon(lambda: gone(pid))
    server.call(f"{HERE}:leave", "0")


def test_a_job_dies_with_the_process_that_asked_for_it(server: ForkServer, tmp_path: Path) -> None:
    """As when Ray kills a trial's process: the system then closes its end of the socket."""
    pid, thread, _ = waiting(server, tmp_path / "pid")
    assert server.channel is not None and server.process is not None
    forker = server.process.pid
    server.channel.shutdown(2)
    assert soon(lambda: gone(pid) and gone(forker))
    thread.join()


def test_what_a_job_started_ends_with_it(server: ForkServer, tmp_path: Path) -> None:
    server.call(f"{HERE}:leave_a_process", str(tmp_path / "left"))
    assert soon(lambda: gone(int((tmp_path / "left").read_text())))


def test_only_a_process_with_one_thread_is_forked() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="lost by a fork")
    thread.start()
    try:
        assert not fork_server._may_fork()
        if sys.platform == "linux":
            assert fork_server._other_threads(), "Linux names it"
    finally:
        stop.set()
        thread.join()
