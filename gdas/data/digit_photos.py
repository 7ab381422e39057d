"""Photos without a download: scikit-learn's handwritten digits as JPEG files of many sizes.

They are small and real, so that everything that reads photos can be tried anywhere: the
ImageFolder, its conversion to shards, decoding, random crops. The split is that of the digits data
set.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from gdas.data.digits import digits
from gdas.data.images import DIGIT_PHOTOS
from gdas.data.shard_index import FOLDERS, INDEX
from gdas.data.shards import convert

SIDES = (40, 64)
"""The shortest and the longest side, in pixels."""
QUALITY = 90


def make_digit_photos(folder: Path) -> None:
    """Make the photos and convert them in `folder`/digit-photos, unless that has been done.

    Raises:
        InputError: the folder cannot be written to.
    """
    target = folder / DIGIT_PHOTOS
    if (target / INDEX).exists():
        return
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary)
        for split, name in FOLDERS.items():
            images_NCHW, labels_N = digits(split)
            for i, (image_CHW, label) in enumerate(zip(images_NCHW, labels_N, strict=True)):
                of_class = source / name / f"digit-{label}"
                of_class.mkdir(parents=True, exist_ok=True)
                photo = Image.fromarray(image_CHW.transpose(1, 2, 0))
                resized = photo.resize((_side(7 * i), _side(7 * i + 5)), Image.Resampling.BILINEAR)
                resized.save(of_class / f"{i:04d}.jpg", quality=QUALITY)
        convert(source, target)


def _side(i: int) -> int:
    shortest, longest = SIDES
    return shortest + i % (longest - shortest)
