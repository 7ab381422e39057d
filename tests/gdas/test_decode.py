"""Files that hold more than one opaque picture: decoded to what people see, or refused by name."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import gdas.data.decode
import gdas.data.photos
import gdas.data.shard_writing
from gdas.data.decode import decode
from gdas.data.images import open_images
from gdas.data.source import Wanted
from gdas.errors import InputError
from tests.gdas.photo_folder import DATA, convert_tiny, make_folder

RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
ICON = np.zeros((48, 64, 4), np.uint8)  # a black square on nothing
ICON[10:30, 10:40, 3] = 255
SEEN = np.full((48, 64), 255, np.uint8)
SEEN[10:30, 10:40] = 0
FRAMES = [Image.fromarray(np.full((48, 64, 3), value, np.uint8)) for value in (10, 120, 240)]


def saved(image: Image.Image, form: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return buffer.getvalue()


def animated(form: str) -> bytes:
    return saved(FRAMES[0], form, save_all=True, append_images=FRAMES[1:])


def png16(kind: int, channels: int, value: int) -> bytes:
    """A PNG with 16 bits a channel, which PIL does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    rows = b"".join(b"\0" + struct.pack(">H", value) * (4 * channels) for _ in range(3))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 3, 16, kind, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def image(pixels: NDArray[Any]) -> Image.Image:
    return Image.fromarray(pixels)


PALETTE = image(ICON).quantize(4)
SIXTEEN = RAMP.astype(np.uint16) * 257
# Every file, and the gray value that is seen at each place.
SEEN_AS: dict[str, tuple[bytes, NDArray[np.uint8] | int]] = {
    "32-bit integers, TIFF": (saved(image(RAMP.astype(np.int32)), "TIFF"), RAMP),
    "floats from 0 to 1, TIFF": (saved(image((RAMP / 255).astype(np.float32)), "TIFF"), RAMP),
    "floats from 0 to 1, PFM": (saved(image((RAMP / 255).astype(np.float32)), "PPM"), RAMP),
    "16 bits, TIFF": (saved(image(SIXTEEN), "TIFF"), RAMP),
    "16 bits, PNG": (saved(image(SIXTEEN), "PNG"), RAMP),
    "16 bits, PGM": (saved(image(SIXTEEN), "PPM"), RAMP),
    "16 bits in three channels": (png16(2, 3, 0x8012), 0x80),
    "16 bits, half transparent": (png16(6, 4, 0x8000), 191),
    "transparent PNG": (saved(image(ICON), "PNG"), SEEN),
    "transparent gray PNG": (saved(image(ICON).convert("LA"), "PNG"), SEEN),
    "transparent palette PNG": (saved(PALETTE, "PNG"), SEEN),
    "a transparent colour": (saved(image(255 - RAMP), "PNG", transparency=0), 255),
    "transparent WebP": (saved(image(ICON), "WEBP", lossless=True), SEEN),
    "transparent GIF": (saved(image(ICON), "GIF"), SEEN),
    "transparent TIFF": (saved(image(ICON), "TIFF"), SEEN),
    "one bit": (saved(image(SEEN > 0), "PNG"), SEEN),
    "animated GIF": (animated("GIF"), 10),
    "animated PNG": (animated("PNG"), 10),
    "animated WebP": (animated("WEBP"), 10),
    "pages of a TIFF": (animated("TIFF"), 10),
    "pictures in one JPEG": (animated("MPO"), 10),
}


