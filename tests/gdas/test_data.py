"""Images on disk, how they are augmented, and how they are split."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

import gdas.data.cifar
import gdas.data.images
from gdas.data.arrow import read_images, write_images
from gdas.data.augment import Moves, augment, draw_moves, normalise
from gdas.data.images import open_images, split_indices, subset
from gdas.data.settings import IMAGE_DATA, ImageData
from gdas.errors import InputError
from tests.harm import flip_byte
from tests.narrow import narrow


def some_arrays(n: int = 20, size: int = 8) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 3, size, size), dtype=np.uint8)
    return images, rng.integers(0, 10, n, dtype=np.int64)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    images, labels = some_arrays()
    path = tmp_path / "arrow" / "some-train.arrow"
    write_images(path, images, labels, classes=10, identity="some-1")
    return path


# Arrow


def test_images_survive_their_file_and_nothing_else_is_left_beside_it(written: Path) -> None:
    images, labels = some_arrays()
    read = read_images(written, identity="some-1", verify=True)
    assert read.images_NCHW.dtype == torch.uint8
    assert read.labels_N.dtype == torch.int64
    assert np.array_equal(read.images_NCHW.numpy(), images)
    assert np.array_equal(read.labels_N.numpy(), labels)
    assert (read.classes, read.size, len(read)) == (10, 8, 20)
    assert list(written.parent.iterdir()) == [written]
    assert read.to(torch.device("cpu")).images_NCHW.data_ptr() == read.images_NCHW.data_ptr()


def place_of(path: Path, images: NDArray[np.uint8]) -> int:
    """Where the first image's bytes lie in the file."""
    place = path.read_bytes().find(images[0].tobytes())
    assert place > 0
    return place


def test_two_openings_are_views_of_one_mapped_file(written: Path) -> None:
    images, _ = some_arrays()
    first = read_images(written, identity="some-1", verify=False)
    second = read_images(written, identity="some-1", verify=False)
    # What is written into the file afterwards shows through both: neither holds a copy.
    flip_byte(written, place_of(written, images))
    changed = images[0, 0, 0, 0] ^ 0xFF
    assert int(first.images_NCHW[0, 0, 0, 0]) == changed
    assert int(second.images_NCHW[0, 0, 0, 0]) == changed


def test_a_flipped_byte_is_refused_where_the_content_is_verified(written: Path) -> None:
    images, _ = some_arrays()
    flip_byte(written, place_of(written, images))
    read_images(written, identity="some-1", verify=False)
    with pytest.raises(InputError) as caught:
        read_images(written, identity="some-1", verify=True)
    for part in (f"{written}: damaged, its content is not what was written", f"delete {written}"):
        assert part in str(caught.value)


def test_a_flipped_label_is_refused_where_the_content_is_verified(written: Path) -> None:
    _, labels = some_arrays()
    flip_byte(written, written.read_bytes().find(labels.tobytes()))
    with pytest.raises(InputError, match="its content is not what was written"):
        read_images(written, identity="some-1", verify=True)


def test_a_file_of_another_source_is_refused(written: Path) -> None:
    with pytest.raises(InputError, match=r"made from other data than these; delete") as caught:
        read_images(written, identity="some-2", verify=False)
    assert str(written) in str(caught.value)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(written: Path, kept: float) -> None:
    content = written.read_bytes()
    written.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match="damaged") as caught:
        read_images(written, identity="some-1", verify=False)
    assert str(written) in str(caught.value)


def test_a_file_that_is_no_image_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    path.write_bytes(b"hello" * 1000)
    with pytest.raises(InputError, match="damaged"):
        read_images(path, identity="some-1", verify=False)
    with pytest.raises(InputError, match=r"absent\.arrow"):
        read_images(tmp_path / "absent.arrow", identity="some-1", verify=False)


def test_a_failed_write_leaves_the_file_before_it_and_no_part(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    images, labels = some_arrays(5)
    with pytest.raises(InputError, match="No space"):
        write_images(written, images, labels, classes=10, identity="some-2")
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


def test_digits_are_converted_once_and_split_as_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = open_images("digits", "train", tmp_path, verify=True)
    test = open_images("digits", "test", tmp_path, verify=True)
    assert (len(train), len(test)) == (1437, 360)
    assert train.images_NCHW.shape[1:] == (3, 32, 32)
    assert sorted(train.labels_N.unique().tolist()) == list(range(10))
    monkeypatch.setattr(gdas.data.images, "write_images", lambda *_, **__: pytest.fail("again"))
    again = open_images("digits", "train", tmp_path)
    assert torch.equal(again.images_NCHW, train.images_NCHW)


def test_an_unknown_data_set_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="imagenet22k"):
        open_images("imagenet22k", "train", tmp_path)


# Augmentation


