"""Photos as people have them: every layout becomes the same data set, or is refused in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gdas.data.photo_places
from gdas.data.layouts import Found, find_photos
from gdas.data.photo_places import PhotoReader, Row, arrow_batches
from gdas.data.shards import convert, main
from gdas.errors import InputError
from tests.gdas.layouts import (
    CLASSES,
    LAYOUTS,
    TRAIN,
    devkit,
    photos_of,
    picture,
    put,
    source,
    table,
    tar_of,
)
from tests.gdas.photo_folder import encode


def test_an_arrow_stream_that_was_cut_between_two_batches_is_refused(tmp_path: Path) -> None:
    """Arrow reads it as a whole, shorter one."""
    path, whole = tmp_path / "cut.arrow", table("train", slice(None))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole, max_chunksize=3)
        end = sink.tell()
    batches = len(arrow_batches(str(path)))
    path.write_bytes(path.read_bytes()[:end])
    assert len(list(pa.ipc.open_stream(path.read_bytes()))) == batches > 1
    with pytest.raises(pa.ArrowInvalid, match="without the mark of its end"):
        arrow_batches(str(path))


def contents(found: Found, split: Any) -> set[tuple[int, bytes]]:
    reader = PhotoReader()
    return {(photo.label, reader.read(photo)) for photo in found.photos[split]}


def expected(split: str) -> set[tuple[int, bytes]]:
    return {(CLASSES.index(n.split("/")[0]), content) for n, content in photos_of(split).items()}


@pytest.mark.parametrize("case", LAYOUTS)
def test_the_command_says_which_layout_it_is_and_takes_every_photo_with_its_class(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = source(tmp_path, case)
    found = find_photos(root)
    assert contents(found, "train") == expected("train")
    assert contents(found, "test") == expected("val")
    numbers = "numbers" in case or "without names" in case
    assert tuple(found.classes) == (("0", "1", "2") if numbers else CLASSES)
    target = tmp_path / "data" / "own"
    assert main([str(root), str(target), "--rows", "5", "--group-rows", "2", "--workers", "2"]) == 0
    errors = capsys.readouterr().err
    assert LAYOUTS[case][1] in errors.splitlines()[0]
    assert "3 classes; 12 in train (0 damaged left out), 6 in val" in errors.splitlines()[-1]
    names = [row for shard in sorted(target.glob("train/*")) for row in labels_in(shard)]
    assert sorted(names) == sorted([0, 1, 2] * TRAIN) and names != sorted(names), "shuffled"
    # The same command finds everything done.
    again = convert(root, target, shard_rows=5, group_rows=2)
    assert (again.splits["train"].photos, again.splits["test"].photos) == (12, 6)


def labels_in(shard: Path) -> list[int]:
    return list(pq.read_table(shard, columns=["label"])["label"].to_pylist())


def test_labels_follow_folders_as_text_and_numbers_in_files_by_value(tmp_path: Path) -> None:
    for split in ("train", "val"):
        photos = {name: picture(i, len(split)) for i, name in enumerate(("1", "2", "10"))}
        for name, photo in photos.items():
            put(tmp_path / "folders" / split / name / "photo.png", photo)
        samples = {f"{n}.png": photo for n, photo in photos.items()}
        words = {f"{name}.cls": name.encode() for name in photos}
        tar = tar_of(dict(sorted((samples | words).items())))
        put(tmp_path / "web" / f"{split}-0000.tar", tar)
    assert list(find_photos(tmp_path / "folders").classes) == ["1", "10", "2"]
    assert list(find_photos(tmp_path / "web").classes) == ["1", "2", "10"]


def test_imagenet_becomes_the_same_shards_from_folders_kaggle_and_its_tars(tmp_path: Path) -> None:
    found = set()
    for case in ("ImageFolder", "Kaggle", "ImageNet's tars", "ImageNet's tars, Kaggle's labels"):
        place = tmp_path / case
        place.mkdir()
        index = convert(source(place, case), place / "target", shard_rows=5, group_rows=2)
        found.add((index.plan, index.identity("train"), index.identity("test")))
    assert len(found) == 1


def test_rows_of_a_table_become_the_same_shards_by_any_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = gdas.data.photo_places._images
    root = source(tmp_path, "Parquet")
    first = convert(root, tmp_path / "a", shard_rows=5, group_rows=2)
    read: list[Row] = []

    def noted(place: Row) -> Any:
        read.append(place)
        return images(place)

    monkeypatch.setattr(gdas.data.photo_places, "_images", noted)
    second = convert(root, tmp_path / "b", shard_rows=5, group_rows=2, workers=3)
    assert first.identity("train") == second.identity("train")
    assert len(read) == 7, "every row group once: twice three of training, one of validation"


def test_what_is_left_out_is_counted_by_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = source(tmp_path, "ImageFolder")
    of_class = root / "train" / CLASSES[0]
    put(of_class / "x.jfif", picture(0, 50))
    put(of_class / "README", "no photo")
    put(of_class / ".ipynb_checkpoints" / "copy.png", picture(0, 51))
    put(of_class / "._x.jpg", "left by a system")
    put(root / "train" / "loose.png", picture(0, 52))
    put(root / "test" / "0.png", picture(0, 53))
    put(root / "val" / ".thumbs" / "x.png", picture(0, 54))
    flat = np.full((9, 9, 3), 7, np.uint8)
    put(of_class / "flat.png", encode(flat, "PNG"))
    put(root / "val" / CLASSES[1] / "torn.jpg", b"torn")
    target = tmp_path / "own"
    assert main([str(root), str(target), "--damaged-limit", "1"]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert "13 in train (0 damaged left out), 6 in val (1 damaged left out)" in last
    assert f"1 of almost one colour, such as train/{CLASSES[0]}/flat.png" in last
    for part in (
        "1 .jfif",
        "1 files without an ending",
        "3 photos whose name or folder begins with a dot",
        "1 photos of no class's folder",
        "1 photos in test/ (val/ is scored)",
    ):
        assert part in last
    # All of it again where nothing is left to do.
    assert main([str(root), str(target), "--damaged-limit", "1"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == last


def test_the_scored_split_can_be_chosen(tmp_path: Path) -> None:
    root = source(tmp_path, "ImageFolder")
    for photo, content in photos_of("val").items():
        put(root / "test" / photo.replace("val_", "test_"), content)
    assert "val/" in find_photos(root).layout
    found = find_photos(root, held_out="test")
    assert "test/" in found.layout and "photos in val/" not in found.left_out
    assert {Path(photo.name).name[:5] for photo in found.photos["test"]} == {"test_"}


def move_val_labels(root: Path) -> None:
    (root / "val" / "labels.csv").unlink()


def flatten_train(root: Path) -> None:
    shutil.rmtree(root / "train")
    put(root / "train" / "x.png", picture(0, 0))


def take_labels_out(root: Path) -> None:
    for i in (0, 1):
        put(root / f"imagenet1k-validation-000{i}.tar", tar_of({"a.jpg": b""}))


def compress_train(root: Path) -> None:
    (root / "imagenet1k-train-0000.tar").rename(root / "train-0.tar.gz")
    put(root / "train-0.tar.gz", b"\x1f\x8b" + b"x" * 600)


def convert_in_place(root: Path) -> None:
    convert(root, root.parent / "done")
    shutil.rmtree(root)
    (root.parent / "done").rename(root)


def pack_train(root: Path) -> None:
    shutil.rmtree(root / "train")
    put(root / "train.zip", b"PK")


REFUSED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "flat without labels": (
        "labels.csv",
        move_val_labels,
        r"val: 6 photos without a class: .*labels\.csv, a line a photo",
    ),
    "labels of an unknown class": (
        "labels.csv",
        lambda root: put(root / "val" / "labels.csv", "val_00.JPEG,hen\n"),
        r"labels\.csv: val_00\.JPEG is of class 'hen', of which train has no folder",
    ),
    "labels that contradict": (
        "labels.csv",
        lambda root: put(
            root / "val" / "labels.csv",
            f"val_00.JPEG,{CLASSES[0]}\nval_00.JPEG,{CLASSES[1]}\n",
        ),
        "of two classes",
    ),
    "flat train": (
        "ImageFolder",
        flatten_train,
        r"train: no folders of classes \(1 photos lie in train/ itself\)",
    ),
    "a class of endings that nobody reads": (
        "ImageFolder",
        lambda root: put(root / "train" / "hen" / "x.jfif", b"x"),
        r"hen: no photos .*but 1 \.jfif",
    ),
    "tars without labels": (
        "ImageNet's tars",
        lambda root: (root / "ILSVRC2012_devkit_t12.tar.gz").unlink(),
        r"which class its photos are; put ILSVRC2012_devkit_t12\.tar\.gz",
    ),
    "a kit of other photos": (
        "ImageNet's tars",
        lambda root: devkit(root, (1, 2)),
        "has labels of 2 photos, and there are 6",
    ),
    "a kit that is none": (
        "ImageNet's tars",
        lambda root: put(root / "ILSVRC2012_devkit_t12.tar.gz", tar_of({"x/meta.mat": b"x"})),
        "has no ILSVRC2012_validation_ground_truth",
    ),
    "no tar of val": (
        "ImageNet's tars",
        lambda root: (root / "ILSVRC2012_img_val.tar").unlink(),
        "img_val.tar: missing",
    ),
    "tars of no split": (
        "WebDataset",
        lambda root: [p.rename(root / f"{i}.tar") for i, p in enumerate(sorted(root.glob("*")))],
        "no name says that one is of train",
    ),
    "tars without labels inside": (
        "WebDataset",
        take_labels_out,
        "no photo with a label",
    ),
    "a class of the scored tars alone": (
        "WebDataset",
        lambda root: put(
            root / "imagenet1k-validation-0000.tar", tar_of({"a.jpg": b"", "a.cls": b"hen"})
        ),
        "class hen: train has no such class",
    ),
    "a compressed tar": (
        "WebDataset",
        compress_train,
        "not a whole, uncompressed tar",
    ),
    "other columns": (
        "Parquet",
        lambda root: pq.write_table(
            pa.table({"a": [b"x"], "b": [b"y"], "label": [0]}),
            root / "data" / "train-00000-of-00002.parquet",
        ),
        "not clear which column holds photos",
    ),
    "a label beyond the names": (
        "Parquet",
        lambda root: pq.write_table(
            table("val", slice(None)).set_column(1, "label", pa.array([7] * 6, pa.int64())),
            root / "data" / "validation-00000-of-00001.parquet",
        ),
        "label 7: train has no such class",
    ),
    "a Parquet file cut off": (
        "Parquet",
        lambda root: put(root / "data" / "train-00001-of-00002.parquet", b"PAR1xxxx"),
        "train-00001-of-00002.parquet: damaged",
    ),
    "converted already": (
        "ImageFolder",
        convert_in_place,
        "is converted already",
    ),
    "an archive": (
        "ImageFolder",
        pack_train,
        r"no folder train.*it holds train\.zip, val.*unpack the archive",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_fits_no_layout_is_refused_in_one_line(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, harm, says = REFUSED[case]
    root = source(tmp_path, layout)
    harm(root)
    with pytest.raises(InputError, match=says) as caught:
        find_photos(root)
    assert "\n" not in str(caught.value)
    assert main([str(root), str(tmp_path / "target")]) == 2
    assert capsys.readouterr().err == f"error: {caught.value}\n"
    assert not (tmp_path / "target").exists()
