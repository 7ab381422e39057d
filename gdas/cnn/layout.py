"""The macro network around the cells: stems and the order of cells (paper section 3.1, Fig. 2).

Shapes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from gdas.cnn.norm import BatchNorm
from gdas.field_types import require_type

Stem = Literal["cifar", "imagenet"]
Macro = Literal["3n+2", "3n"]
Wiring = Literal["figure", "2019"]
"""Of the fixed reduction cell."""


class Place(NamedTuple):
    """One cell's place in the network.

    Attributes:
        channels: its width.
        reduction: whether it halves the size.
        last_reduced: whether the cell before it halved the size.
    """

    channels: int
    reduction: bool
    last_reduced: bool


def cell_places(channels: int, normals_per_block: int, macro: Macro, stem: Stem) -> list[Place]:
    """The sequence of cells; the channels double at each of the two reductions.

    Args:
        channels: C, the width of the first cells.
        normals_per_block: N.
        macro: "3n+2" is the paper's N normal, R, N normal, R, N normal; "3n" is the authors' 2020
            code, with N - 1 normal cells after each reduction.
        stem: after the ImageNet stem, the first cell gets s0 at twice the size of s1.
    """
    later = normals_per_block if macro == "3n+2" else normals_per_block - 1
    kinds = [False] * normals_per_block + ([True] + [False] * later) * 2
    places = []
    last_reduced = stem == "imagenet"
    for reduction in kinds:
        channels = channels * 2 if reduction else channels
        places.append(Place(channels, reduction, last_reduced))
        last_reduced = reduction
    return places


def check_network(
    classes: object, channels: object, normals_per_block: object, stem: object, macro: object
) -> None:
    """Raise InputError unless these are what a network can be built of.

    Another stem or macro would be taken for the other one that there is.
    """
    require_type(classes, int, "classes", least=1)
    require_type(channels, int, "channels", least=1)
    require_type(normals_per_block, int, "normals_per_block", least=0)
    require_type(stem, Stem, "stem")
    require_type(macro, Macro, "macro")


class CifarStem(nn.Module):
    """A 3 x 3 convolution to 3C channels and batch norm; its output is both s0 and s1.

    The outputs of both stems have passed the ReLU with which everything that reads them begins.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = 3 * channels
        self.conv = nn.Conv2d(3, self.out_channels, 3, padding=1, bias=False)
        self.norm = BatchNorm(self.out_channels)

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(s0, s1), the same B x 3C x H x W tensor."""
        out_BCHW = F.relu(self.norm(self.conv(images_BCHW)), inplace=True)
        return out_BCHW, out_BCHW


class ImageNetStem(nn.Module):
    """Three 3 x 3 convolutions of stride 2: s0 after two (quarter of the size), s1 after three."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels
        self.stem0 = nn.Sequential(
            nn.Conv2d(3, channels // 2, 3, stride=2, padding=1, bias=False),
            BatchNorm(channels // 2),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False),
            BatchNorm(channels),
        )
        self.stem1 = nn.Sequential(
            nn.Identity(),  # in the ReLU's place, so that the next layers keep their names
            nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
            BatchNorm(channels),
        )

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(s0, s1): B x C at a quarter and at an eighth of the size."""
        s0_BCHW = F.relu(self.stem0(images_BCHW), inplace=True)
        return s0_BCHW, F.relu(self.stem1(s0_BCHW), inplace=True)


def build_stem(stem: Stem, channels: int) -> CifarStem | ImageNetStem:
    """The stem for C = `channels`."""
    return CifarStem(channels) if stem == "cifar" else ImageNetStem(channels)
