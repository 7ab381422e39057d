"""Photos: conversion to shards, reading as a stream, augmentation, training and search on them."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as F

import gdas.data.decode
import gdas.data.photos
import gdas.data.shard_writing
import gdas.data.shards
from gdas.checkpoint import digest
from gdas.cnn.genotype import PUBLISHED
from gdas.cnn.space import ImageSpace, score_with_shared_weights
from gdas.cnn.train import train_image
from gdas.config import AlphaUpdate
from gdas.data.arrow import Images
from gdas.data.augment import CROP_ATTEMPTS, PHOTO_NUMBERS, PhotoMoves, augment, draw_moves
from gdas.data.decode import decode
from gdas.data.digit_photos import make_digit_photos
from gdas.data.digits import digits
from gdas.data.images import identity, open_images
from gdas.data.layouts import EXTENSIONS, find_photos
from gdas.data.photos import Photos, augment_photo, crop_box, plain_photo
from gdas.data.settings import PHOTO_DATA, PhotoData
from gdas.data.shard_index import read_index
from gdas.data.shards import convert, main
from gdas.data.source import Split, Wanted
from gdas.errors import InputError
from gdas.randomness import generator
from gdas.search import search
from tests.gdas.photo_folder import (
    CLASSES,
    CONFIG,
    DATA,
    convert_tiny,
    encode,
    make_folder,
    photo_training,
    scene,
)
from tests.gdas.team import run_team
from tests.gdas.tiny import CPU, latest, search_config, seen, train_config, until
from tests.gdas.worker import no_batch_norm

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the converted photos."""
    data = tmp_path_factory.mktemp("photos")
    convert_tiny(source, data / DATA.name)
    return data


@pytest.fixture
def photos(folder: Path) -> Photos:
    opened = open_images(DATA, "train", folder)
    assert isinstance(opened, Photos)
    return opened


def contents(target: Path) -> dict[str, bytes]:
    files = [path for path in sorted(target.rglob("*")) if path.is_file()]
    return {str(path.relative_to(target)): path.read_bytes() for path in files}


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


