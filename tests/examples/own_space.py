"""A search space of one's own, on a folder of pictures: an example from outside the package.

A stem, then a chain of edges; each edge is nothing, a convolution, or an operation that gdas does
not have. The pictures lie in FOLDER/CLASS/*.png.

Shapes: B batch, C channels, H and W height and width, E edges, K operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from gdas.architecture import Architecture
from gdas.cnn.halves import ImageHalves
from gdas.config import AlphaUpdate, Precision, SamplerConfig, WeightUpdate
from gdas.data.arrow import Images
from gdas.data.settings import ImageData
from gdas.metrics import BatchLoss
from gdas.sampler import Pick
from gdas.settings import OneOrMore, TwoOrMore, settings

OPERATIONS = ("skip", "conv_3x3", "squeeze_and_excite")


@settings
class ChainConfig:
    """One search: what the chain needs, what the halves of the pictures and Algorithm 1 read.

    It has the fields of gdas.cnn.halves.ImageSearchSettings; a value out of range is refused.
    """

    edges: OneOrMore = 3
    channels: OneOrMore = 4
    data: ImageData
    train_images: TwoOrMore | None = None
    valid_images: TwoOrMore | None = None
    split_seed: int | None = None
    precision: Precision = "float32"
    channels_last: bool = True
    seed: int = 0
    epochs: OneOrMore = 3
    batch_size: TwoOrMore = 8
    order: Literal["weights_first", "alpha_first"] = "weights_first"
    weights: WeightUpdate = field(default_factory=WeightUpdate)
    alpha: AlphaUpdate = field(default_factory=lambda: AlphaUpdate(lr=0.05))
    sampler: SamplerConfig = field(default_factory=SamplerConfig)


def read_folder(folder: Path, size: int) -> Images:
    """All pictures of FOLDER/CLASS/, resized; labels in the order of the classes' names."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    pixels, labels = [], []
    for label, name in enumerate(classes):
        for path in sorted((folder / name).glob("*.png")):
            with Image.open(path) as picture:
                small = picture.convert("RGB").resize((size, size))
            pixels.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
            labels.append(label)
    return Images(torch.stack(pixels), torch.tensor(labels), len(classes))


class SqueezeAndExcite(nn.Module):
    """Weighs every channel by what the whole picture shows (Hu et al., 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Sigmoid()
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        weighed_BCHW: Tensor = x_BCHW * self.weigh(x_BCHW)
        return weighed_BCHW


class Chain(nn.Module):
    """The shared weights: every operation of every edge."""

    def __init__(self, channels: int, edges: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.edges = nn.ModuleList(
            nn.ModuleList(
                (
                    nn.Identity(),
                    nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)),
                    SqueezeAndExcite(channels),
                )
            )
            for _ in range(edges)
        )
        self.classifier = nn.Linear(channels, classes)

    def forward(
        self,
        images_BCHW: Tensor,
        picks: Sequence[Sequence[Pick]],
        gates: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """Scores of the drawn chain; in an alpha step every output is multiplied by its gate."""
        x_BCHW = self.stem(images_BCHW)
        gate_EK = None if gates is None else gates[0]
        for edge, operation in picks[0]:
            x_BCHW = self.edges[edge][operation](x_BCHW)  # type: ignore[index]
            if gate_EK is not None:
                x_BCHW = x_BCHW * gate_EK[edge, operation]
        scores_BK: Tensor = self.classifier(x_BCHW.mean(dim=(2, 3)))
        return scores_BK


class ChainSpace:
    """The chain on two halves of the pictures; implements gdas.search.SearchSpace."""

    cell_types: Sequence[str] = ("chain",)

    def __init__(self, config: ChainConfig, images: Images) -> None:
        self.device = torch.device("cpu")
        self.halves = ImageHalves(config, images, self.device)
        self.edges = config.edges
        chain = Chain(config.channels, config.edges, images.classes)
        self.weights: nn.Module = self.halves.place(chain)

    def steps(self, epoch: int) -> int:
        return self.halves.steps

    def lr_scale(self, epoch: int, step: int) -> float:
        return 1.0

    def initial_logits(self, generator: torch.Generator) -> dict[str, Tensor]:
        logits_EK = 1e-3 * torch.randn(self.edges, len(OPERATIONS), generator=generator)
        return {"chain": logits_EK.requires_grad_()}

    def weight_loss(self, architecture: Architecture, epoch: int, step: int) -> BatchLoss:
        return self.halves.weight_loss(self.weights, architecture, epoch, step)

    def alpha_loss(self, architecture: Architecture, epoch: int, step: int) -> BatchLoss:
        return self.halves.alpha_loss(self.weights, architecture, epoch, step)

    def drawn_parameters(self, picks: Sequence[Sequence[Pick]]) -> Iterator[nn.Parameter]:
        for edge, operation in picks[0]:
            yield from self.weights.edges[edge][operation].parameters()  # type: ignore[union-attr,index]

    def derived(self, logits: dict[str, Tensor]) -> tuple[dict[str, float], dict[str, Any]]:
        best_E = logits["chain"].argmax(dim=1).tolist()
        return {}, {"chain": [OPERATIONS[k] for k in best_E]}
