"""Photos cropped, flipped and coloured as drawn; what is scored, and workers' shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from gdas.data.augment import CROP_ATTEMPTS, PHOTO_NUMBERS, PhotoMoves, augment, draw_moves
from gdas.data.decode import decode
from gdas.data.photos import Photos, augment_photo, crop_box, plain_photo
from gdas.data.settings import PhotoData
from gdas.data.source import Wanted
from gdas.randomness import generator
from tests.gdas.photo_folder import (
    DATA,
    encode,
    scene,
)

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding")

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