def flip_byte(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


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


# Order and reading


def test_an_order_is_a_permutation_that_depends_on_its_arguments_alone(
    photos: Photos, folder: Path
) -> None:
    rows = torch.arange(0, 35, 2)
    order = photos.order(rows, 3, "order", 5)
    assert sorted(order.tolist()) == rows.tolist()
    again = open_images(DATA, "train", folder)
    again.take(Wanted(torch.tensor([1]), None))
    assert torch.equal(again.order(rows, 3, "order", 5), order)
    others = [(4, "order", 5), (3, "other", 5), (3, "order", 6)]
    assert len({tuple(photos.order(rows, *o).tolist()) for o in [(3, "order", 5), *others]}) == 4


def test_an_order_goes_through_the_row_groups_window_by_window(photos: Photos) -> None:
    # 35 photos: shards of 10, 10, 10, 5 in row groups of 4, 4, 2 (4, 1).
    ends = [4, 8, 10, 14, 18, 20, 24, 28, 30, 34, 35]
    group_of = [next(g for g, end in enumerate(ends) if row < end) for row in range(35)]
    firsts = set()
    for epoch in range(20):
        order = photos.order(torch.arange(35), 0, "order", epoch).tolist()
        groups = [group_of[row] for row in order]
        visited = list(dict.fromkeys(groups))
        for start in range(0, 11, 3):
            window = set(visited[start : start + 3])
            places = [i for i, g in enumerate(groups) if g in window]
            assert places == list(range(places[0], places[0] + len(places))), "one stretch"
        firsts.add(visited[0])
        mixed = sum(a != b for a, b in pairwise(groups))
        assert mixed > 11, "shuffled within a window"
    assert len(firsts) > 5


def test_an_epoch_reads_every_row_group_once_and_holds_a_window(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[str, int]] = []
    held: list[int] = []

    class Counting(pq.ParquetFile):  # type: ignore[misc]
        def __init__(self, path: Path, **options: Any) -> None:
            super().__init__(path, **options)
            self.name = Path(path).name

        def read_row_group(self, group: int, **options: Any) -> Any:
            reads.append((self.name, group))
            held.append(len(photos._groups))
            return super().read_row_group(group, **options)

    monkeypatch.setattr(pq, "ParquetFile", Counting)
    for rows_B in photos.order(torch.arange(35), 0, "order", 0).split(8):
        photos.take(Wanted(rows_B, None))
    assert len(reads) == len(set(reads)) == 11
    assert max(held) <= DATA.window and len(photos._groups) == DATA.window


def test_what_was_announced_is_what_is_read(photos: Photos) -> None:
    """Whether a batch was read ahead, in another order or not, makes no difference."""
    rows = [torch.arange(0, 6), torch.arange(6, 12), torch.arange(12, 18)]
    wanted = [
        Wanted(r, draw_moves(DATA, 6, 32, generator(0, "augmentation", i)))
        for i, r in enumerate(rows)
    ]
    plain = [photos.take(w) for w in wanted]
    ahead = [
        photos.take(w, partial(wanted.__getitem__, n))
        for w, n in zip(wanted, (1, 0, 1), strict=True)
    ]
    for first, second in zip(plain, ahead, strict=True):
        assert torch.equal(first.pixels_BCHW, second.pixels_BCHW)
        assert torch.equal(first.labels_B, second.labels_B)
    moved = Wanted(rows[1], wanted[0].moves)  # the announced rows, but moved otherwise
    assert not torch.equal(photos.take(moved).pixels_BCHW, plain[1].pixels_BCHW)


def test_pixels_do_not_depend_on_the_number_of_threads(photos: Photos) -> None:
    shards = photos._shards
    wanted = Wanted(torch.arange(20), draw_moves(DATA, 20, 32, generator(0, "augmentation", 0)))
    many = Photos(shards, photos.classes, DATA, CPU, threads=4).take(wanted)
    assert torch.equal(many.pixels_BCHW, photos.take(wanted).pixels_BCHW)
    assert torch.get_num_threads() == 1


# Augmentation


def numbers(area: float = 0.5, ratio: float = 0.5, **others: float) -> list[float]:
    """Uniform numbers that crop as asked and leave the rest alone."""
    found = [area, ratio] * CROP_ATTEMPTS + [others.get("down", 0.5), others.get("right", 0.5)]
    found += [others.get("flip", 0.9)]
    keys = ("brightness", "contrast", "saturation", "hue")
    found += [others.get(key, 0.5) for key in keys]
    found += [others.get(f"{key}_place", i / 10) for i, key in enumerate(keys)]
    assert len(found) == PHOTO_NUMBERS
    return found


def test_crops_lie_within_the_photo_and_have_area_and_shape_in_range() -> None:
    uniform = torch.rand((400, PHOTO_NUMBERS), generator=torch.Generator().manual_seed(0)).tolist()
    boxes = [crop_box(375, 500, PhotoData(name="x", classes=2), row) for row in uniform]
    for top, left, height, width in boxes:
        assert 0 <= top <= 375 - height and 0 <= left <= 500 - width
        assert 0.075 < height * width / (375 * 500) <= 1
        assert 0.74 < width / height < 1.35
    areas = torch.tensor([height * width / (375 * 500) for _, _, height, width in boxes])
    # Uniform on [0.08, 1] but for large ones that do not fit: mean 0.5, sd 0.013.
    assert 0.4 < areas.mean() < 0.56
    assert len({box.top for box in boxes}) > 100


@pytest.mark.parametrize(("height", "width"), [(20, 400), (400, 20)])
def test_where_no_crop_fits_the_largest_centred_one_is_taken(height: int, width: int) -> None:
    box = crop_box(height, width, PhotoData(name="x", classes=2), numbers(area=1.0))
    assert min(box.height, box.width) == 20
    assert max(box.height, box.width) == 27, "4:3"
    assert abs(2 * box.top + box.height - height) <= 1
    assert abs(2 * box.left + box.width - width) <= 1


def test_a_crop_of_known_numbers_is_the_part_of_the_photo_that_they_say() -> None:
    # An area of 0.54 of 100 x 100 at ratio 1: 73 x 73; down 0: at the top; right 0.999: last place.
    box = crop_box(
        100, 100, PhotoData(name="x", classes=2), numbers(area=0.5, down=0.0, right=0.999)
    )
    assert box == (0, 27, 73, 73)


def by_hand(pixels: Tensor, *operations: Callable[[Tensor], Tensor]) -> Tensor:
    box = crop_box(pixels.shape[1], pixels.shape[2], DATA, numbers())
    part = pixels[:, box.top : box.top + box.height, box.left : box.left + box.width]
    part = F.resize(part, [32, 32], antialias=True)
    for operation in operations:
        part = operation(part)
    return part


def test_a_photo_is_cropped_flipped_and_coloured_in_the_order_that_was_drawn() -> None:
    pixels = decode(encode(scene(8)))
    # brightness 0.6..1.4, hue -0.2..0.2
    dark = lambda x: F.adjust_brightness(x, 0.6)  # noqa: E731
    vivid = lambda x: F.adjust_contrast(x, 1.4)  # noqa: E731
    turned = lambda x: F.adjust_hue(x, 0.1)  # noqa: E731
    neutral = augment_photo(pixels, DATA, numbers())
    assert torch.equal(neutral, by_hand(pixels))
    flipped = augment_photo(pixels, DATA, numbers(flip=0.1))
    assert torch.equal(flipped, by_hand(pixels).flip(-1))
    first = augment_photo(pixels, DATA, numbers(brightness=0.0, contrast=1.0, hue=0.75))
    assert torch.equal(first, by_hand(pixels, dark, vivid, turned))
    second = augment_photo(
        pixels,
        DATA,
        numbers(brightness=0.0, contrast=1.0, hue=0.75, hue_place=-2.0, contrast_place=-1.0),
    )
    assert torch.equal(second, by_hand(pixels, turned, vivid, dark))
    assert not torch.equal(first, second)
    still = dataclasses.replace(DATA, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    still = dataclasses.replace(still, flip=False)
    wild = numbers(brightness=0.0, contrast=1.0, saturation=1.0, hue=0.0, flip=0.1)
    assert torch.equal(augment_photo(pixels, still, wild), neutral)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (20, 90)])
