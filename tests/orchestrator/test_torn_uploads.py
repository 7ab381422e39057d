"""Interrupted uploads leave nothing, and no torn object replaces a good copy on a node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest

import orchestrator.store.bucket
from gdas.data.arrow import write_images
from gdas.errors import InputError
from orchestrator.mlflow_server import DATABASE, back_up
from orchestrator.store.data import fetched, node_folder, publish
from orchestrator.store.place import ObjectFolder
from orchestrator.store.storage import Storage, open_storage
from orchestrator.store.sums import read_sums, sums_object
from tests.cloud import Server

ARROW = "arrow/digits-train.arrow"
PART = 5 << 20
"""The smallest part that S3 takes."""
SIZE = PART * 5 // 2


@pytest.fixture
def storage(aws: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """A fresh folder on moto's S3; this node's own folders are the test's."""
    monkeypatch.setenv("GDAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(orchestrator.store.bucket, "PART", PART)
    return open_storage(f"s3://bucket/{uuid.uuid4().hex}")


def unfinished() -> list[str]:
    """Uploads that the store still waits for: they are paid for and never become objects."""
    found = boto3.client("s3").list_multipart_uploads(Bucket="bucket")
    return [upload["Key"] for upload in found.get("Uploads", [])]


class Interrupted(Exception):
    """Stands for whatever ends an upload in the middle."""


@contextmanager
def third_read_raises(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> Iterator[None]:
    """Let the third piece of every file that is opened for reading raise."""
    whole = Path.open

    class Breaking:
        def __init__(self, file: Any) -> None:
            self.file, self.reads = file, 0

        def __enter__(self) -> Breaking:
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        def read(self, size: int = -1) -> Any:
            self.reads += 1
            if self.reads == 3:
                raise error
            return self.file.read(size)

    def opened(self: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        file = whole(self, mode, *more, **options)
        return Breaking(file) if mode == "rb" and self.suffix in (".big", ".pt") else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        yield


def write_big(path: Path) -> bytes:
    content = os.urandom(4096) * (SIZE // 4096)
    path.write_bytes(content)
    return content


def test_an_upload_that_ends_in_the_middle_leaves_nothing_and_what_was_there(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = tmp_path / "state.big"
    content = write_big(big)
    storage.write("old.big", b"whole")
    with third_read_raises(monkeypatch, KeyboardInterrupt):
        for name in ("new.big", "old.big"):
            with pytest.raises(KeyboardInterrupt):
                storage.put(big, name)
    assert set(storage.listing()) == {"old.big"} and storage.read("old.big") == b"whole"
    assert unfinished() == []
    storage.put(big, "old.big")
    assert storage.read("old.big") == content


def test_every_writer_goes_through_uploads_that_commit_at_the_end(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's files, a checkpoint, MLflow's database: none is there after an exception."""
    place = ObjectFolder(storage, tmp_path / "copy")
    (place.path / "checkpoints/000001").mkdir(parents=True)
    write_big(place.path / "result.big")
    write_big(place.path / "checkpoints/000001/state.pt")
    place.claim("mine")
    (tmp_path / DATABASE).touch()
    with third_read_raises(monkeypatch, Interrupted):
        with pytest.raises(Interrupted):
            place.publish("result.big")
        with pytest.raises(Interrupted):
            place.commit_checkpoint(1, "mine")
    assert set(storage.listing()) == {"owner.json"} and place.fetch_checkpoint(None) is None
    back_up(tmp_path, storage)
    assert DATABASE in storage.listing()
    source = Path(orchestrator.store.bucket.__file__).parents[1].rglob("*.py")
    assert not [path for path in source if "open_output_stream" in path.read_text()]


def digits(folder: Path, seed: int) -> None:
    """A converted split of a few random images."""
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (64, 3, 32, 32), dtype=np.uint8)
    labels = draw.integers(0, 10, 64)
    write_images(folder / ARROW, images, labels, classes=10, identity=f"made-{seed}")


def test_checksums_decide_and_a_torn_object_never_replaces_a_good_copy(
    storage: Storage, tmp_path: Path
) -> None:
    source = tmp_path / "data"
    digits(source, 0)
    publish(source, storage, ["digits"])
    good = (source / ARROW).read_bytes()
    here = node_folder(storage.address) / ARROW
    fetched(storage.address, ["digits"])
    assert here.read_bytes() == good

    digits(source, 1)  # of the same size
    new = (source / ARROW).read_bytes()
    assert len(new) == len(good) and new != good
    publish(source, storage, ["digits"])
    fetched(storage.address, ["digits"])
    assert here.read_bytes() == new, "another content of the same size"

    storage.write(ARROW, new[: len(new) * 2 // 5])  # as an interrupted upload of another program
    fetched(storage.address, ["digits"])  # the copy is what the checksums say: nothing to do
    assert here.read_bytes() == new
    here.unlink()
    with pytest.raises(InputError, match=r"digits-train.arrow: torn or damaged on the store \(SHA"):
        fetched(storage.address, ["digits"])
    assert not here.exists(), "a torn file takes nobody's place"
    publish(source, storage, ["digits"])
    fetched(storage.address, ["digits"])
    assert here.read_bytes() == new and read_sums(storage, "digits")


def test_without_checksums_a_torn_object_is_known_by_what_is_in_it(
    storage: Storage, tmp_path: Path
) -> None:
    source = tmp_path / "data"
    digits(source, 0)
    good = (source / ARROW).read_bytes()
    storage.put(source / ARROW, ARROW)  # as a person does
    here = node_folder(storage.address) / ARROW
    fetched(storage.address, ["digits"])
    assert here.read_bytes() == good
    for torn in (good[: len(good) // 2], b""):
        storage.write(ARROW, torn)
        with pytest.raises(InputError, match=r"torn or damaged on the store \(damaged \("):
            fetched(storage.address, ["digits"])
        assert here.read_bytes() == good
    publish(source, storage, ["digits"])  # the advice
    assert storage.read(ARROW) == good and sums_object("digits") in storage.listing()


def test_an_interrupted_publication_promises_nothing(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "data"
    digits(source, 0)
    publish(source, storage, ["digits"])
    digits(source, 1)

    def stopped(self: Storage, path: Path, name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "put", stopped)
        with pytest.raises(KeyboardInterrupt):
            publish(source, storage, ["digits"])
    assert sums_object("digits") not in storage.listing()
    publish(source, storage, ["digits"])
    assert read_sums(storage, "digits")
    storage.write(sums_object("digits"), b"[]")
    with pytest.raises(InputError, match=r"digits.json: damaged .*; delete it there"):
        publish(source, storage, ["digits"])


@pytest.mark.slow
def test_ctrl_c_in_a_process_that_uploads_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    write_big(tmp_path / "data.big")
    program = (
        "import sys\\nfrom pathlib import Path\\nimport orchestrator.store.bucket as bucket\\n"
        f"bucket.PART = {PART}\\n"
        "from orchestrator.store.storage import open_storage\\n"
        f"storage = open_storage({storage.address!r})\\n"
        "print('sending', flush=True)\\n"
        "while True:\\n"
        f"    storage.put(Path({str(tmp_path / 'data.big')!r}), sys.argv[1])\\n"
    ).replace("\\n", "\n")
    for attempt in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", program, f"{attempt}.big"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None and process.stdout.readline()
        while not any(key.endswith(f"{attempt}.big") for key in unfinished()):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
        stamp = storage.listing().get(f"{attempt}.big")
        assert stamp is None or stamp[0] == SIZE
        assert unfinished() == []
