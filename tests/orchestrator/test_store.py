"""The output folder: torn files, the lease, other versions."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import gdas
import orchestrator.run.lease
from gdas.errors import InputError
from orchestrator.experiment.build import build_study
from orchestrator.experiment.load import load_experiment
from orchestrator.run.lease import lease
from orchestrator.store.failure import read_failure, write_failure
from orchestrator.store.holder import this_process
from orchestrator.store.job_folder import JobFolder
from orchestrator.store.recorded import recorded_study, with_done
from orchestrator.store.store import Store
from tests.orchestrator.fake_study import fake_study, finish
from tests.orchestrator.test_study import identity
from tests.orchestrator.written import NO_DATA, plain_record, plain_result, trained_result


def test_a_torn_last_record_is_left_out(tmp_path: Path) -> None:
    folder = JobFolder.open(tmp_path)
    record = plain_record(1, of=2, metrics={"loss": 0.5}, time=9.0, seconds=1.0)
    folder.append_record(record)
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"position": 2, "met')
    assert folder.records() == [record]


def test_a_torn_result_is_no_result(tmp_path: Path) -> None:
    folder = JobFolder.open(tmp_path)
    assert folder.result() is None
    result = trained_result("x")
    folder.write_result(result)
    assert folder.result() == result
    (tmp_path / "result.json").write_text('{"dig')
    assert folder.result() is None


def test_a_result_clears_an_earlier_failure(tmp_path: Path) -> None:
    folder = JobFolder.open(tmp_path)
    write_failure(folder.place, "ValueError: no", "trace")
    failure = read_failure(folder.place)
    assert failure is not None and failure.error == "ValueError: no"
    folder.write_result(plain_result())
    assert read_failure(folder.place) is None


def test_an_incompatible_output_folder_is_refused(tmp_path: Path) -> None:
    Store(tmp_path)
    (tmp_path / "study.json").write_text('{"format": "gdas-study/99"}')
    with pytest.raises(InputError, match=r"incompatible version \(gdas-study/99"):
        Store(tmp_path)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        Store(tmp_path)


def test_an_output_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the folder"):
        Store(tmp_path / "file" / "out")


def test_the_study_keeps_its_key(tmp_path: Path) -> None:
    store = Store(tmp_path)
    study = build_study(load_experiment("smoke", []), identity, {})
    store.write_study(study, {}, {})
    key = store.study()["key"]
    store.write_study(study, {}, {})
    assert store.study()["key"] == key


def test_what_earlier_parts_have_done_stays_known_and_nothing_of_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, study, store = fake_study(tmp_path)
    settings = store.study()["settings"]
    first, second = study.only([study.jobs[0].label]), study.only([study.jobs[1].label])

    def known() -> list[str]:
        return [job.label for job in recorded_study(Store(tmp_path))]

    store.write_study(first, settings, {})
    store.write_study(second, settings, {})
    assert known() == [study.jobs[1].label], "the first is not done"
    store.write_study(first, settings, {})
    finish(store, study.jobs[0])
    store.write_study(second, settings, {})
    assert known() == [study.jobs[0].label, study.jobs[1].label]
    store.write_study(second, settings, {})
    assert known() == [study.jobs[0].label, study.jobs[1].label]
    store.write_study(study, settings, {})
    assert known() == [job.label for job in study], "each once"
    store.write_study(second, settings, {})
    monkeypatch.setattr(gdas, "ALGORITHM_VERSION", gdas.ALGORITHM_VERSION + 1)
    store.write_study(second, settings, {})
    assert known() == [study.jobs[1].label]
    monkeypatch.undo()
    store.write_study(first, settings, {})
    store.write_study(second, settings | {"note": "another question"}, {})
    assert known() == [study.jobs[1].label]


def test_what_is_done_stands_beside_what_only_selects(tmp_path: Path) -> None:
    _, study, store = fake_study(tmp_path)
    final = next(job for job in study.of_kind("train") if job.needs)
    part = study.only([study.jobs[0].label])
    assert list(with_done(part, study, store)) == list(part), "nothing is done"
    finish(store, study.jobs[1])
    finish(store, final)  # the selection that it needs is not there
    known = with_done(part, study, store)
    assert list(known) == [study.jobs[0], study.jobs[1]]
    assert known.finals == study.finals, "what is not there reads not run"


def test_a_damaged_list_of_jobs_is_written_anew(tmp_path: Path) -> None:
    _, study, store = fake_study(tmp_path)
    found = json.loads((tmp_path / "study.json").read_text())
    (tmp_path / "study.json").write_text(json.dumps(found | {"before": [{"label": 3}]}))
    store.write_study(study, found["settings"], {})
    assert [job.label for job in recorded_study(Store(tmp_path))] == [job.label for job in study]


HOLDER = """
import sys, time
from pathlib import Path
from orchestrator.store.store import Store
from orchestrator.run.lease import lease
with lease(Store(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_driver_is_refused_and_a_dead_ones_lease_is_taken_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        time.sleep(0.2)
        living = f"another living process .{holder.pid} on "
        with pytest.raises(InputError, match=living), lease(store):
            pass
        holder.kill()
    with lease(store):
        assert json.loads((tmp_path / "lease.json").read_text())["pid"] == os.getpid()
    assert (tmp_path / "lease.json").read_text() == ""


NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@pytest.mark.parametrize("ahead_s", [-1800, 0, 1800], ids=lambda s: f"{s} s ahead")
def test_a_driver_on_another_host_lives_while_its_heartbeat_changes_whatever_its_clock(
    ahead_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator.run.lease, "DEAD_AFTER_S", 0.4)
    store, path = Store(tmp_path), tmp_path / "lease.json"
    holder = {"host": "elsewhere", "pid": 7, "heartbeat": time.time() + ahead_s, "kernel": "x"}
    path.write_text(json.dumps(holder))
    beat = threading.Timer(
        0.1, lambda: path.write_text(json.dumps(holder | {"heartbeat": time.time() + ahead_s + 5}))
    )
    beat.start()
    with pytest.raises(InputError, match="7 on elsewhere"), lease(store):
        pass
    beat.join()
    with lease(store):
        assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("why", NO_LOCKS, ids=errno.errorcode.get)
def test_where_there_are_no_locks_the_heartbeat_keeps_a_second_driver_away(
    why: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: int, how: int) -> None:
        raise OSError(why, os.strerror(why))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(orchestrator.run.lease, "SETTLED_S", 0.0)
    store, path = Store(tmp_path), tmp_path / "lease.json"
    with lease(store), pytest.raises(InputError, match=f"{os.getpid()} on "), lease(store):
        pass
    held = json.loads(this_process("its token"))
    path.write_text(json.dumps(held | {"begun": 1}))  # another process had the number before
    with lease(store):
        assert path.read_text() != ""
    assert path.read_text() == ""


def test_a_driver_that_another_replaced_ends_and_leaves_the_lease_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    monkeypatch.setattr(orchestrator.run.lease, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(orchestrator.run.lease, "_lost", told.set)
    path = tmp_path / "lease.json"
    other = this_process("another's").decode()
    with lease(Store(tmp_path)):
        path.write_text(other)
        assert told.wait(5)
    assert path.read_text() == other


def test_a_folder_that_cannot_be_written_to_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, real = Store(tmp_path), Path.touch

    def touch(path: Path, *words: Any) -> None:
        if path.name == "lease.json":
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        real(path, *words)

    monkeypatch.setattr(Path, "touch", touch)
    with pytest.raises(InputError, match=r"cannot be written to \(Read-only"), lease(store):
        pass


def test_records_are_read_from_where_the_last_reading_ended(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = next(iter(build_study(load_experiment("smoke", []), identity, {})))
    assert store.records(job) == []
    folder = store.prepare(job, NO_DATA)
    folder.append_record(plain_record(1))
    assert store.records(job) == [plain_record(1)]
    path = folder.path / "records.jsonl"
    content = path.read_bytes()
    # The same file, its beginning no longer readable: only what is new is looked at.
    with path.open("r+b") as file:
        file.write(b"x" * len(content))
    with path.open("a") as file:
        file.write(json.dumps(plain_record(2)) + "\n" + json.dumps(plain_record(3))[:20])
    assert store.records(job) == [plain_record(1), plain_record(2)]
    with path.open("a") as file:
        file.write(json.dumps(plain_record(3))[20:] + "\n")
    assert store.records(job)[2:] == [plain_record(3)]
    # Replaced, as a resume does.
    folder.rewrite_records([plain_record(1), plain_record(9)])
    assert store.records(job) == folder.records() == [plain_record(1), plain_record(9)]
