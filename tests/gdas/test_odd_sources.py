"""Sources that are almost of a layout, and targets where something of the user's lies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gdas.data.decode import decode
from gdas.data.layouts import find_photos
from gdas.data.shards import main
from gdas.errors import InputError
from tests.gdas.layouts import CLASSES, folders, labels_csv, parquet, put, tar_of


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folders(tmp_path / "source")
    return tmp_path / "source"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([*map(str, arguments), "--workers", "1"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


@pytest.mark.parametrize("where", [".", "train", "val/shards", "Test/x"])
def test_photos_are_never_converted_to_among_themselves(
    source: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shards in train/ would be a class of the next conversion."""
    before = sorted(source.rglob("*"))
    line = refusal(capsys, source, source / where)
    assert "name a folder apart" in line
    assert sorted(source.rglob("*")) == before


def test_tables_of_the_user_are_never_removed_from_a_target(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished conversion removes what an earlier one left behind, and that alone."""
    theirs = tmp_path / "data" / "mine"
    put(theirs / "train" / "train-00000-of-00001.parquet", b"weeks of work")
    line = refusal(capsys, source, theirs)
    assert "holds train/train-00000-of-00001.parquet, which no conversion wrote" in line
    assert (theirs / "train" / "train-00000-of-00001.parquet").read_bytes() == b"weeks of work"
    (tmp_path / "hub").mkdir()
    parquet(tmp_path / "hub")
    for target in ("hub", "hub/new", "hub/data"):  # three folders down they would be found again
        assert "name a folder apart" in refusal(capsys, tmp_path / "hub", tmp_path / target)


def test_a_folder_beside_the_splits_will_do(source: Path) -> None:
    for _ in range(2):
        assert main([str(source), str(source / "shards"), "--workers", "1"]) == 0


def test_training_photos_are_never_the_scored_ones(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, source, tmp_path / "data", "--scored", "train")
    assert "training photos cannot be scored" in line


@pytest.mark.parametrize("place", ["source", "target"])
def test_an_address_is_not_made_a_folder_of_that_name(
    source: Path,
    tmp_path: Path,
    place: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    pair = ("s3://bucket/x", tmp_path / "data") if place == "source" else (source, "s3://bucket/x")
    assert "an address" in refusal(capsys, *pair)
    assert not Path("s3:").exists()


def test_folders_in_capitals_are_found(source: Path) -> None:
    (source / "train").rename(source / "Train")
    (source / "val").rename(source / "TEST")
    found = find_photos(source)
    assert found.layout == "an ImageFolder (Train/, TEST/)"
    assert len(found.photos["test"]) == 6


def in_a_folder(root: Path) -> Path:
    (root.parent / "deep" / "archive").mkdir(parents=True)
    shutil.move(root, root.parent / "deep" / "archive" / "flowers")
    return root.parent / "deep"


def its_train(root: Path) -> Path:
    return root / "train"


def no_splits(root: Path) -> Path:
    shutil.rmtree(root / "val")
    return (root / "train").rename(root.parent / "flowers")


def zipped(root: Path) -> Path:
    shutil.rmtree(root)
    put(root / "flowers.zip", b"PK")
    return root


def without_val(root: Path) -> Path:
    shutil.rmtree(root / "val")
    return root


def flat_train(root: Path) -> Path:
    for name in CLASSES:
        for file in (root / "train" / name).iterdir():
            file.rename(root / "train" / file.name)
        (root / "train" / name).rmdir()
    return root


def class_first(root: Path) -> Path:
    shutil.rmtree(root)
    labels_csv(root)
    rows = [line.split(";") for line in (root / "val" / "labels.csv").read_text().splitlines()]
    put(root / "val" / "labels.csv", "\n".join(f"{row[1]},{row[0]}" for row in rows))
    return root


def a_broken_link(root: Path) -> Path:
    (root / "train" / CLASSES[0] / "gone.jpg").symlink_to("/nowhere.jpg")
    return root


def a_tar_of_folders(root: Path) -> Path:
    shutil.rmtree(root)
    for split in ("train", "val"):
        put(root / f"{split}.tar", tar_of({f"{split}/cat/1.jpg": b"x"}))
    return root


ALMOST: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a folder in a folder": (in_a_folder, "name .*deep/archive/flowers, which has it"),
    "the folder train itself": (its_train, "name .*source, which has it"),
    "classes without splits": (no_splits, "some photos of every class, such as a tenth"),
    "an archive": (zipped, "unpack the archive"),
    "no photos to score": (without_val, "move some of every class, such as a tenth, to val/CLASS"),
    "training photos in no folder": (
        flat_train,
        "the folder of its class, such as train/cat/1.jpg",
    ),
    "a file of labels, the class first": (
        class_first,
        r"labels.csv names none of them in its first column.*such as \S+\.JPEG,n01440764",
    ),
    "a broken link": (a_broken_link, "gone.jpg: cannot read .*remove it, or mend it"),
    "a tar of folders": (a_tar_of_folders, "tar -xf train.tar"),
}


@pytest.mark.parametrize("case", ALMOST)
def test_what_is_almost_of_a_layout_is_refused_with_the_way_out(case: str, source: Path) -> None:
    change, said = ALMOST[case]
    with pytest.raises(InputError, match=said):
        find_photos(change(source))


def test_labels_may_name_photos_from_the_folder_above_and_have_blanks(source: Path) -> None:
    shutil.rmtree(source)
    labels_csv(source)
    rows = [line.split(";") for line in (source / "val" / "labels.csv").read_text().splitlines()]
    plain = [photo[:3] for photo in find_photos(source).photos["test"]]
    lines = "\n".join(f'"val/{row[0]}", "{row[1]}"' for row in rows)
    put(source / "val" / "labels.csv", lines)
    assert [photo[:3] for photo in find_photos(source).photos["test"]] == plain


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_what_is_no_picture_is_refused_without_an_object_of_python(content: bytes) -> None:
    with pytest.raises(ValueError, match="is it whole, and a picture") as caught:
        decode(content)
    assert "object at" not in str(caught.value)
