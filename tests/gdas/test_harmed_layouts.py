"""Photos in archives, tables and files of labels with any byte changed: read whole or refused."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gdas.data.layouts import find_photos
from gdas.data.photo_places import PhotoReader
from gdas.data.shards import convert
from gdas.errors import InputError
from tests.gdas.layouts import (
    CLASSES,
    labels_csv,
    picture,
    put,
    source,
    tar_of,
)


def test_names_in_archives_are_words_and_never_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "source"
    evil = ("../../evil/x.jpg", "/etc/evil.jpg", "a/../../../b.jpg")
    for split in ("train", "val"):
        files = {}
        for i, name in enumerate(evil):
            files[name] = picture(i, 1)
            files[name.replace(".jpg", ".cls")] = b"../../out" if i else b"/etc"
        put(root / f"{split}-0.tar", tar_of(files))
        with tarfile.open(root / f"{split}-0.tar", "a") as tar:
            link = tarfile.TarInfo("link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    before = set(tmp_path.rglob("*"))
    index = convert(root, tmp_path / "target", shard_rows=5)
    assert index.splits["train"].photos == len(evil)
    new = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(tmp_path / "target") for path in new)


@pytest.fixture(scope="module")
def small_tar() -> bytes:
    return tar_of({"a.jpg": picture(0, 0), "a.cls": b"0", "b.jpg": picture(1, 1), "b.cls": b"1"})


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_tar_with_any_byte_changed_or_cut_off_is_read_whole_or_refused(
    small_tar: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(small_tar) - 1))
    harmed = bytearray(small_tar)
    if data.draw(st.booleans()):
        harmed[place] ^= data.draw(st.integers(1, 255))
    else:
        del harmed[place:]
    root = tmp_path / "source"
    put(root / "val-0.tar", small_tar)
    put(root / "train-0.tar", bytes(harmed))
    try:
        found = find_photos(root)
    except InputError as problem:
        assert "\n" not in str(problem)
        return
    reader = PhotoReader()
    assert all(len(reader.read(photo)) == photo.bytes for photo in found.photos["train"])
    if len(harmed) < len(small_tar):  # only what closes the tar may be missing
        assert len(found.photos["train"]) == 2


@pytest.mark.parametrize("kind", ["Parquet", "Arrow"])
def test_a_table_with_any_byte_changed_or_cut_off_is_read_or_refused(
    kind: str, tmp_path: Path
) -> None:
    root = source(tmp_path, kind)
    path = next(p for p in sorted(root.rglob("*train*/*.arrow" if kind == "Arrow" else "*train*")))
    path = path if path.is_file() else next(path.glob("*.arrow"))
    whole = path.read_bytes()

    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, len(whole) - 1), st.integers(1, 255), st.booleans())
    def harmed(place: int, change: int, cut: bool) -> None:
        content = bytearray(whole)
        if cut:
            del content[place:]
        else:
            content[place] ^= change
        path.unlink()  # the mapping of the one before stays whole
        path.write_bytes(bytes(content))
        reader = PhotoReader()
        try:
            for photo in find_photos(root).photos["train"]:
                assert isinstance(reader.read(photo), bytes)
        except InputError as problem:
            assert "\n" not in str(problem)

    harmed()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_file_of_labels_is_used_or_refused(tmp_path: Path, content: bytes) -> None:
    root = tmp_path / "source"
    if not root.exists():
        root.mkdir()
        labels_csv(root)
    put(root / "val" / "labels.csv", content + b"\nval_00.JPEG," + CLASSES[0].encode())
    try:
        found = find_photos(root)
    except InputError as problem:
        assert "\n" not in str(problem)
        return
    assert {photo.label for photo in found.photos["test"]} <= {0, 1, 2}
