"""Photos as people have them: every layout becomes the same data set, or is refused in one line."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gdas.data.photo_places
from gdas.data.layouts import Found, find_photos
from gdas.data.photo_places import PhotoReader, Row, arrow_batches
from gdas.data.shards import convert, main
from gdas.errors import InputError
from tests.gdas.photo_folder import encode

CLASSES = ("n01440764", "n02084071", "n03444034")
TRAIN, VAL = 4, 2


def picture(label: int, number: int) -> bytes:
    """A small photo; no two are alike."""
    pixels = np.add.outer(np.arange(9) * 9, np.arange(9)).astype(np.uint8)[..., None]
    return encode(pixels.repeat(3, -1) + np.uint8(20 * label + number), "PNG")


def photos_of(split: str) -> dict[str, bytes]:
    """CLASS/FILE to the photo."""
    count, first = (TRAIN, 0) if split == "train" else (VAL, 10)
    return {
        f"{name}/{name}_{i}.JPEG" if split == "train" else f"{name}/val_{label}{i}.JPEG": picture(
            label, first + i
        )
        for label, name in enumerate(CLASSES)
        for i in range(count)
    }


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def flat_val(folder: Path) -> dict[str, str]:
    """Photos of val without folders; returns file to class."""
    labels = {}
    for name, content in photos_of("val").items():
        put(folder / Path(name).name, content)
        labels[Path(name).name] = name.split("/")[0]
    return labels


def folders(root: Path, val: str = "val") -> None:
    for split, name in (("train", "train"), ("val", val)):
        for photo, content in photos_of(split).items():
            put(root / name / photo, content)


def kaggle(root: Path) -> None:
    base = root / "ILSVRC" / "Data" / "CLS-LOC"
    for photo, content in photos_of("train").items():
        put(base / "train" / photo, content)
    labels = flat_val(base / "val")
    put(base / "test" / "test_1.JPEG", picture(0, 99))
    rows = [f"{Path(file).stem},{name} 1 2 3 4 {name} 5 6 7 8 " for file, name in labels.items()]
    put(root / "LOC_val_solution.csv", "ImageId,PredictionString\r\n" + "\r\n".join(rows) + "\r\n")


def annotated(root: Path) -> None:
    """As tiny-imagenet: images/ inside every class, a flat val/images, an annotations file."""
    for photo, content in photos_of("train").items():
        name, file = photo.split("/")
        put(root / "train" / name / "images" / file, content)
        put(root / "train" / name / f"{name}_boxes.txt", "0 1 2 3")
    labels = flat_val(root / "val" / "images")
    put(
        root / "val" / "val_annotations.txt",
        "".join(f"{file}\t{name}\t0\t32\t44\t62\n" for file, name in labels.items()),
    )
    put(root / "test" / "images" / "test_0.JPEG", picture(0, 99))
    put(root / "wnids.txt", "\n".join(CLASSES))


def labels_csv(root: Path) -> None:
    for photo, content in photos_of("train").items():
        put(root / "train" / photo, content)
    labels = flat_val(root / "val")
    put(root / "val" / "labels.csv", "".join(f"{f};{n}\n" for f, n in labels.items()))


def imagenet_tars(root: Path) -> None:
    inner: dict[str, dict[str, bytes]] = {}
    for photo, content in photos_of("train").items():
        name, file = photo.split("/")
        inner.setdefault(f"{name}.tar", {})[file] = content
    put(
        root / "ILSVRC2012_img_train.tar",
        tar_of({name: tar_of(files) for name, files in inner.items()}),
    )
    val = {Path(name).name: content for name, content in photos_of("val").items()}
    put(root / "ILSVRC2012_img_val.tar", tar_of(val))


def devkit(root: Path, order: tuple[int, ...] = (3, 3, 1, 1, 2, 2)) -> bytes:
    """The development kit with classes numbered otherwise than sorted, and a class above them."""
    from scipy.io import savemat

    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8")]
    rows = [(1, CLASSES[1], "dog", 0), (2, CLASSES[2], "ball", 0), (3, CLASSES[0], "tench", 0)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array([*rows, (4, "n00001740", "entity", 3)], kinds)})
    numbers = "".join(f"{number}\n" for number in order).encode()
    base = "ILSVRC2012_devkit_t12/data"
    kit = tar_of(
        {
            f"{base}/meta.mat": meta.getvalue(),
            f"{base}/ILSVRC2012_validation_ground_truth.txt": numbers,
        }
    )
    put(root / "ILSVRC2012_devkit_t12.tar.gz", kit)
    return kit


def tars_and_devkit(root: Path) -> None:
    imagenet_tars(root)
    devkit(root)


def tars_and_csv(root: Path) -> None:
    imagenet_tars(root)
    rows = [f"{Path(n).stem},{n.split('/')[0]} 1 2 3 4" for n in photos_of("val")]
    put(root / "LOC_val_solution.csv", "\n".join(["ImageId,PredictionString", *rows]))


def web_dataset(root: Path, number: bool = False) -> None:
    for split, name in (("train", "imagenet1k-train"), ("val", "imagenet1k-validation")):
        listed = list(photos_of(split).items())
        for shard in range(2):
            files = {}
            for photo, content in listed[shard::2]:
                label, file = photo.split("/")
                key = f"{label}_{Path(file).stem}"
                files[f"{key}.jpg"] = content
                files[f"{key}.cls"] = (str(CLASSES.index(label)) if number else label).encode()
                files[f"{key}.json"] = b"{}"
            put(root / f"{name}-{shard:04d}.tar", tar_of(files))


def table(split: str, part: slice, names: bool = True) -> pa.Table:
    listed = list(photos_of(split).items())[part]
    columns = {
        "image": pa.array(
            [{"bytes": content, "path": Path(name).name} for name, content in listed],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ),
        "label": pa.array([CLASSES.index(name.split("/")[0]) for name, _ in listed], pa.int64()),
    }
    features = {"label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})} if names else {}
    return pa.table(columns).replace_schema_metadata(about)


def parquet(root: Path, names: bool = True) -> None:
    (root / "data").mkdir()
    for i in range(2):
        path = root / "data" / f"train-{i:05d}-of-00002.parquet"
        pq.write_table(table("train", slice(i, None, 2), names), path, row_group_size=2)
    pq.write_table(
        table("val", slice(None), names), root / "data" / "validation-00000-of-00001.parquet"
    )


def arrow(root: Path) -> None:
    for split, name in (("train", "train"), ("val", "test")):
        (root / name).mkdir()
        whole = table(split, slice(None))
        path = str(root / name / "data-00000-of-00001.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, whole.schema) as writer:
            writer.write_table(whole, max_chunksize=3)
        put(root / name / "state.json", "{}")


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


LAYOUTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "ImageFolder": (folders, "an ImageFolder (train/, val/)"),
    "valid": (lambda root: folders(root, "valid"), "(train/, valid/)"),
    "test": (lambda root: folders(root, "test"), "(train/, test/)"),
    "Kaggle": (kaggle, "Kaggle's ImageNet (train/, val/ flat, labels in LOC_val_solution.csv)"),
    "annotations": (annotated, "labels in val_annotations.txt"),
    "labels.csv": (labels_csv, "labels in labels.csv"),
    "ImageNet's tars": (tars_and_devkit, "labels in ILSVRC2012_devkit_t12)"),
    "ImageNet's tars, Kaggle's labels": (tars_and_csv, "labels in LOC_val_solution.csv)"),
    "WebDataset": (web_dataset, "WebDataset, 4 tars (train, validation)"),
    "WebDataset of numbers": (lambda root: web_dataset(root, number=True), "WebDataset"),
    "Parquet": (parquet, "Parquet, 3 files (train, validation; columns image, label)"),
    "Parquet without names": (lambda root: parquet(root, names=False), "Parquet"),
    "Arrow": (arrow, "Arrow, 2 files (train, test; columns image, label)"),
}


def source(tmp_path: Path, case: str) -> Path:
    root = tmp_path / "source"
    root.mkdir()
    LAYOUTS[case][0](root)
    return root


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
