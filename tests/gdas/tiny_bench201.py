"""Cells of NAS-Bench-201 that tests name, and searches that take a second."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.space import Bench201Space
from gdas.checkpoint import Segment, State
from gdas.config import AlphaUpdate
from gdas.data.arrow import Images
from gdas.data.settings import IMAGE_DATA
from gdas.search import search
from tests.gdas.tiny import CPU

NONE, SKIP, CONV1, CONV3, POOL = range(5)
ALL_NONE = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
MIXED = "|nor_conv_3x3~0|+|skip_connect~0|avg_pool_3x3~1|+|none~0|nor_conv_1x1~1|nor_conv_3x3~2|"


def repeated(operation: str) -> str:
    return ALL_NONE.replace("none", operation)


def config(**changes: Any) -> Bench201SearchConfig:
    """Five members of four to sixteen channels on 64 + 64 digits, three epochs of two steps."""
    settings: dict[str, Any] = {
        "data": IMAGE_DATA["digits"],
        "epochs": 3,
        "batch_size": 32,
        "train_images": 64,
        "valid_images": 64,
        "channels": 4,
        "normals_per_block": 1,
        "alpha": AlphaUpdate(lr=0.05),
    }
    return Bench201SearchConfig(**(settings | changes))


def run_search(
    settings: Bench201SearchConfig, images: Images, checkpoint: State | None = None
) -> Iterator[Segment]:
    return search(settings, Bench201Space(settings, images, CPU), checkpoint=checkpoint)


BEST = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    "+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
)
