"""Data sets as settings: their names, and the augmentation that suits them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Literal

from gdas.settings import (
    Interval,
    NotNegative,
    OneOrMore,
    Positive,
    TwoOrMore,
    ZeroOrMore,
    require,
    settings,
)

_FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
PLAIN = "letters a to z in either case, digits, _, . and - alone, the first no . or -"
Checksum = Literal["published", "any"]
"""published: refuse files whose checksum is not the published one; any: read them."""


def is_plain(name: str) -> bool:
    """Whether a name will do for a data set of the user's own, and for its folder (see PLAIN)."""
    return _FOLDER_NAME.fullmatch(name) is not None


@settings
class ImageData:
    """An image data set and the augmentation that suits it; IMAGE_DATA has the known ones.

    What depends on the images has no defaults: a flip is wrong for digits, and crop and cutout
    scale with the size.
    """

    format: Literal["arrays"] = "arrays"
    name: str
    mean: tuple[float, float, float]  # of pixel values / 255
    std: tuple[Positive, Positive, Positive]
    crop_padding: ZeroOrMore  # random crop after padding with zeros by this many pixels
    flip: bool  # horizontal, with probability 1/2
    cutout: ZeroOrMore = 0  # side of the square that is set to 0 after normalising; 0: off
    # any: also read CIFAR files whose checksum is not the published one.
    checksum: Checksum = "published"


@settings
class PhotoData:
    """Photos of any size, with a folder per class, converted to shards, and their augmentation.

    The defaults are ImageNet's (authors' code): a crop of random area and shape, resized to `size`,
    a flip, and colour jitter in random order; for scoring, the centre of the resized photo.
    """

    format: Literal["photos"] = "photos"
    name: str  # the folder of the shards (gdas.data.shards) in the data folder
    classes: TwoOrMore
    size: OneOrMore = 224  # side of the images that the network sees, in pixels
    resize: int = 256  # shorter side before the centre is cut out for scoring
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of pixel values / 255
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    crop_scale: tuple[float, float] = (0.08, 1.0)  # share of the photo's area
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height
    flip: bool = True  # horizontal, with probability 1/2
    brightness: NotNegative = 0.4  # factor from 1 - this to 1 + this; 0: off
    contrast: NotNegative = 0.4
    saturation: NotNegative = 0.4
    # Rotation of the hue, as a share of the colour circle, in either direction.
    hue: Annotated[float, Interval(ge=0, le=0.5)] = 0.2
    # How many row groups are shuffled together, since photos are read as a stream (our own setting;
    # it changes the order of training, not what is seen in an epoch).
    window: OneOrMore = 32

    def __post_init__(self) -> None:
        require(
            is_plain(self.name),
            f"name={self.name!r}: must be a plain folder name, such as flowers ({PLAIN})",
        )
        require(
            self.resize >= self.size, f"resize={self.resize}: must be size ({self.size}) or more"
        )
        low, high = self.crop_scale
        require(
            0 < low <= high <= 1,
            f"crop_scale={self.crop_scale}: must rise within (0, 1], as [0.08, 1]",
        )
        low, high = self.crop_ratio
        require(
            0 < low <= high < math.inf,
            f"crop_ratio={self.crop_ratio}: must rise and be positive, such as [0.75, 1.33]",
        )


AnyImageData = ImageData | PhotoData


def _per_255(a: float, b: float, c: float) -> tuple[float, float, float]:
    return (a / 255, b / 255, c / 255)


IMAGE_DATA = {
    # CIFAR's constants are those of the authors' code.
    "cifar10": ImageData(
        name="cifar10",
        mean=_per_255(125.3, 123.0, 113.9),
        std=_per_255(63.0, 62.1, 66.7),
        crop_padding=4,
        flip=True,
    ),
    "cifar100": ImageData(
        name="cifar100",
        mean=_per_255(129.3, 124.1, 112.4),
        std=_per_255(68.2, 65.4, 70.4),
        crop_padding=4,
        flip=True,
    ),
    # scikit-learn's handwritten digits at 32 x 32: small and real, without a download. There is no
    # flip, because mirrored digits are not digits.
    "digits": ImageData(
        name="digits",
        mean=(0.3054, 0.3054, 0.3054),
        std=(0.3228, 0.3228, 0.3228),
        crop_padding=2,
        flip=False,
    ),
}


PHOTO_DATA = {
    "imagenet": PhotoData(name="imagenet", classes=1000),
    # The digits as JPEG files of many sizes, without a download (gdas.data.digit_photos).
    "digit-photos": PhotoData(
        name="digit-photos",
        classes=10,
        size=32,
        resize=36,
        mean=(0.3054, 0.3054, 0.3054),
        std=(0.3228, 0.3228, 0.3228),
        crop_scale=(0.6, 1.0),
        crop_ratio=(0.9, 1.1),
        flip=False,
        hue=0.0,
    ),
}
"""The known sets of photos; any other one is described by its settings."""


@settings
class TextData:
    """A text data set: ptb, wikitext2, prose (Python's own manual), or your own folder."""

    name: str = "ptb"
    # text: your own train, valid and test files, in the folder `name` in the data folder.
    format: Literal["known", "text"] = "known"
    # any: also read files of PTB or WikiText-2 whose content is not the published one.
    checksum: Checksum = "published"
    # Your own text only: rarer words of the training split become <unk>; null: 1 if it has <unk>,
    # else 2.
    min_count: OneOrMore | None = None

    def __post_init__(self) -> None:
        own = self.format == "text"
        require(
            not own or is_plain(self.name),
            f"name={self.name!r}: must be a plain folder name, such as mine ({PLAIN}); "
            "rename the folder of the text",
        )
        require(
            not own or self.name not in TEXT_DATA,
            f"format=text: {self.name} is a known text; leave format out (checksum=any reads files "
            "of other content), or call your own folder otherwise",
        )
        require(
            self.checksum == "published" or self.name in ("ptb", "wikitext2"),
            f"checksum=any: is for ptb and wikitext2; {self.name} has no published checksum",
        )
        require(
            own or self.min_count is None,
            f"min_count={self.min_count}: is for your own text (format=text); known texts are "
            "taken as they are",
        )


@dataclass(frozen=True)
class TableData:
    """A table of trained cells, by name: that of NAS-Bench-201."""

    name: Literal["nasbench201"] = "nasbench201"


TEXT_DATA = ("ptb", "wikitext2", "prose")