def test_scored_photos_are_the_centre_of_the_resized_one(shape: tuple[int, int]) -> None:
    pixels = torch.arange(shape[0] * shape[1] * 3, dtype=torch.float32).view(3, *shape)
    pixels = (pixels % 256).to(torch.uint8)
    plain = plain_photo(pixels, DATA)
    assert plain.shape == (3, 32, 32)
    scale = 36 / min(shape)
    resized = F.resize(pixels, [int(shape[0] * scale), int(shape[1] * scale)], antialias=True)
    top, left = round((resized.shape[1] - 32) / 2), round((resized.shape[2] - 32) / 2)
    assert torch.equal(plain, resized[:, top : top + 32, left : left + 32])


def test_a_share_of_the_moves_is_what_those_photos_of_the_whole_batch_get(photos: Photos) -> None:
    moves = draw_moves(DATA, 10, 32, generator(0, "augmentation", 0, 0))
    assert isinstance(moves, PhotoMoves)
    whole = photos.take(Wanted(torch.arange(10), moves))
    share = photos.take(Wanted(torch.arange(3, 7), moves.share(slice(3, 7))))
    assert torch.equal(share.pixels_BCHW, whole.pixels_BCHW[3:7])
    images = augment(whole.pixels_BCHW, DATA, moves)
    mean, std = (torch.tensor(v)[:, None, None] for v in (DATA.mean, DATA.std))
    torch.testing.assert_close(images, (whole.pixels_BCHW / 255 - mean) / std)


# Training and search


def test_a_training_stopped_within_an_epoch_goes_on_as_if_it_had_not_been(
    folder: Path, tmp_path: Path
) -> None:
    whole = [seen(segment) for segment in photo_training(folder)]
    assert [epoch[0] for epoch in whole] == [1, 2, 3, 4]
    passed = until(photo_training(folder), 1, tmp_path)
    for position in (1, 2, 3):
        state = latest(tmp_path).state
        passed += until(photo_training(folder, checkpoint=state), position + 1, tmp_path)
    assert passed == whole
    metrics = [epoch[1] for epoch in whole]
    assert ["test/top5" in m for m in metrics] == [False, True, False, True]
    assert all(m["test/top5"] >= m["test/top1"] for m in metrics[1::2])
    assert [m["drop_path"] for m in metrics] == [0.0, 0.0, 0.25, 0.25]
    assert metrics[0]["lr"] == metrics[1]["lr"] > metrics[2]["lr"] == metrics[3]["lr"]


