"""Files that the library reads and does not trust: refused in one line, and nothing changes.

Every reader gets the files below harmed at random, and hostile ones made by hand.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gdas.checkpoint
from gdas.checkpoint import MANIFEST, STATE, Segment, digest, load, newest, save
from gdas.cnn.genotype import PUBLISHED
from gdas.data.arrow import read_images, write_images
from gdas.data.images import open_images
from gdas.data.photos import Photos
from gdas.data.shard_index import INDEX, read_index
from gdas.data.source import Wanted
from gdas.data.text import read_tokens, write_tokens
from gdas.errors import InputError
from gdas.files import sha256_of
from gdas.genotype import load as load_genotype
from gdas.rnn.genotype import PUBLISHED_RECURRENT
from tests.gdas.photo_folder import DATA, convert_tiny, make_folder
from tests.harm import RunsCode, files, harmed, no_code_runs, read_harmed, tries


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("harmed")


# Checkpoints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two checkpoints."""
    root = tmp_path_factory.mktemp("checkpoints")
    for position in (1, 2):
        state = {"weights": {"w": torch.arange(8.0) * position}, "epoch": position, "tau": 0.5}
        segment = Segment(position, 3, {"loss": 0.5}, state=state)
        records = [{"position": p, "metrics": {"loss": 0.5}} for p in range(1, position + 1)]
        save(root, segment, records)
    return root


@pytest.mark.parametrize("file", [STATE, MANIFEST])
def test_a_harmed_checkpoint_is_refused_or_whole(checkpoint: Path, file: str) -> None:
    path = checkpoint / "000002" / file
    whole = path.read_bytes()
    expected = load(path.parent)

    @tries
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        content = data.draw(harmed(whole))
        found: Any = read_harmed(path, content, lambda: load(path.parent), ValueError)
        if found is not None:
            assert digest(found.state) == expected.digest == found.digest
            assert found.records == expected.records
        before, lines = newest(checkpoint)
        assert before is not None and before.position == (1 if found is None else 2)
        assert len(lines) == (found is None)
        path.write_bytes(whole)

    attempt()


def commit(target: Path, state: bytes, position: int = 1) -> Path:
    """A checkpoint of any bytes whose checksums all fit, as an attacker would make it."""
    target.mkdir(parents=True)
    (target / STATE).write_bytes(state)
    manifest: dict[str, Any] = {
        "position": position,
        "sha256": sha256_of(target / STATE),
        "digest": "0",
        "records": [],
    }
    manifest["check"] = gdas.checkpoint._check(manifest)
    (target / MANIFEST).write_text(json.dumps(manifest))
    return target


def torch_file(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def declared_size(size: int) -> bytes:
    """A saved tensor that says that it is larger than it is."""
    source = zipfile.ZipFile(io.BytesIO(torch_file({"w": torch.zeros(7)})))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                content = content.replace(b"K\x07", b"\x8a\x06" + size.to_bytes(6, "little"))
            out.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "state",
    [
        torch_file({"w": RunsCode()}),
        pickle.dumps({"w": RunsCode()}),
        b"cos\nsystem\n(S'true'\ntR.",
        torch_file([1, 2]),
        declared_size(1 << 40),
        b"",
    ],
    ids=["code", "plain pickle", "protocol 0", "a list", "a huge tensor", "empty"],
)
def test_a_hostile_checkpoint_runs_nothing_and_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: bytes
) -> None:
    ran = no_code_runs(monkeypatch)
    target = commit(tmp_path / "000001", state)
    before = files(tmp_path)
    found, lines = newest(tmp_path)
    assert found is None and len(lines) == 1 and str(target) in lines[0]
    assert ran == [] and files(tmp_path) == before


@pytest.mark.parametrize("position", [2, -1, "../1", 1.0, None])
def test_a_checkpoint_under_another_position_is_passed_over(
    tmp_path: Path, position: object
) -> None:
    commit(tmp_path / "000001", torch_file({}), position)  # type: ignore[arg-type]
    found, lines = newest(tmp_path)
    assert found is None and "of position" in lines[0]


# Genotypes


@pytest.mark.parametrize("name", ["GDAS_V1", "RNN_GDAS"])
def test_a_harmed_genotype_is_refused_or_a_cell(folder: Path, name: str) -> None:
    path = folder / "cell.json"
    cell = (PUBLISHED | PUBLISHED_RECURRENT)[name]
    whole = json.dumps(cell.to_json()).encode()

    @tries
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        found: Any = read_harmed(
            path, data.draw(harmed(whole)), lambda: load_genotype(path), InputError
        )
        assert found is None or type(found) is type(cell)

    attempt()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def test_any_json_in_a_genotypes_place_is_refused(folder: Path) -> None:
    path = folder / "cell.json"
    whole = PUBLISHED["GDAS_V1"].to_json()

    @settings(tries, max_examples=60)
    @given(st.sampled_from(sorted(whole)), JSON)
    def attempt(key: str, value: object) -> None:
        content = json.dumps(whole | {key: value}).encode()
        read_harmed(path, content, lambda: load_genotype(path), InputError)

    attempt()


