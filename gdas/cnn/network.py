"""The network of a genotype: the derived cell stacked, for CIFAR and for ImageNet (paper Fig. 2).

Shapes: B batch, C channels, H and W height and width, D drop-path sites of the whole network.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.cnn.cell import DerivedCell, FixedReductionCell
from gdas.cnn.fused.layers import covers_input
from gdas.cnn.fused.walk import Source, Visit, derived_plan, fixed_plan, stem_sources, visit, walk
from gdas.cnn.genotype import Genotype, check_genotype
from gdas.cnn.layout import Macro, Stem, build_stem, cell_places, check_network
from gdas.cnn.norm import BatchNorm
from gdas.cnn.operations import Style
from gdas.errors import InputError

AUXILIARY_SIZES = {"cifar": range(29, 41), "imagenet": range(193, 257)}
"""Input sizes for which the auxiliary head's pooling leaves exactly 2 x 2."""


class AuxiliaryHead(nn.Module):
    """A second classifier on the second reduction's output, used only in training.

    Source: authors' code. The ImageNet head pools with stride 2 and has no batch norm after its
    second convolution.
    """

    def __init__(self, channels: int, classes: int, stem: Stem) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, 3 if stem == "cifar" else 2, 0, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            BatchNorm(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            BatchNorm(768) if stem == "cifar" else nn.Identity(),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Class scores, B by the number of classes."""
        scores: Tensor = self.classifier(self.features(x_BCHW).flatten(1))
        return scores


class Network(nn.Module):
    """The network of a genotype.

    Args:
        genotype: the cells; `reduce=None` means the fixed reduction cell.
        classes: number of classes.
        channels: C (paper: 36 on CIFAR, 50 or 52 on ImageNet).
        normals_per_block: N (paper: 6 on CIFAR, 4 on ImageNet).
        stem: "cifar" or "imagenet".
        auxiliary: whether to build the auxiliary head (for sizes see check_auxiliary_input).
        macro, pooling_norm: see gdas.cnn.layout and gdas.cnn.operations.Style.
        operations: the operations from outside that may be imported (gdas.outside).

    Raises:
        InputError: the cell is the fixed reduction cell and `channels` is not divisible by 4, or it
            has an operation from outside that is not among `operations`.

    Attributes:
        fused: whether cells run with the kernels of gdas.cnn.fused where those cover them.
    """

    fused: bool = False

    def __init__(
        self,
        genotype: Genotype,
        classes: int,
        *,
        channels: int,
        normals_per_block: int,
        stem: Stem = "cifar",
        auxiliary: bool = False,
        macro: Macro = "3n+2",
        pooling_norm: bool = True,
        operations: Sequence[str] = (),
    ) -> None:
        super().__init__()
        check_genotype(genotype)
        check_network(classes, channels, normals_per_block, stem, macro)
        if genotype.reduce is None:
            check_fixed_reduction(channels)
        style = Style(affine=True, pooling_norm=pooling_norm)
        self.stem = build_stem(stem, channels)
        before_last = last = self.stem.out_channels
        self.cells = nn.ModuleList()
        self.auxiliary: AuxiliaryHead | None = None
        self.auxiliary_after = -1
        for i, place in enumerate(cell_places(channels, normals_per_block, macro, stem)):
            cell: DerivedCell | FixedReductionCell
            if place.reduction and genotype.reduce is None:
                cell = FixedReductionCell(
                    before_last, last, place.channels, style, last_reduced=place.last_reduced
                )
            else:
                cell = DerivedCell(
                    (genotype.reduce or ()) if place.reduction else genotype.normal,
                    before_last,
                    last,
                    place.channels,
                    style,
                    reduction=place.reduction,
                    last_reduced=place.last_reduced,
                    concat=genotype.reduce_concat if place.reduction else genotype.normal_concat,
                    named=operations,
                )
            self.cells.append(cell)
            before_last, last = last, cell.multiplier * place.channels
            if place.reduction:
                self.auxiliary_after, auxiliary_channels = i, last
        if auxiliary:
            self.auxiliary = AuxiliaryHead(auxiliary_channels, classes, stem)
        self.last_activation = (
            nn.Sequential(BatchNorm(last), nn.ReLU()) if macro == "3n" else nn.Identity()
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, classes)
        self.drop_sites: int = sum(cell.drop_sites for cell in self.cells)  # type: ignore[misc]

    def forward(
        self, images_BCHW: Tensor, keep_DB: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Class scores, and those of the auxiliary head in training mode.

        Args:
            keep_DB: drop-path factors, one row for each of `drop_sites` sites: 0, or 1 divided by
                the keep probability. None: no drop path.
        """
        if self.fused and self.training and covers_input(images_BCHW):
            return self._fused_scores(images_BCHW, keep_DB)
        s0_BCHW, s1_BCHW = self.stem(images_BCHW)
        auxiliary_scores = None
        site = 0
        out_BCHW = s1_BCHW
        for i, cell in enumerate(self.cells):
            if i:  # in place, since concatenation does not save its result for the backward pass
                s0_BCHW, s1_BCHW = s1_BCHW, F.relu(out_BCHW, inplace=True)
            sites = int(cell.drop_sites)  # type: ignore[arg-type]
            keep = None if keep_DB is None else keep_DB[site : site + sites]
            out_BCHW = cell(s0_BCHW, s1_BCHW, keep)
            site += sites
            if i == self.auxiliary_after and self.auxiliary is not None and self.training:
                auxiliary_scores = self.auxiliary(out_BCHW)
        pooled_BC = self.pool(self.last_activation(out_BCHW)).flatten(1)
        return self.classifier(pooled_BC), auxiliary_scores

    def _fused_scores(
        self, images_BCHW: Tensor, keep_DB: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        auxiliary: list[Tensor] = []
        visits: list[Visit] = []
        site = 0
        for cell in self.cells:
            sites = int(cell.drop_sites)  # type: ignore[arg-type]
            keep = None if keep_DB is None else keep_DB[site : site + sites]
            site += sites
            plan = fixed_plan(cell) if isinstance(cell, FixedReductionCell) else derived_plan(cell)
            visits.append(visit(cell, plan, partial(cell, keep_DB=keep), keep_DB=keep))

        def after(i: int, out: Source) -> None:
            if i == self.auxiliary_after and self.auxiliary is not None:
                auxiliary.append(self.auxiliary(out.joined()))

        last = walk(*stem_sources(self.stem, images_BCHW), visits, after)
        pooled_BC = last.pooled(self.last_activation, self.pool)
        return self.classifier(pooled_BC), auxiliary[0] if auxiliary else None


def draw_drop_path(
    network: Network, batch: int, probability: float, generator: torch.Generator
) -> Tensor | None:
    """Draw the factors keep_DB for one step, on the CPU (paper section 4.2: drop path).

    Each sample at each site is dropped with `probability`; what is kept is divided by 1 -
    probability.

    Returns:
        None if nothing can be dropped.
    """
    if probability <= 0:
        return None
    keep = 1.0 - probability
    mask_DB = torch.rand((network.drop_sites, batch), generator=generator) < keep
    return mask_DB.float() / keep


def check_fixed_reduction(channels: int) -> None:
    """Raise InputError unless the fixed reduction cell can be built at initial `channels`."""
    if channels % 4:
        raise InputError(
            f"channels={channels}: the fixed reduction cell (FRC) needs channels divisible by 4, "
            f"such as {channels + -channels % 4}"
        )


def check_auxiliary_input(size: int, stem: Stem) -> None:
    """Raise InputError unless the auxiliary head accepts `size` x `size` images."""
    sizes = AUXILIARY_SIZES[stem]
    if size not in sizes:
        raise InputError(
            f"{size} x {size} images do not suit the {stem} auxiliary head, which needs "
            f"{sizes.start} to {sizes.stop - 1}: set auxiliary_weight=0 to train without it"
        )