def test_the_number_of_segments_changes_no_weight(folder: Path, digits: Images) -> None:
    ends = []
    for segments in (1, 4):
        config = dataclasses.replace(CONFIG, segments_per_epoch=segments)
        *_, last = photo_training(folder, config)
        assert last.position == last.of == 2 * segments
        assert last.state is not None
        ends.append(digest([last.state["weights"], last.state["optimizer"]]))
    assert len(set(ends)) == 1
    rows = torch.arange(60)
    finals = set()
    for segments in (1, 3):
        config = train_config(epochs=2, batch_size=20, segments_per_epoch=segments)
        *_, last = train_image(
            config,
            PUBLISHED["GDAS_F1"],
            digits,
            rows,
            digits,
            rows,
            evaluated_on="valid",
            device=CPU,
        )
        assert last.state is not None
        finals.add(digest([last.state["weights"], last.metrics["valid/loss"]]))
    assert len(finals) == 1


def test_more_segments_than_batches_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="segments_per_epoch=5: an epoch has only 4 batches"):
        next(photo_training(folder, dataclasses.replace(CONFIG, segments_per_epoch=5)))


def test_a_search_on_photos_resumes_exactly_and_is_scored(folder: Path, tmp_path: Path) -> None:
    config = search_config(
        nodes=2,
        data=DATA,
        batch_size=8,
        epochs=2,
        train_images=16,
        valid_images=12,
        alpha=AlphaUpdate(lr=0.05),
        recalibration_batches=1,
    )

    def run(checkpoint: Any = None) -> Any:
        space = ImageSpace(config, open_images(DATA, "train", folder), CPU)
        return search(config, space, checkpoint=checkpoint)

    whole = [seen(segment) for segment in run()]
    passed = until(run(), 1, tmp_path)
    passed += until(run(latest(tmp_path).state), 2, tmp_path)
    assert passed == whole
    state = latest(tmp_path).state
    scores = [
        score_with_shared_weights(config, open_images(DATA, "train", folder), state, CPU)
        for _ in range(2)
    ]
    assert scores[0] == scores[1]
    assert 0 <= scores[0].top1 <= 100


@pytest.mark.slow
def test_two_workers_interrupted_within_an_epoch_end_as_two_uninterrupted_ones(
    folder: Path, tmp_path: Path
) -> None:
    found, _ = run_team("tests.gdas.photo_worker", folder, tmp_path, "interrupted")
    for worker in found:
        assert worker["interrupted"] == worker["whole"]
        assert [segment[0] for segment in worker["whole"]] == [1, 2, 3, 4]
    assert [s[1] for s in found[0]["whole"]] == [s[1] for s in found[1]["whole"]]


def test_without_batch_norm_two_workers_train_on_photos_what_one_does(
    folder: Path, tmp_path: Path
) -> None:
    found, state = run_team("tests.gdas.photo_worker", folder, tmp_path)
    with no_batch_norm():
        *_, alone = photo_training(folder)
    assert alone.state is not None
    for worker in found:
        assert worker["without norm"] == pytest.approx(alone.metrics, rel=1e-4)
    for name, weight in alone.state["weights"].items():
        torch.testing.assert_close(state["weights"][name], weight, rtol=1e-3, atol=1e-5, msg=name)


def test_photos_without_a_download_are_made_once_and_are_the_digits(tmp_path: Path) -> None:
    make_digit_photos(tmp_path)
    index = tmp_path / "digit-photos" / "index.json"
    made, when = index.read_text(), index.stat().st_mtime_ns
    make_digit_photos(tmp_path)
    assert index.stat().st_mtime_ns == when
    make_digit_photos(tmp_path / "again")
    assert (tmp_path / "again" / "digit-photos" / "index.json").read_text() == made
    data = PHOTO_DATA["digit-photos"]
    photos = open_images(data, "train", tmp_path)
    images_NCHW, labels_N = digits("train")
    assert (len(photos), photos.classes, photos.size) == (len(labels_N), 10, 32)
    assert len(open_images(data, "test", tmp_path)) == 360
    batch = photos.take(Wanted(torch.arange(50), None))
    first = labels_N == int(batch.labels_B[0])  # by class: the folder's order
    shown = batch.pixels_BCHW[0].float()
    near = [(torch.from_numpy(i).float() - shown).abs().mean() for i in images_NCHW[first]]
    assert min(near) < 25, "the same digit, through JPEG and two changes of size"
