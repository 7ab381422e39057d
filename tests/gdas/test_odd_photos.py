"""Photos in odd folders: names that are not UTF-8, files of labels for training, too few photos."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gdas.data.layouts import find_photos
from gdas.data.shard_index import read_index
from gdas.data.shards import main
from gdas.data.table_layouts import tables
from gdas.errors import InputError
from gdas.files import as_text, write_text
from tests.gdas.layouts import CLASSES, folders, labels_csv, photos_of, picture, put

LATIN = os.fsdecode(b"p\xe4st")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folders(tmp_path / "source")
    return tmp_path / "source"


def said(capsys: pytest.CaptureFixture[str], code: int, *words: object) -> str:
    assert main([*map(str, words), "--workers", "1"]) == code
    return capsys.readouterr().err


def test_names_become_text_without_loss(tmp_path: Path) -> None:
    """No two names become one, and names in UTF-8 stay as they are."""
    assert as_text(LATIN) == r"p\xe4st" and as_text("a \\b ü \\x41") == "a \\b ü \\x41"
    names = [LATIN, r"p\xe4st", r"p\x5cxe4st", r"p\x5cx5cxe4st", "p\\" + LATIN[1:], r"p\\xe4st"]
    assert len({as_text(name) for name in names}) == len(names)
    assert as_text("\ud800").encode() == b"\\ud800"
    write_text(tmp_path / "x", LATIN)
    assert (tmp_path / "x").read_text(encoding="utf-8") == r"p\xe4st"


def test_a_class_whose_name_is_not_utf_8_is_converted_and_written_as_text(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        (source / split / CLASSES[2]).rename(source / split / LATIN)
    assert r"1 class has no scored photo and is in no accuracy: p\xe4st" in said(
        capsys, 0, emptied(source, LATIN), tmp_path / "mine"
    )
    index = read_index(tmp_path / "mine")
    assert index.classes == (*CLASSES[:2], r"p\xe4st")
    names = pq.read_table(index.splits["train"].shards[0].path)["name"].to_pylist()
    assert sum(name.startswith(r"p\xe4st/") for name in names) == 4
    about = json.loads((tmp_path / "mine" / "index.json").read_text())
    about["classes"][2] = LATIN  # as versions before this one wrote it
    (tmp_path / "mine" / "index.json").write_text(json.dumps(about))
    assert "there already" in said(capsys, 0, source, tmp_path / "mine")


def test_a_path_that_arrow_cannot_open_is_refused_before_photos_are_converted_to_it(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = said(capsys, 2, source, tmp_path / LATIN / "mine")
    assert r"p\xe4st/mine: the path is not UTF-8" in told and not (tmp_path / LATIN).exists()
    put(tmp_path / LATIN / "train.parquet", b"")
    assert "the path is not UTF-8" in said(capsys, 2, put_test(tmp_path / LATIN), tmp_path / "mine")


def emptied(source: Path, name: str) -> Path:
    shutil.rmtree(source / "val" / name)
    return source


def test_classes_with_too_few_photos_are_counted_and_named(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(3):
        put(source / "train" / f"single{i}" / "1.png", picture(i, 50))
        put(source / "val" / f"single{i}" / "2.png", picture(i, 60))
    put(source / "train" / "single0" / "1.png", b"damaged")
    told = said(capsys, 0, emptied(source, CLASSES[1]), tmp_path / "mine", "--damaged-limit", "1")
    assert told.splitlines()[-3:] == [
        "note: 1 class has no training photo and is never learned: single0",
        "note: 2 classes have a single training photo and are hardly learned: single1, single2",
        f"note: 1 class has no scored photo and is in no accuracy: {CLASSES[1]}",
    ]


def test_one_class_alone_is_refused_before_anything_is_converted(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        for name in CLASSES[1:]:
            shutil.rmtree(source / split / name)
    assert f"has one class, {CLASSES[0]} (" in said(capsys, 2, source, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("name", ["my pets", "päts", "-x", ".x", "a,b"])
def test_a_name_that_every_experiment_refuses_is_refused_at_once(
    source: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = said(capsys, 2, source, tmp_path / name)
    assert "must be a plain folder name (letters a to z in either case, digits" in told
    assert told.count("\n") == 1 and not (tmp_path / name).exists()


def test_training_photos_may_have_a_file_of_labels(source: Path) -> None:
    plain = find_photos(source)
    shutil.rmtree(source)
    labels_csv(source)
    shutil.rmtree(source / "train")
    rows = {}
    for photo, content in photos_of("train").items():
        name, file = photo.split("/")
        put(source / "train" / "images" / file, content)  # a folder, but none of a class
        rows[file] = name
    lines = ["file,class", "gone.jpg,n01440764", *(f"{file},{name}" for file, name in rows.items())]
    for where in (source / "train" / "labels.csv", source / "train.csv"):
        put(where, "\n".join(lines))
        found = find_photos(source)
        assert f"train/ flat, labels in {where.name}, val/ flat" in found.layout
        assert found.classes == plain.classes
        assert sorted(p.label for p in found.photos["train"]) == [0] * 4 + [1] * 4 + [2] * 4
        assert [p[3] for p in found.photos["train"]] == [p[3] for p in plain.photos["train"]]
        missing = {kind: count for kind, count in found.left_out.items() if "without" in kind}
        assert missing == {f"lines of {where.name} without their photo, such as gone.jpg": 1}
        where.unlink()
    put(source / "train" / "labels.csv", "\n".join(f"{file}," for file in rows))
    with pytest.raises(InputError, match=r"n01440764_0\.JPEG has no class; a line a photo"):
        find_photos(source)


def in_images(source: Path) -> None:
    shutil.rmtree(source)
    put(source / "images" / "1.jpg", b"")
    put(source / "labels.csv", "1.jpg,cat,train")


def in_nothing(source: Path) -> None:
    shutil.rmtree(source)
    put(source / "1.jpg", b"")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (in_images, "lie together in .*/images, and a file of labels is read for one split: move"),
        (in_nothing, "nothing says of which class each is: move each to .*source/train/CLASS/ or"),
    ],
)
def test_photos_that_lie_together_are_not_called_folders_of_classes(
    source: Path, change: Callable[[Path], None], told: str
) -> None:
    change(source)
    with pytest.raises(InputError, match=told) as refused:
        find_photos(source)
    assert "move these folders" not in str(refused.value)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"image": [b"x"], "label": [1.0]}, "column label is float64; save it as whole numbers"),
        (
            {"image": [b"x"], "label": [1.0], "id": [7]},
            "column label is float64; save it as whole numbers",
        ),
        ({"image": [b"x"], "label": [[0, 1]]}, "column label is list<.*int64>; save it as"),
        ({"image": ["http://x/1.jpg"], "label": [1]}, "column image holds text, not bytes; put"),
        ({"image": [[1, 2]], "label": [1]}, "column image is list<.*int64>, not bytes; put"),
    ],
)
def test_a_column_of_the_right_name_and_the_wrong_type_is_named(
    tmp_path: Path, columns: dict[str, Sequence[Any]], told: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    with pytest.raises(InputError, match=told):
        tables(put_test(tmp_path), ["test"])


def put_test(folder: Path) -> Path:
    shutil.copy(folder / "train.parquet", folder / "test.parquet")
    return folder


def test_paths_beside_bytes_do_no_harm(tmp_path: Path) -> None:
    """One column of bytes is clear, whatever `image` holds; class names may be anything."""
    features = {"label": {"names": ["a", "\ud800"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": ["1.jpg", "2.jpg"], "data": [b"x", b"y"], "label": [0, 1]})
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "train.parquet")
    found = tables(put_test(tmp_path), ["test"])
    assert found is not None and "columns data, label" in found.layout
    assert [photo.name for photo in found.photos["train"]][1].startswith("\\ud800/train.parquet")
