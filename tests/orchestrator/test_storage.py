"""The output folder on an object store: moto's S3, with calls that fail and processes that die."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow.fs import LocalFileSystem

import orchestrator.store.patience
import orchestrator.store.place
from gdas.checkpoint import Segment, State
from gdas.errors import InputError
from orchestrator.experiment.build import build_study
from orchestrator.experiment.load import load_experiment
from orchestrator.store.data import data_on_this_node, node_folder, publish
from orchestrator.store.failure import read_failure, write_failure
from orchestrator.store.job_folder import JobFolder
from orchestrator.store.place import ObjectFolder, TakenOver
from orchestrator.store.results import JobSettings
from orchestrator.store.storage import Storage, is_address, join, open_storage
from orchestrator.store.store import Store
from orchestrator.work.body import Finished, newest_checkpoint, run_to_end
from tests.cloud import Server
from tests.orchestrator.test_study import identity
from tests.orchestrator.written import trained_result

SEGMENTS = 4


@pytest.fixture
def out(aws: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh address; this node's own folders are the test's."""
    monkeypatch.setenv("GDAS_CACHE", str(tmp_path / "cache"))
    return f"s3://bucket/{uuid.uuid4().hex}"


def counting(*, checkpoint: State | None) -> Iterator[Segment]:
    """A training loop whose every state depends on the one before."""
    done, value = (checkpoint["done"], checkpoint["value"]) if checkpoint else (0, torch.ones(3))
    for position in range(done + 1, SEGMENTS + 1):
        value = value * 3 + position
        state = {"done": position, "value": value}
        yield Segment(position, SEGMENTS, {"x": float(position)}, state=state)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the process goes on."""


class Faulty:
    """A store whose n-th call is the last of its process, or whose calls fail for a while."""

    def __init__(self, whole: Storage, *, last: int = 10**9, fail: range = range(0)) -> None:
        self.whole, self.last, self.fail, self.calls = whole, last, fail, 0

    def __getattr__(self, name: str) -> Any:
        writes = name in ("put", "put_file")
        call = getattr(self.whole.uploads if writes else self.whole.files, name)

        def counted(*arguments: Any) -> Any:
            self.calls += 1
            if self.calls > self.last:
                raise Killed
            if self.calls in self.fail:
                raise OSError("AWS Error NETWORK_CONNECTION")
            return call(*arguments)

        return counted


def job(address: str, **faults: Any) -> tuple[JobFolder, Faulty]:
    """A start of the job on a node of its own."""
    folder = JobFolder.open(address)
    assert isinstance(folder.place, ObjectFolder)
    whole = folder.place.storage
    faulty = Faulty(whole, **faults)
    there = Storage(faulty, whole.root, address, faulty)
    return JobFolder(ObjectFolder(there, folder.path)), faulty


def run(address: str, **faults: Any) -> tuple[Finished, int]:
    folder, faulty = job(address, **faults)
    finished = run_to_end(folder, counting)
    folder.write_result(trained_result(finished.digest))
    return finished, faulty.calls


def test_addresses() -> None:
    assert is_address("s3://b/p") and not is_address("runs/smoke") and not is_address(Path("/x"))
    assert join("s3://b/p/?region=x", "jobs/a") == "s3://b/p/jobs/a?region=x"
    with pytest.raises(InputError, match="cannot be opened"):
        open_storage("nosuch://b/p")


class Objects:
    """A folder that takes objects as an object store does; quicker than moto's server."""

    def __init__(self) -> None:
        self.files = LocalFileSystem()

    def put(self, key: str, content: bytes) -> None:
        Path(key).parent.mkdir(parents=True, exist_ok=True)
        Path(key).write_bytes(content)

    def put_file(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.files, name)


