"""An object store that does not serve: too busy, credentials that expire, rights that lack."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import orchestrator.store.patience
import orchestrator.store.store
import tests.small_s3
from orchestrator.store.patience import Patience, code_of
from orchestrator.store.storage import Storage, open_storage
from orchestrator.store.store import Store
from tests.small_s3 import Objects, served

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of credentials with the key `old`, and none in the environment; short waits."""
    monkeypatch.setattr(orchestrator.store.patience, "FIRST_WAIT_S", 0.05)
    path = tmp_path / "credentials"
    _write(path, "old")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return path


def _write(path: Path, key: str) -> None:
    path.write_text(f"[default]\naws_access_key_id={key}\naws_secret_access_key=x\n")


@pytest.fixture(scope="module")
def server() -> Iterator[Objects]:
    with served(Objects()) as objects:
        yield objects


@pytest.fixture
def objects(server: Objects) -> Objects:
    """A bucket of its own for every test, with one object."""
    server.content = {"a/x": b"content"}
    server.requests, server.refusal, server.expired = [], None, ""
    return server


def storage(objects: Objects) -> Storage:
    """A folder in the bucket, from which this process has read and to which it has written."""
    there = open_storage(objects.address("a"))
    assert there.read("x", patience=0.0) == b"content"
    there.write("x", b"content", patience=0.0)
    return there


@pytest.mark.parametrize("status", [400, 403])
def test_expired_credentials_are_waited_for_and_read_again(
    status: int, objects: Objects, keys: Path, capsys: Capture
) -> None:
    there = storage(objects)
    objects.expired, objects.expired_status = "old", status
    renewed = threading.Timer(0.3, _write, (keys, "new"))
    renewed.start()
    assert there.read("x") == b"content"
    there.write("y", b"more")
    assert objects.content["a/y"] == b"more"
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and said[1] == "note: s3://bucket answers again"
    assert "s3://bucket denies access (" in said[0] and "waiting up to 300 s" in said[0]


def test_a_store_that_is_asked_too_much_is_waited_for(capsys: Capture) -> None:
    there = Patience("s3://bucket")
    errors = iter([OSError("SlowDown: Generic S3 error: 503 Service Unavailable")] * 2)

    def action() -> str:
        for error in errors:
            raise error
        return "served"

    assert there.tried("read", action) == "served"
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("note: s3://bucket answers that it is asked too much (SlowDown); ")
    assert said[1:] == ["note: s3://bucket answers again"]


def test_the_wait_has_an_end_and_the_error_says_how_long_and_what_to_do(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(orchestrator.store.patience, "PATIENCE_S", 0.3)
    there = storage(objects)
    objects.refusal = (403, "ExpiredToken")
    for call in (there.listing, lambda: there.write("x", b"")):
        with pytest.raises(
            OSError, match=r"s3://bucket denies access \(ExpiredToken; the cred"
        ) as e:
            call()
        assert "and did for " in str(e.value) and "renew the credentials" in str(e.value)
        assert "\n" not in str(e.value) and len(str(e.value)) < 250
    assert len(capsys.readouterr().err.splitlines()) == 1, "one line for an outage"


def test_what_was_never_allowed_is_not_waited_for_as_long(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator.store.patience, "NEVER_ALLOWED_S", 0.1)
    there = open_storage(objects.address("a"))
    assert there.read("x") == b"content"
    objects.refusal = (403, "AccessDenied")
    began = time.monotonic()
    with pytest.raises(OSError, match="AccessDenied"):
        there.write("x", b"")
    assert time.monotonic() - began < 15, "what is refused later has 300 s"


def test_a_full_disk_here_is_not_the_stores_silence(capsys: Capture) -> None:
    def action() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        Patience("s3://bucket").tried("read", action)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("ExpiredToken: Generic S3 error: Error performing PUT", "ExpiredToken"),
        ("AWS Error UNKNOWN (HTTP status 400) during HeadObject operation", "HTTP status 400"),
        ("(HTTP status 403): Unable to parse ExceptionName: ExpiredToken Message", "ExpiredToken"),
        ("AWS Error SLOW_DOWN during ListObjectsV2 operation: no", "SLOW_DOWN"),
        ("something else", "something else"),
    ],
)
def test_the_stores_own_word_for_an_error_is_found(text: str, code: str) -> None:
    assert code_of(text) == code


def test_one_listing_serves_all_jobs_and_all_who_ask_meanwhile(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tests.small_s3, "PAGE", 50)
    for job in range(30):
        for name in ("settings.json", "checkpoints/000001/state.pt"):
            objects.content[f"a/jobs/search-a-{job}/{name}"] = b"{}"
    for shard in range(300):
        objects.content[f"a/data/photos/{shard}"] = b""
    store = Store(objects.address("a"))
    assert len(list((store.out / "jobs").iterdir())) == 30
    objects.requests.clear()
    objects.content["a/jobs/search-a-7/records.jsonl"] = b"{}\n"
    callers = [threading.Thread(target=store.refresh) for _ in range(8)]
    lock, waiting = store.refreshing, list[int]()
    with lock:

        class Counted:
            def __enter__(self) -> None:
                waiting.append(1)
                lock.acquire()

            def __exit__(self, *_: object) -> None:
                lock.release()

        monkeypatch.setattr(store, "refreshing", Counted())
        for caller in callers:
            caller.start()
        while len(waiting) < len(callers):
            time.sleep(0.001)
    for caller in callers:
        caller.join()
    asked = [key for _, key in objects.requests]
    assert asked == ["a/jobs/"] * 2 + ["a/jobs/search-a-7/records.jsonl"] * 2, "two pages"


def test_the_driver_says_once_that_the_store_is_silent(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator.store.store, "SILENT_S", 0.0)
    store, said = Store(objects.address("a")), list[str]()
    objects.refusal = (403, "ExpiredToken")
    for _ in range(3):
        store.refresh_quietly(said.append)
    objects.refusal = None
    store.refresh_quietly(said.append)
    store.refresh_quietly(said.append)
    assert len(said) == 2
    assert "denies access (ExpiredToken; the credentials may have expired): what is sh" in said[0]
    assert said[1].endswith(" answers again")
