"""From a photo's file to RGB pixels.

torchvision decodes JPEG (also grayscale and CMYK, with the same colours as PIL) and plain WebP, by
content, whatever a file's name. PIL decodes the others, and all of them if torchvision has no
decoders (they are deprecated): the same pixels, at half the speed. Both refuse a truncated file.
PNG is left to PIL, because torchvision 0.29 ends the process at a damaged one.

What a file has besides one opaque picture is decided here: of an animation or of several pages, the
first is used; transparent pixels are put on white, as browsers do; of 16 bits per channel, the
upper eight are used. Floating-point pixels must be from 0 to 1 and 32-bit integers from 0 to 255;
other ranges have no agreed meaning and are refused.

Shapes: C channels, H and W height and width.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from gdas.errors import one_line

try:
    from torchvision.io import ImageReadMode, decode_image
except ImportError:
    decode_image = None

SIXTEEN_BITS = ("PNG", "PPM")
"""PIL's formats whose 32-bit integers are 16-bit pixels of the file."""
WHITE = (255, 255, 255, 255)
EIGHT_BITS = "save it with 8 bits a channel"


def decode(encoded: bytes) -> Tensor:
    """Decode a photo to pixels, 3 x H x W, uint8.

    An EXIF orientation is not applied (as in torchvision's ImageFolder).

    Raises:
        ValueError: it cannot be decoded completely; the message says why.
    """
    if decode_image is None or not _by_torchvision(encoded):
        return _decode_by_pil(encoded)
    try:
        # A copy, because PyTorch requires writable memory.
        pixels_CHW: Tensor = decode_image(
            torch.frombuffer(bytearray(encoded), dtype=torch.uint8), ImageReadMode.RGB
        )
    except RuntimeError:
        return _decode_by_pil(encoded)
    return _checked(pixels_CHW)


def _by_torchvision(encoded: bytes) -> bool:
    """Whether torchvision decodes this file as PIL does: a single picture, nothing transparent."""
    jpeg = encoded.startswith(b"\xff\xd8\xff")
    return jpeg or (encoded[:4] == b"RIFF" and encoded[8:16] == b"WEBPVP8 ")


def _checked(pixels_CHW: Tensor) -> Tensor:
    """Check the shape and type of the pixels, whatever a decoder's next version returns."""
    if pixels_CHW.ndim != 3 or pixels_CHW.shape[0] != 3 or pixels_CHW.dtype != torch.uint8:
        raise ValueError(f"decoded to {tuple(pixels_CHW.shape)} of {pixels_CHW.dtype}")
    if 0 in pixels_CHW.shape:
        raise ValueError("it has no pixels")
    return pixels_CHW


def _decode_by_pil(encoded: bytes) -> Tensor:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of odd tags; only errors matter
            with Image.open(io.BytesIO(encoded)) as image:  # opens the first frame or page
                pixels_HWC = _pixels(image)
    except UnidentifiedImageError:  # it names an object of Python
        why = "it begins as no image does" if encoded else "it is empty"
        raise ValueError(f"{why}; is it whole, and a picture?") from None
    except Exception as error:  # PIL's decoders raise many kinds on damaged files
        if type(error) is ValueError:
            raise ValueError(one_line(error)) from None
        raise ValueError(one_line(f"{type(error).__name__}: {error}")) from None
    return _checked(torch.from_numpy(pixels_HWC).permute(2, 0, 1).contiguous())


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    """RGB pixels, H x W x 3.

    Raises:
        ValueError: the file's numbers have no agreed meaning as pixels.
        Exception: whatever PIL raises.
    """
    if image.mode == "F":
        pixels_HW = _in_range(np.array(image), "floating-point pixels", 1)
        return _gray((pixels_HW * 255).round().astype(np.uint8))
    if image.mode == "I" and image.format not in SIXTEEN_BITS:
        return _gray(_in_range(np.array(image), "32-bit integer pixels", 255).astype(np.uint8))
    if image.mode.startswith("I"):  # 16 bits, which `convert` would clip at 255
        return _gray(np.clip(np.array(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
    return np.array(image.convert("RGB"))


def _in_range(pixels_HW: NDArray[Any], what: str, most: int) -> NDArray[Any]:
    low, high = pixels_HW.min(), pixels_HW.max()
    if not (low >= 0 and high <= most):  # both are false for NaN
        raise ValueError(f"{what} from {low:.6g} to {high:.6g}, must be 0 to {most}; {EIGHT_BITS}")
    return pixels_HW


def _gray(pixels_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([pixels_HW] * 3, axis=-1)