def slow_augment(image_CHW: Tensor, data: ImageData, moves: list[int]) -> Tensor:
    """One image, by the book: flip, pad with black, crop, normalise, cut a square out."""
    down, right, flip, row, column = moves
    pixels = image_CHW.numpy().astype(np.float64) / 255
    channels, height, width = pixels.shape
    if data.flip and flip:
        pixels = pixels[:, :, ::-1]
    p = data.crop_padding
    padded = np.zeros((channels, height + 2 * p, width + 2 * p))
    padded[:, p : p + height, p : p + width] = pixels
    cropped = padded[:, down : down + height, right : right + width]
    mean, std = (np.array(values)[:, None, None] for values in (data.mean, data.std))
    out = (cropped - mean) / std
    if data.cutout:
        half = data.cutout // 2
        for y in range(row - half, row + half):
            for x in range(column - half, column + half):
                if 0 <= y < height and 0 <= x < width:
                    out[:, y, x] = 0.0
    return torch.from_numpy(out).float()


@pytest.mark.parametrize(
    "data",
    [
        dataclasses.replace(IMAGE_DATA["cifar10"], cutout=16),
        IMAGE_DATA["cifar10"],
        dataclasses.replace(IMAGE_DATA["digits"], cutout=6),
        dataclasses.replace(IMAGE_DATA["cifar10"], crop_padding=0, flip=False, cutout=4),
    ],
    ids=["everything", "no cutout", "no flip", "no crop"],
)
def test_batched_augmentation_equals_one_image_at_a_time(data: ImageData) -> None:
    images, _ = some_arrays(64, size=12)
    batch_BCHW = torch.from_numpy(images)
    moves = narrow(draw_moves(data, 64, 12, Generator().manual_seed(1)), Moves)
    # Corners, so that the square overhangs on every side whatever was drawn.
    moves.moves_B5[:4, 3:] = torch.tensor([[0, 0], [0, 11], [11, 0], [11, 11]])
    expected = torch.stack(
        [
            slow_augment(image, data, row)
            for image, row in zip(batch_BCHW, moves.moves_B5.tolist(), strict=True)
        ]
    )
    out = augment(batch_BCHW, data, moves)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected, rtol=0, atol=2e-6)


def test_moves_cover_their_whole_range_evenly() -> None:
    data = dataclasses.replace(IMAGE_DATA["cifar10"], cutout=16)
    moves = draw_moves(data, 90_000, 32, Generator().manual_seed(2))
    moves_B5 = narrow(moves, Moves).moves_B5
    for column, values in enumerate((9, 9, 2, 32, 32)):
        counts = torch.bincount(moves_B5[:, column])
        assert len(counts) == values
        expected = 90_000 / values
        # 84 cells within 5.5 standard deviations: false alarms below 4e-6.
        assert (counts - expected).abs().max() < 5.5 * expected**0.5


def test_a_share_of_the_moves_is_what_those_rows_of_the_whole_batch_get() -> None:
    data = dataclasses.replace(IMAGE_DATA["cifar10"], cutout=4)
    images, _ = some_arrays(10, size=12)
    batch_BCHW = torch.from_numpy(images)
    moves = draw_moves(data, 10, 12, Generator().manual_seed(3))
    whole = augment(batch_BCHW, data, moves)
    rows = slice(3, 7)
    assert torch.equal(augment(batch_BCHW[rows], data, moves.share(rows)), whole[rows])


def test_moving_nothing_is_normalising() -> None:
    data = IMAGE_DATA["cifar10"]
    images, _ = some_arrays(4)
    batch_BCHW = torch.from_numpy(images)
    still = Moves(torch.tensor([[4, 4, 0, 0, 0]]).expand(4, 5))
    assert torch.equal(augment(batch_BCHW, data, still), normalise(batch_BCHW, data))


# Splits


def test_halves_are_disjoint_and_cover_everything() -> None:
    train, valid = split_indices(1001, 7, None, None)
    assert (len(train), len(valid)) == (500, 501)
    assert sorted(torch.cat([train, valid]).tolist()) == list(range(1001))


def test_smaller_halves_are_disjoint_and_of_the_size_asked_for() -> None:
    train, valid = split_indices(1000, 7, 64, 100)
    assert (len(train), len(valid)) == (64, 100)
    assert not set(train.tolist()) & set(valid.tolist())
    assert train.max() > 500, "drawn from everywhere, not the first images"


def test_halves_depend_on_the_seed_alone() -> None:
    first, again, other = (split_indices(1000, seed, None, None) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    shared = len(set(first[0].tolist()) & set(other[0].tolist()))
    assert 200 < shared < 300  # 250 expected, sd 8: false alarms below 1e-9


@pytest.mark.parametrize(("train", "valid"), [(600, 401), (1001, 0), (2, 999), (None, 501)])
def test_more_images_than_there_are_is_refused(train: int | None, valid: int | None) -> None:
    with pytest.raises(InputError, match="only 1000"):
        split_indices(1000, 0, train, valid)


def test_more_training_images_than_there_are_is_refused_whatever_is_left_for_validation() -> None:
    with pytest.raises(InputError, match="only 1000"):
        split_indices(1000, 0, 1001, None)


def test_a_subset_is_random_distinct_and_depends_on_the_seed() -> None:
    assert subset(50, 0, None).tolist() == list(range(50))
    first, again, other = (subset(1000, seed, 100).tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == 100
    assert max(first) > 500
    with pytest.raises(InputError, match="train_images=1001"):
        subset(1000, 0, 1001)