@pytest.mark.parametrize("where", ["folder", pytest.param("s3", marks=pytest.mark.slow)])
def test_a_job_killed_between_any_two_calls_goes_on_to_the_same_bits(
    where: str, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "folder":
        out = "objects://all"

        def opened(address: str) -> Storage:
            root = f"{tmp_path}/{address.removeprefix('objects://')}"
            return Storage(Objects(), root, address, Objects())

        monkeypatch.setattr(orchestrator.store.place, "open_storage", opened)
    undisturbed, calls = run(join(out, "jobs/undisturbed"))
    assert calls > 4 * SEGMENTS
    for last in range(calls):
        address = join(out, f"jobs/killed-{last}")
        with pytest.raises(Killed):
            run(address, last=last)
        before = newest_checkpoint(JobFolder.open(address))
        finished, _ = run(address)
        assert finished.digest == undisturbed.digest
        assert [r["position"] for r in finished.records] == list(range(1, SEGMENTS + 1))
        # What was committed was not done again.
        kept = finished.records[: before.position if before else 0]
        assert kept == (before.records if before else [])
        folder = JobFolder.open(address)
        assert folder.records() == finished.records
        assert folder.result() == trained_result(undisturbed.digest)


def test_only_the_newest_two_checkpoints_stay(out: str) -> None:
    run(join(out, "jobs/a"))
    names = open_storage(out).under("jobs/a/checkpoints").listing()
    assert sorted(names) == [
        f"{position:06d}/{file}"
        for position in (SEGMENTS - 1, SEGMENTS)
        for file in ("manifest.json", "state.pt")
    ]


def test_a_store_that_is_away_for_a_while_is_waited_for(out: str) -> None:
    undisturbed, _ = run(join(out, "jobs/undisturbed"))
    finished, _ = run(join(out, "jobs/waited"), fail=range(6, 9))
    assert finished.digest == undisturbed.digest


def test_a_store_that_stays_away_fails_the_job_and_harms_nothing(
    out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator.store.patience, "PATIENCE_S", 1.0)
    undisturbed, calls = run(join(out, "jobs/undisturbed"))
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        run(join(out, "jobs/failed"), fail=range(calls // 2, 10**9))
    finished, _ = run(join(out, "jobs/failed"))
    assert finished.digest == undisturbed.digest


def test_a_damaged_checkpoint_is_passed_over(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    address = join(out, "jobs/a")
    undisturbed, _ = run(address)
    there = open_storage(address).under("checkpoints")
    there.write(f"{SEGMENTS:06d}/state.pt", b"no")
    found = newest_checkpoint(JobFolder.open(address))
    assert found is not None and found.position == SEGMENTS - 1
    assert "damaged state.pt" in capsys.readouterr().err
    finished, _ = run(address)
    assert finished.digest == undisturbed.digest
    assert newest_checkpoint(JobFolder.open(address)).position == SEGMENTS  # type: ignore[union-attr]


def test_a_start_that_was_given_up_cannot_commit_over_a_later_one(out: str) -> None:
    address = join(out, "jobs/a")
    old = JobFolder.open(address)

    def overtaken(*, checkpoint: State | None) -> Iterator[Segment]:
        for segment in counting(checkpoint=checkpoint):
            if segment.position == 2:
                run(address)  # on another node, to its end
            yield segment

    with pytest.raises(TakenOver, match="taken over"):
        run_to_end(old, overtaken)
    assert newest_checkpoint(JobFolder.open(address)).position == SEGMENTS  # type: ignore[union-attr]
    assert len(JobFolder.open(address).records()) == SEGMENTS


def test_the_driver_sees_what_jobs_leave_and_keeps_no_more_than_that(out: str) -> None:
    study = build_study(load_experiment("smoke", []), identity, {})
    store = Store(out)
    store.write_study(study, {}, {})
    first = next(iter(study))
    folder = store.prepare(first, {"data": "x"})
    assert folder.address.startswith(f"{out}/jobs/")
    on_its_node = JobFolder.open(folder.address)
    assert on_its_node.settings()["id"] == first.id
    write_failure(on_its_node.place, "ValueError: no", "")
    store.refresh()
    failure = read_failure(store.folder(first).place)
    assert failure is not None and failure.error == "ValueError: no"
    finished = run_to_end(on_its_node, counting)
    on_its_node.write_result(trained_result(finished.digest))
    assert not store.done(first)
    store.refresh()
    assert store.done(first) and read_failure(store.folder(first).place) is None
    assert len(store.folder(first).records()) == SEGMENTS
    again = Store(out)
    assert again.study()["key"] == store.study()["key"] and again.done(first)
    assert not list(again.out.rglob("state.pt")), "weights stay where they are"
    assert list(again.out.rglob("manifest.json")), "but where a job goes on is known"


def test_a_store_that_does_not_answer_is_named_at_once(out: str) -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match=r"s3://nowhere/x.*does not answer"):
        Store("s3://nowhere/x?endpoint_override=127.0.0.1:9&scheme=http&region=x")
    assert time.monotonic() - began < 100


def test_data_are_fetched_once_a_node(out: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for name in ("arrow/digits-train.arrow", "arrow/other-train.arrow", "digits/index.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    storage = open_storage(join(out, "data"))
    publish(folder, storage, ["digits"])
    settings: JobSettings = {
        "kind": "search",
        "name": "a",
        "id": "0",
        "needs": [],
        "recipe": {"config": {"data": {"name": "digits"}}},
        "resources": {},
        "environment": {"data": storage.address},
    }
    threads = [threading.Thread(target=data_on_this_node, args=(settings,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    here = node_folder(storage.address)
    assert (here / "arrow" / "digits-train.arrow").read_text() == "arrow/digits-train.arrow"
    assert (here / "digits" / "index.json").exists()
    assert not (here / "arrow" / "other-train.arrow").exists(), "not of this data set"
    inode = (here / "arrow" / "digits-train.arrow").stat().st_ino
    assert data_on_this_node(settings) == here
    assert (here / "arrow" / "digits-train.arrow").stat().st_ino == inode, "not fetched again"
