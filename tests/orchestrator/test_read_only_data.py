"""Data that cannot be written beside: a read-only folder, and a bucket that only lets us read."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import orchestrator.store.patience
from gdas.data.arrow import read_split, write_split
from gdas.errors import InputError
from orchestrator.driver.reproduce import _published_data
from orchestrator.experiment.build import build_study
from orchestrator.experiment.load import load_experiment
from orchestrator.store.data import fetched
from orchestrator.store.store import Store
from tests.orchestrator.test_study import identity
from tests.small_s3 import Objects, served

ABOUT = {"format": "x", "identity": "y"}


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Objects]:
    """A bucket in which nothing below `theirs` can be written."""
    monkeypatch.setattr(orchestrator.store.patience, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(orchestrator.store.patience, "NEVER_ALLOWED_S", 0.1)
    monkeypatch.setenv("GDAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with served(Objects(read_only="theirs/")) as objects:
        yield objects


def published(objects: Objects, out: str, tmp_path: Path, address: str | None) -> str:
    """Where the jobs of a study read, whose converted data the bucket lacks."""
    converted = tmp_path / "converted" / "arrow" / "digits-train.arrow"
    converted.parent.mkdir(parents=True)
    converted.write_bytes(b"digits")
    study = build_study(load_experiment("smoke", []), identity, {})
    options = argparse.Namespace(data=objects.address("theirs"), address=address)
    return _published_data(study, Store(out), tmp_path / "converted", options)


def test_what_a_read_only_bucket_lacks_goes_to_the_output_folder(
    objects: Objects, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = published(objects, objects.address("out"), tmp_path, "auto")
    assert where == objects.address("out/data")
    said = capsys.readouterr().out
    assert "theirs" in said and "AccessDenied" in said and f"what it lacks goes to {where}" in said
    assert (fetched(where, ["digits"]) / "arrow/digits-train.arrow").read_bytes() == b"digits"


def test_jobs_of_this_machine_read_the_copy_here(objects: Objects, tmp_path: Path) -> None:
    assert published(objects, str(tmp_path / "out"), tmp_path, None) == str(tmp_path / "converted")


def test_other_machines_would_lack_it_and_the_way_round_is_named(
    objects: Objects, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="name an --out on an object store, where it goes then"):
        published(objects, str(tmp_path / "out"), tmp_path, "auto")


def test_a_read_only_folder_has_a_way_round_that_works(tmp_path: Path) -> None:
    theirs = tmp_path / "their data"
    (theirs / "cifar-10").mkdir(parents=True)
    (theirs / "cifar-10" / "batch").write_text("raw")
    (theirs / "arrow").write_text("")  # root may write anywhere, but not below a file
    path, columns = Path("arrow/a-train.arrow"), {"x": pa.array([1, 2], pa.int64())}
    with pytest.raises(InputError, match="is read only, make a folder of links") as refused:
        write_split(theirs / path, columns, ABOUT)
    command = str(refused.value).partition("name it with --data: ")[2]
    subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True)
    mine = tmp_path / "mine"
    assert (mine / "cifar-10" / "batch").read_text() == "raw"
    write_split(mine / path, columns, ABOUT)
    assert read_split(mine / path, form="x", identity="y", verify=True).rows == 2
    assert (theirs / "arrow").read_text() == "", "their folder is as it was"