@pytest.mark.parametrize("torchvision", [True, False])
@pytest.mark.parametrize("case", SEEN_AS)
def test_a_file_decodes_to_what_people_see(
    case: str, torchvision: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, seen = SEEN_AS[case]
    if not torchvision:
        monkeypatch.setattr(gdas.data.decode, "decode_image", None)
    if case == "a transparent colour":  # black becomes the ground, and all else stays
        seen = np.where(255 - RAMP == 0, 255, 255 - RAMP).astype(np.uint8)
    pixels = decode(encoded)
    assert pixels.dtype == torch.uint8 and pixels.shape[0] == 3 and pixels.ndim == 3
    wanted = torch.as_tensor(np.asarray(seen, dtype=np.int64))
    assert (pixels.long() - wanted).abs().max() <= 1
    assert (pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all()


def test_opaque_pictures_with_a_channel_of_transparency_keep_their_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 21, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    decoded = decode(saved(image(pixels), "PNG")).permute(1, 2, 0).numpy()
    assert (decoded == pixels[..., :3]).all()


REFUSED = {
    "32-bit integers beyond": (saved(image(RAMP.astype(np.int32) * 9), "TIFF"), "0 to 2295, must"),
    "negative integers": (saved(image(RAMP.astype(np.int32) - 9), "TIFF"), "-9 to 246, must"),
    "floats to 255": (saved(image(RAMP.astype(np.float32)), "TIFF"), "0 to 255, must be 0 to 1"),
    "not a number": (saved(image(np.full((4, 4), np.nan, np.float32)), "TIFF"), "nan to nan"),
    "a picture of petabytes": (
        png16(2, 3, 0).replace(struct.pack(">II", 4, 3), struct.pack(">II", 2**20, 2**20)),
        "",
    ),
    "text": (b"<html>not found</html>", "begins as no image"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_agreed_meaning_is_refused_in_one_line(case: str) -> None:
    encoded, says = REFUSED[case]
    with pytest.raises(ValueError) as caught:
        decode(encoded)
    assert says in str(caught.value) and "\n" not in str(caught.value)


WHOLE = [encoded for encoded, _ in SEEN_AS.values() if len(encoded) < 4000]
WHOLE += [saved(image(RAMP), form) for form in ("PNG", "JPEG", "WEBP", "BMP", "PPM")]


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(WHOLE), st.integers(0, 10**6), st.integers(1, 255), st.booleans())
def test_damaged_files_decode_to_a_picture_or_not_at_all(
    whole: bytes, place: int, change: int, cut: bool
) -> None:
    harmed = bytearray(whole)
    if cut:
        del harmed[place % len(harmed) :]
    else:
        harmed[place % len(harmed)] ^= change
    try:
        pixels = decode(bytes(harmed))
    except ValueError as problem:
        assert "\n" not in str(problem)
        return
    assert pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.dtype == torch.uint8


def test_an_animation_with_a_still_ending_is_trained_on_by_its_first_frame(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source")
    (source / "train" / "apple" / "banner.jpg").write_bytes(animated("GIF"))
    assert convert_tiny(source, tmp_path / DATA.name).splits["train"].photos == 36
    photos = open_images(DATA, "train", tmp_path)
    assert photos.take(Wanted(torch.arange(36), None)).pixels_BCHW.shape == (36, 3, 32, 32)


def test_pictures_of_one_colour_are_named_whatever_their_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_folder(tmp_path / "source", train=2)
    draw = np.random.default_rng(0)
    dim = draw.integers(0, 4096, (40, 40)).astype(np.uint16)  # 12 bits of 16: almost black
    noise = draw.integers(120, 126, (40, 40, 3)).astype(np.uint8)
    (source / "train" / "bee" / "dim.tif").write_bytes(saved(image(dim), "TIFF"))
    (source / "val" / "cat" / "noise.jpg").write_bytes(saved(image(noise), "JPEG"))
    reads: list[str] = []
    look = gdas.data.shard_writing._read

    def interrupting(reader: Any, photo: Any) -> Any:
        reads.append(photo.name)
        if len(reads) == 25:
            raise KeyboardInterrupt
        return look(reader, photo)

    # The names survive an interruption and a lost index.
    monkeypatch.setattr(gdas.data.shard_writing, "_read", interrupting)
    with pytest.raises(KeyboardInterrupt):
        convert_tiny(source, tmp_path / DATA.name)
    for _ in range(2):
        (tmp_path / DATA.name / "index.json").unlink(missing_ok=True)
        splits = convert_tiny(source, tmp_path / DATA.name).splits
        assert "train/bee/dim.tif" in splits["train"].one_colour
        assert "val/cat/noise.jpg" in splits["test"].one_colour


def test_photos_much_longer_than_high_are_damaged_at_conversion(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source", train=1)
    strip = np.zeros((2, 400, 3), np.uint8)
    (source / "train" / "apple" / "strip.png").write_bytes(saved(image(strip), "PNG"))
    with pytest.raises(InputError, match=r"strip\.png: cannot be decoded \(its sides are 2 and"):
        convert_tiny(source, tmp_path / DATA.name)


@pytest.mark.parametrize("shape", [(2, 3, 40, 40), (1, 40, 40)])
def test_a_photo_that_a_training_cannot_use_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    convert_tiny(make_folder(tmp_path / "source"), tmp_path / DATA.name)
    photos, decoded = open_images(DATA, "train", tmp_path), decode
    bad = photos.take(Wanted(torch.tensor([7]), None)).pixels_BCHW[0]

    def odd(encoded: bytes) -> torch.Tensor:
        pixels = decoded(encoded)
        same = torch.equal(gdas.data.photos.plain_photo(pixels, DATA), bad)
        return torch.zeros(shape, dtype=torch.uint8) if same else pixels

    monkeypatch.setattr(gdas.data.photos, "decode", odd)
    with pytest.raises(InputError) as caught:
        photos.take(Wanted(torch.arange(35), None))
    message = str(caught.value)
    assert "\n" not in message and "python -m gdas.data.shards" in message
    named = message.split(": ")[1]
    original = (tmp_path / "source" / "train" / named).read_bytes()
    assert torch.equal(gdas.data.photos.plain_photo(decoded(original), DATA), bad)
