"""One driver at a time for a study on an object store: moto's S3, and drivers that are slow."""

from __future__ import annotations

import json
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

import orchestrator.run.lease
from gdas.errors import InputError
from orchestrator.run.lease import held_object, lease
from orchestrator.store.bucket import BucketUploads
from orchestrator.store.conditional import (
    Changed,
    ConditionalObject,
    Version,
    conditional_object,
)
from orchestrator.store.holder import LEASE, LEASE_BYTES
from orchestrator.store.storage import Storage, open_storage
from orchestrator.store.store import Store
from tests.cloud import Server


@pytest.fixture
def out(aws: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh address."""
    monkeypatch.setenv("GDAS_CACHE", str(tmp_path / "cache"))
    return f"s3://bucket/{uuid.uuid4().hex}"


class Slow:
    """A lease's object; what a test adds happens before or after a write."""

    def __init__(self, out: str) -> None:
        self.real = conditional_object(open_storage(out), LEASE)
        self.writes = 0

    def before(self) -> None:
        """Called before every write, with the number of those before it."""

    def after(self) -> None:
        """Called after every write that succeeded."""

    def read(self) -> tuple[bytes, Version] | None:
        return self.real.read()

    def write(self, content: bytes, over: Version | None) -> Version:
        self.before()
        self.writes += 1
        version = self.real.write(content, over)
        self.after()
        return version


def held(there: Any, out: str, lost: threading.Event | None = None) -> Any:
    return held_object(there, out, (lost or threading.Event()).set)


def says(out: str) -> Any:
    return json.loads(open_storage(out).read(LEASE))


def test_all_leases_are_of_one_length(out: str) -> None:
    with held(Slow(out), out):
        assert len(open_storage(out).read(LEASE)) == LEASE_BYTES
    assert len(open_storage(out).read(LEASE)) == LEASE_BYTES and says(out) == {}


def test_an_object_is_made_once_and_replaced_as_what_was_read(out: str) -> None:
    one, other = (conditional_object(open_storage(out), "x") for _ in range(2))
    assert one.read() is None
    first = one.write(b"1", None)
    with pytest.raises(Changed):
        other.write(b"2", None)
    assert other.read() == (b"1", first)
    second = other.write(b"2", first)
    with pytest.raises(Changed):
        one.write(b"3", first)
    assert one.read() == (b"2", second)
    open_storage(out).remove("x")
    with pytest.raises(Changed):
        one.write(b"4", second)


def test_a_second_driver_is_refused_and_a_dead_ones_lease_is_taken_when_it_stays_the_same(
    out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, storage = Store(out), open_storage(out)
    with (
        lease(store),
        pytest.raises(InputError, match="another living process"),
        lease(Store(out)),
    ):
        pass
    with lease(Store(out)):
        assert says(out)["token"]
    assert says(out) == {}
    monkeypatch.setattr(orchestrator.run.lease, "DEAD_AFTER_S", 1.0)
    # Its clock is half an hour behind: only that its heartbeat changes shows that it lives.
    old = {"host": "elsewhere", "pid": 7, "heartbeat": time.time() - 1800, "token": "t"}
    storage.write(LEASE, json.dumps(old).encode())
    later = json.dumps(old | {"heartbeat": time.time() - 1795}).encode()
    beat = threading.Timer(0.3, lambda: storage.write(LEASE, later))
    beat.start()
    with pytest.raises(InputError, match="7 on elsewhere"), lease(store):
        pass
    beat.join()
    with lease(store):
        assert says(out)["token"]
    for dead in (b"", b"[1]", b'{"heartbeat": "x"}'):
        storage.write(LEASE, dead)
        with lease(store):
            assert says(out)["token"]


@pytest.mark.parametrize("first", ["there is none", "a dead one's"])
def test_of_drivers_that_all_looked_before_any_wrote_one_gets_the_lease(
    first: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if first == "a dead one's":
        dead = {"host": "elsewhere", "pid": 7, "heartbeat": 0, "token": "t"}
        open_storage(out).write(LEASE, json.dumps(dead).encode())
    monkeypatch.setattr(orchestrator.run.lease, "DEAD_AFTER_S", 0.0)
    drivers = 6
    all_looked = threading.Barrier(drivers, timeout=120)
    all_done = threading.Barrier(drivers, timeout=120)
    got: list[str] = []

    class Together(Slow):
        def before(self) -> None:
            if self.writes == 0:
                all_looked.wait()

    def drive() -> None:
        try:
            with held(Together(out), out):
                got.append("lease")
                all_done.wait()
        except InputError as refusal:
            assert "another living process" in str(refusal)
            got.append("refused")
            all_done.wait()

    threads = [threading.Thread(target=drive) for _ in range(drivers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == ["lease"] + ["refused"] * (drivers - 1)


def test_a_driver_that_slept_between_its_look_and_its_write_steals_nothing(out: str) -> None:
    """However long it slept: what it read is no longer what is there."""

    class Sleepy(Slow):
        def before(self) -> None:
            if self.writes == 0:
                held_by_another.__enter__()

    held_by_another = held(Slow(out), out)
    with pytest.raises(InputError, match="another living process"), held(Sleepy(out), out):
        pass
    token = says(out)["token"]
    assert held_by_another.__exit__(None, None, None) is False and token
    assert says(out) == {}, "the holder held it to its end"


def test_a_slow_driver_whose_lease_ran_out_is_told_and_does_not_take_it_back(
    out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator.run.lease, "REMOTE_HEARTBEAT_S", 0.1)
    lost = threading.Event()
    with held(Slow(out), out, lost):
        other = {"host": "elsewhere", "pid": 7, "heartbeat": time.time(), "token": "other"}
        open_storage(out).write(LEASE, json.dumps(other).encode())
        assert lost.wait(5)
    assert says(out) == other, "the new holder keeps it"


def test_a_heartbeat_whose_answer_was_lost_is_no_other_driver(
    out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator.run.lease, "REMOTE_HEARTBEAT_S", 0.05)
    lost, heard = threading.Event(), threading.Event()

    class Unheard(Slow):
        def after(self) -> None:
            if self.writes in (3, 4):
                raise OSError("the connection broke")
            if self.writes > 7:
                heard.set()

    with held(Unheard(out), out, lost):
        first = says(out)
        assert heard.wait(10)
        assert says(out)["token"] == first["token"] and says(out)["heartbeat"] > first["heartbeat"]
    assert not lost.is_set()
    assert says(out) == {}


def test_a_store_that_ignores_conditions_is_named(
    out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Old(Slow):
        def write(self, content: bytes, over: Version | None) -> Version:
            open_storage(out).write(LEASE, content)
            found = self.read()
            assert found is not None
            return found[1]

    with held(Slow(out), out):
        assert capsys.readouterr().err == ""
    with held(Old(out), out):
        assert "ignores conditional writes" in capsys.readouterr().err


def test_the_endpoint_in_an_address_is_the_one_that_is_asked(
    aws: Server, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    where = f"endpoint_override=127.0.0.1:{aws.port}&scheme=http&region=us-west-2"
    with lease(Store(f"{out}?{where}")):
        assert json.loads(open_storage(f"{out}?{where}").read(LEASE))["token"]


def test_a_lease_where_nothing_answers_or_can_be_conditional_is_refused(
    out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away(ConditionalObject):
        def read(self) -> tuple[bytes, Version] | None:
            raise OSError("nothing\nanswers")

    real = conditional_object(open_storage(out), LEASE)
    with (
        pytest.raises(InputError, match=r"cannot be written to \(nothing answers\)"),
        held(Away(real.store, LEASE), out),
    ):
        pass
    hdfs = Storage(None, "host/p", "hdfs://host/p", BucketUploads("hdfs://host/p", "host", None))
    with pytest.raises(InputError, match="hdfs:// has no conditional write"):
        conditional_object(hdfs, LEASE)