def test_a_genotype_nested_beyond_reading_is_refused(folder: Path) -> None:
    path = folder / "cell.json"
    content = b"[" * 100_000
    assert read_harmed(path, content, lambda: load_genotype(path), InputError) is None


# Arrow


def test_a_harmed_image_file_is_refused_or_whole(folder: Path) -> None:
    path = folder / "images.arrow"
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), np.uint8)
    labels = np.arange(5)
    write_images(path, pixels, labels, classes=5, identity="x")
    whole = path.read_bytes()

    @tries
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        found: Any = read_harmed(
            path,
            data.draw(harmed(whole)),
            lambda: read_images(path, identity="x", verify=True),
            InputError,
        )
        if found is not None:
            assert (found.images_NCHW.numpy() == pixels).all()
            assert (found.labels_N.numpy() == labels).all()

    attempt()


def test_a_harmed_token_file_is_refused_or_whole(folder: Path) -> None:
    path = folder / "tokens.arrow"
    ids = np.arange(40, dtype=np.int32) % 7
    write_tokens(path, ids, vocabulary=7, identity="x")
    whole = path.read_bytes()

    @tries
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        found: Any = read_harmed(
            path,
            data.draw(harmed(whole)),
            lambda: read_tokens(path, identity="x", verify=True),
            InputError,
        )
        assert found is None or (found.ids_N.numpy() == ids).all()

    attempt()


COLUMNS: dict[str, pa.Array] = {
    "text": pa.array(["a", "b"]),
    "a list": pa.array([[1], [2]]),
    "a struct": pa.array([{"a": 1}, {"a": 2}]),
    "null": pa.nulls(2),
    "boolean": pa.array([True, False]),
    "decimal": pa.array([1, 2], pa.decimal128(5)),
    "dictionary": pa.array(["a", "a"]).dictionary_encode(),
    "no rows": pa.array([], pa.int32()),
    "out of range": pa.array([0, 7], pa.int32()),
    "below": pa.array([0, -1], pa.int32()),
}


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("reader", ["images", "tokens"])
def test_an_arrow_file_of_other_columns_is_refused(tmp_path: Path, kind: str, reader: str) -> None:
    path = tmp_path / "split.arrow"
    form = {"images": "gdas-images/1", "tokens": "gdas-tokens/1"}[reader]
    about = {
        **{"format": form, "identity": "x", "sha256": "0", "shape": "3,4,4", "classes": "5"},
        "vocabulary": "7",
    }
    names = {"images": ("image", "label"), "tokens": ("token",)}[reader]
    table = pa.table(dict.fromkeys(names, COLUMNS[kind])).replace_schema_metadata(about)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    read = {"images": read_images, "tokens": read_tokens}[reader]
    with pytest.raises(InputError, match=r"split\.arrow: "):
        read(path, identity="x", verify=False)


# Photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("photos")
    convert_tiny(make_folder(data / "source", train=1, val=1), data / DATA.name)
    return data


def test_a_harmed_index_is_refused_or_an_index(photos: Path) -> None:
    path = photos / DATA.name / INDEX
    whole = path.read_bytes()

    @tries
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        found: Any = read_harmed(
            path, data.draw(harmed(whole)), lambda: read_index(path.parent), InputError
        )
        if found is not None:  # whatever it says, it names numbered files of its own folder
            for shards in found.splits.values():
                for shard in shards.shards:
                    assert shard.path.parent.parent == path.parent
        path.write_bytes(whole)

    attempt()


def test_any_json_in_an_indexs_place_is_refused(photos: Path) -> None:
    path = photos / DATA.name / INDEX
    whole = path.read_bytes()
    index = json.loads(whole)

    @tries
    @given(st.sampled_from(["plan", "classes", "splits", "train", "shards", "shard"]), JSON)
    def attempt(key: str, value: object) -> None:
        changed = json.loads(whole)
        train = changed["splits"]["train"]
        place = {"train": changed["splits"], "shards": train}.get(key, changed)
        if key == "shard":
            train["shards"][0] = value
        else:
            place[key] = value
        read_harmed(path, json.dumps(changed).encode(), lambda: read_index(path.parent), InputError)
        path.write_bytes(whole)

    assert index["format"] == "gdas-photos/1"
    attempt()


def test_a_harmed_shard_is_refused_by_its_digest_and_by_reading(photos: Path) -> None:
    path = read_index(photos / DATA.name).splits["train"].shards[0].path
    whole = path.read_bytes()
    count = len(open_images(DATA, "train", photos))

    def read() -> object:
        opened = open_images(DATA, "train", photos)
        assert isinstance(opened, Photos)
        return opened.take(Wanted(torch.arange(count), None))

    @tries
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        content = data.draw(harmed(whole))
        verified = read_harmed(
            path, content, lambda: open_images(DATA, "train", photos, verify=True), InputError
        )
        assert verified is None or content == whole
        read_harmed(path, content, read, InputError)
        path.write_bytes(whole)

    attempt()
