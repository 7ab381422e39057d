"""Photos become shards: decoding, conversion, what is damaged or refused, and opening them."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

import gdas.data.decode
import gdas.data.photos
import gdas.data.shard_writing
import gdas.data.shards
from gdas.data.decode import decode
from gdas.data.images import identity, open_images
from gdas.data.layouts import EXTENSIONS, find_photos
from gdas.data.shard_index import read_index
from gdas.data.shards import convert, main
from gdas.data.source import Split, Wanted
from gdas.errors import InputError
from tests.gdas.photo_folder import (
    CLASSES,
    DATA,
    contents,
    convert_tiny,
    encode,
    make_folder,
    scene,
)
from tests.harm import flip_byte

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding")

# Decoding


def by_pil(encoded: bytes) -> Tensor:
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("form", "mode"),
    [
        ("JPEG", "RGB"),
        ("JPEG", "L"),
        ("JPEG", "CMYK"),
        ("PNG", "RGB"),
        ("PNG", "L"),
        ("WEBP", "RGB"),
        ("BMP", "RGB"),
        ("PPM", "RGB"),
        ("TIFF", "CMYK"),
    ],
)
def test_every_kind_of_file_decodes_to_the_colours_that_pil_gives(
    form: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = encode(scene(1, 4 if mode == "CMYK" else 3), form, mode)
    pixels = decode(encoded)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, by_pil(encoded))
    assert len(pixels.unique()) > 20, "a picture"
    monkeypatch.setattr(gdas.data.decode, "decode_image", None)
    assert torch.equal(decode(encoded), pixels)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_a_channel_keep_their_upper_eight(form: str) -> None:
    gray = scene(2)[..., 0].astype(np.uint16) * 256 + 77
    encoded = encode(gray, form, "L16")
    assert torch.equal(decode(encoded), torch.from_numpy(scene(2)[..., 0]).expand(3, -1, -1))


@pytest.mark.parametrize("torchvision", [True, False])
@pytest.mark.parametrize("form", ["JPEG", "WEBP", "BMP", "TIFF"])
def test_truncated_files_do_not_decode(
    form: str, torchvision: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torchvision:
        monkeypatch.setattr(gdas.data.decode, "decode_image", None)
    encoded = encode(scene(3), form)
    decode(encoded)
    for kept in (0, 10, len(encoded) // 2, len(encoded) - 30):
        with pytest.raises(ValueError):
            decode(encoded[:kept])


# Conversion


def test_extensions_are_torchvisions() -> None:
    assert EXTENSIONS == IMG_EXTENSIONS


def test_shards_hold_every_file_as_it_is_with_label_and_name(source: Path, folder: Path) -> None:
    index = read_index(folder / DATA.name)
    assert index.classes == CLASSES
    splits: list[tuple[Split, str, int]] = [("train", "train", 35), ("test", "val", 14)]
    for split, on_disk, count in splits:
        shards = index.splits[split]
        assert shards.photos == count
        seen_names = []
        for shard in shards.shards:
            file = pq.ParquetFile(shard.path)
            assert file.metadata.num_rows == shard.photos <= 10
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            assert sizes == [4] * (shard.photos // 4) + [shard.photos % 4] * (shard.photos % 4 > 0)
            for row in file.read().to_pylist():
                assert row["image"] == (source / on_disk / row["name"]).read_bytes()
                assert CLASSES[row["label"]] == row["name"].split("/")[0]
                seen_names.append(row["name"])
        assert len(set(seen_names)) == count
        # Training photos are mixed, so that a row group is a sample of the whole.
        assert (seen_names == sorted(seen_names)) == (split == "test")
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize("stop_at", [1, 12, 23, 40])
def test_an_interrupted_conversion_goes_on_to_the_same_bytes(
    source: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    target, read = tmp_path / "again", gdas.data.shard_writing._read
    reads: list[str] = []

    def interrupting(reader: Any, photo: Any) -> Any:
        reads.append(photo.name)
        if len(reads) == stop_at:
            raise KeyboardInterrupt
        return read(reader, photo)

    monkeypatch.setattr(gdas.data.shard_writing, "_read", interrupting)
    with pytest.raises(KeyboardInterrupt):
        convert_tiny(source, target)
    assert not (target / "index.json").exists()
    assert not list(target.rglob("*.partial"))
    finished = len(list(target.rglob("*.parquet")))
    # What a kill leaves, and what an earlier, abandoned conversion of other photos left.
    (target / "train" / "00003.parquet.partial").write_bytes(b"torn")
    (target / "val").mkdir(exist_ok=True)
    (target / "val" / "00007.parquet").write_bytes(b"old")
    reads.clear()
    stop_at = 10**6
    convert(source, target, shard_rows=10, group_rows=4, workers=3)
    assert contents(target) == contents(folder / DATA.name)
    assert len(reads) == 49 - sum([10, 10, 10, 5, 10, 4][:finished]), "finished shards are kept"


def test_a_shard_of_other_photos_is_not_kept(source: Path, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "other"
    (target / "train").mkdir(parents=True)
    whole = (folder / DATA.name / "train" / "00001.parquet").read_bytes()
    (target / "train" / "00000.parquet").write_bytes(whole)
    convert_tiny(source, target)
    assert contents(target) == contents(folder / DATA.name)


def test_a_finished_conversion_is_verified_and_mended(
    source: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "tiny"
    convert_tiny(source, target)
    flip_byte(target / "train" / "00001.parquet", 700)
    (target / "val" / "00000.parquet").unlink()
    lines: list[str] = []
    convert(source, target, shard_rows=10, group_rows=4, say=lines.append)
    assert contents(target) == contents(folder / DATA.name)
    assert ["already" in line for line in lines] == [True, False, True, True, False, True]
    with pytest.raises(InputError, match="holds other photos"):
        convert(source, target, shard_rows=9, group_rows=4)


def test_damaged_photos_are_left_out_named_and_limited(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source", train=3, val=1)
    (source / "train" / "bee" / "0.JPEG").write_bytes(encode(scene(5))[:-40])
    (source / "train" / "dog" / "2.JPEG").write_bytes(b"")
    (source / "val" / "fox" / "0.JPEG").write_bytes(b"no photo")
    (source / "val" / "fox" / "notes.txt").write_text("no photo either, and not called one")
    target = tmp_path / "target"
    with pytest.raises(InputError, match=r"--damaged-limit") as caught:
        convert(source, target, damaged_limit=2, shard_rows=10)
    assert "fox" in str(caught.value)
    assert not (target / "index.json").exists()
    index = convert(source, target, damaged_limit=3, shard_rows=10)
    assert set(index.splits["train"].damaged) == {"train/bee/0.JPEG", "train/dog/2.JPEG"}
    assert index.splits["test"].damaged == ("val/fox/0.JPEG",)
    assert (index.splits["train"].photos, index.splits["test"].photos) == (19, 6)
    assert read_index(target) == index
    data = dataclasses.replace(DATA, name="target")
    photos = open_images(data, "train", tmp_path, verify=True)
    assert len(photos.take(Wanted(torch.arange(19), None)).labels_B) == 19
    with pytest.raises(InputError, match="cannot be decoded"):
        convert(source, tmp_path / "none", shard_rows=10)


def test_photos_at_any_depth_and_through_links_but_not_in_circles(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source", train=1, val=1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.png").write_bytes(encode(scene(6), "PNG"))
    (source / "train" / "apple" / "deep").symlink_to(elsewhere)
    (elsewhere / "circle").symlink_to(source / "train" / "apple")
    names = [photo.name for photo in find_photos(source).photos["train"]]
    assert sorted(names)[:2] == ["apple/0.JPEG", "apple/deep/x.png"]
    assert len(names) == 8


def empty(folder: Path) -> None:
    folder.rename(folder.with_name("old"))
    folder.mkdir()


BAD_SOURCES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no source": (lambda source: source.rename(source.parent / "gone"), "no such folder"),
    "no val": (lambda source: (source / "val").rename(source / "held"), "no folder val"),
    "no classes": (
        lambda source: empty(source / "train"),
        "train: no folders of classes",
    ),
    "a class of val alone": (lambda source: (source / "val" / "hen").mkdir(), "val/hen: train has"),
    "an empty class": (lambda source: (source / "train" / "hen").mkdir(), "train/hen: no photos"),
}


@pytest.mark.parametrize("case", BAD_SOURCES)
def test_a_source_that_cannot_be_used_is_refused(tmp_path: Path, case: str) -> None:
    source = make_folder(tmp_path / "source", train=1, val=1)
    harm, message = BAD_SOURCES[case]
    harm(source)
    with pytest.raises(InputError, match=message):
        convert_tiny(source, tmp_path / "target")


def test_a_full_disk_is_named_and_leaves_nothing_half_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match=r"00000\.parquet: cannot write \(No space left"):
        convert_tiny(source, tmp_path / "target")
    assert contents(tmp_path / "target") == {}


def test_the_command_line_reports_and_ends_with_its_code(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "target"
    options = ["--rows", "10", "--group-rows", "4", "--workers", "1"]
    assert main([str(source), str(target), *options]) == 0
    errors = capsys.readouterr().err
    assert "train: shard 1 of 4" in errors and "7 classes; 35 in train" in errors
    assert main([str(tmp_path / "nothing"), str(target)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


# Opening


def test_photos_that_are_not_converted_are_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_images(DATA, "train", tmp_path)
    assert f"python -m gdas.data.shards SOURCE {tmp_path / 'tiny'}" in str(caught.value)


def test_a_damaged_shard_is_named_with_its_fix(source: Path, tmp_path: Path) -> None:
    convert_tiny(source, tmp_path / "tiny")
    index = read_index(tmp_path / "tiny")
    shard = index.splits["train"].shards[2]
    flip_byte(shard.path, 700)
    with pytest.raises(InputError) as caught:
        open_images(DATA, "train", tmp_path, verify=True)
    for part in (str(shard.path), "its content is not what was written", "gdas.data.shards"):
        assert part in str(caught.value)
    open_images(DATA, "test", tmp_path, verify=True)
    # Reading finds it too, without the digest.
    photos = open_images(DATA, "train", tmp_path)
    with pytest.raises(InputError, match="damaged") as caught:
        photos.take(Wanted(torch.arange(35), None))
    assert str(shard.path) in str(caught.value)
    shard.path.write_bytes(shard.path.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"and not the {shard.bytes}"):
        open_images(DATA, "train", tmp_path)
    shard.path.unlink()
    with pytest.raises(InputError, match=r"00002\.parquet: missing .*gdas\.data\.shards"):
        open_images(DATA, "train", tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": "x"}', "index", '{"format": "gdas-photos/1", "splits": 3}'],
)
def test_a_damaged_index_is_refused_and_the_conversion_mends_it(
    folder: Path, tmp_path: Path, source: Path, content: str
) -> None:
    convert_tiny(source, tmp_path / "tiny")
    (tmp_path / "tiny" / "index.json").write_text(content)
    with pytest.raises(InputError, match=r"index\.json: damaged"):
        read_index(tmp_path / "tiny")
    convert_tiny(source, tmp_path / "tiny")
    assert contents(tmp_path / "tiny") == contents(folder / DATA.name)


def test_identities_are_of_the_split_and_its_content(folder: Path, tmp_path: Path) -> None:
    ids = [identity(DATA, split, folder) for split in ("train", "test")]
    assert [text.split("-")[1] for text in ids] == ["35", "14"]
    source = make_folder(tmp_path / "source")
    (source / "val" / "bee" / "0.JPEG").write_bytes(encode(scene(7)))
    convert_tiny(source, tmp_path / "tiny")
    others = [identity(DATA, split, tmp_path) for split in ("train", "test")]
    assert others[0] == ids[0]
    assert others[1] != ids[1]


def test_other_classes_than_the_settings_say_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"data\.classes=8: .*tiny has 7"):
        open_images(dataclasses.replace(DATA, classes=8), "train", folder)
