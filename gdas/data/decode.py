"""A photo's file to RGB pixels.

torchvision decodes JPEG (grayscale and CMYK too, with the colours that PIL gives), PNG and WebP by
content, whatever a file is called; PIL the others (BMP, PPM, TIFF), and everything where there is
a torchvision without decoders (they are deprecated): the same pixels, at half the speed. Both
refuse a truncated file.

Shapes: C channels, H and W height and width.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import torch
from PIL import Image
from torch import Tensor

try:
    from torchvision.io import ImageReadMode, decode_image
except ImportError:
    decode_image = None


def decode(encoded: bytes) -> Tensor:
    """Pixels, 3 x H x W, uint8. The orientation that EXIF may ask for is not applied (as
    torchvision's ImageFolder).

    Raises:
        ValueError: it cannot be decoded, wholly.
    """
    if decode_image is None or not encoded:
        return _decode_by_pil(encoded)
    try:
        # A copy: PyTorch wants memory that it could write to.
        pixels_CHW: Tensor = decode_image(
            torch.frombuffer(bytearray(encoded), dtype=torch.uint8), ImageReadMode.RGB
        )
    except RuntimeError:
        return _decode_by_pil(encoded)
    if pixels_CHW.dtype == torch.uint16:  # PNG with 16 bits a channel
        pixels_CHW = (pixels_CHW.int() >> 8).to(torch.uint8)
    return pixels_CHW


def _decode_by_pil(encoded: bytes) -> Tensor:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd tags and the like: it decodes or it does not
            with Image.open(io.BytesIO(encoded)) as image:
                if image.mode.startswith("I"):  # 16 bits, which convert would cut off at 255
                    pixels_HW = np.clip(np.array(image).astype(np.int64) >> 8, 0, 255)
                    pixels_HWC = np.stack([pixels_HW.astype(np.uint8)] * 3, axis=-1)
                else:
                    pixels_HWC = np.array(image.convert("RGB"))
    except Exception as error:  # PIL's decoders raise many kinds on damaged files
        raise ValueError(f"{type(error).__name__}: {error}") from None
    return torch.from_numpy(pixels_HWC).permute(2, 0, 1).contiguous()
