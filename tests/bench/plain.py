"""The networks written the obvious way, as the authors did in 2019: what ours is measured against.

Plain modules in NCHW layout, written from the facts of the paper and the authors' code: every
operation's layers as they are named, a dilated convolution as a dilated one, a strided one as a
strided one, `none` as a product with zero, and one product with the gate on every edge. Parameter
names are those of gdas.cnn, so that one's weights can be loaded into the other.

Shapes: B batch, C channels, H and W height and width, E edges, K operations, D drop-path sites.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.cell_json import Edge
from gdas.cnn.derive import edge_list
from gdas.cnn.genotype import OPERATIONS, Genotype
from gdas.cnn.layout import Stem as StemName
from gdas.cnn.layout import cell_places
from gdas.sampler import Pick


class Zero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW[:, :, :: self.stride, :: self.stride].mul(0.0)


class Pool(nn.Module):
    def __init__(self, pool: nn.Module, channels: int) -> None:
        super().__init__()
        self.pool = pool
        self.norm = nn.BatchNorm2d(channels, affine=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.norm(self.pool(x_BCHW))  # type: ignore[no-any-return]


class FactorizedReduce(nn.Module):
    def __init__(self, c_in: int, c_out: int, affine: bool) -> None:
        super().__init__()
        self.even = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(c_out, affine=affine)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = F.relu(x_BCHW)
        shifted_BCHW = F.pad(x_BCHW, (0, 1, 0, 1))[:, :, 1:, 1:]
        out_BCHW = torch.cat([self.even(x_BCHW), self.odd(shifted_BCHW)], dim=1)
        return self.norm(out_BCHW)  # type: ignore[no-any-return]


def relu_conv_norm(c_in: int, c_out: int, affine: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(), nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out, affine=affine)
    )


def separable(
    channels: int, kernel: int, affine: bool, strides: Sequence[int], dilation: int = 1
) -> nn.Sequential:
    """Passes of ReLU, depthwise convolution, pointwise convolution and batch norm."""
    layers: list[nn.Module] = []
    for stride in strides:
        padding = dilation * (kernel - 1) // 2
        layers += [
            nn.ReLU(),
            nn.Conv2d(
                channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False
            ),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        ]
    return nn.Sequential(*layers)


def build_operation(name: str, channels: int, stride: int, affine: bool) -> nn.Module:
    match name:
        case "none":
            return Zero(stride)
        case "max_pool_3x3":
            return Pool(nn.MaxPool2d(3, stride, 1), channels)
        case "avg_pool_3x3":
            return Pool(nn.AvgPool2d(3, stride, 1, count_include_pad=False), channels)
        case "skip_connect":
            return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)
        case "sep_conv_3x3":
            return separable(channels, 3, affine, [stride, 1])
        case "sep_conv_5x5":
            return separable(channels, 5, affine, [stride, 1])
        case "dil_conv_3x3":
            return separable(channels, 3, affine, [stride], dilation=2)
        case "dil_conv_5x5":
            return separable(channels, 5, affine, [stride], dilation=2)
    raise ValueError(f"unknown operation {name!r}")


class Preprocess(nn.Module):
    def __init__(
        self, c_before_last: int, c_last: int, channels: int, affine: bool, last_reduced: bool
    ) -> None:
        super().__init__()
        first = FactorizedReduce if last_reduced else relu_conv_norm
        self.s0: nn.Module = first(c_before_last, channels, affine)
        self.s1 = relu_conv_norm(c_last, channels, affine)

    def forward(self, s0_BCHW: Tensor, s1_BCHW: Tensor) -> list[Tensor]:
        return [self.s0(s0_BCHW), self.s1(s1_BCHW)]


class Stem(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3 * channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3 * channels)

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        out_BCHW = self.norm(self.conv(images_BCHW))
        return out_BCHW, out_BCHW


def halving(c_in: int, c_out: int) -> list[nn.Module]:
    return [nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(c_out)]


class ImageNetStem(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.stem0 = nn.Sequential(*halving(3, half), nn.ReLU(), *halving(half, channels))
        self.stem1 = nn.Sequential(nn.ReLU(), *halving(channels, channels))

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        s0_BCHW = self.stem0(images_BCHW)
        return s0_BCHW, self.stem1(s0_BCHW)


class PlainSearchCell(nn.Module):
    def __init__(
        self,
        c_before_last: int,
        c_last: int,
        channels: int,
        *,
        nodes: int,
        reduction: bool,
        last_reduced: bool,
    ) -> None:
        super().__init__()
        self.preprocess = Preprocess(c_before_last, c_last, channels, False, last_reduced)
        self.edge_list = edge_list(nodes)
        self.edges = nn.ModuleList(
            nn.ModuleList(
                build_operation(name, channels, 2 if reduction and source < 2 else 1, False)
                for name in OPERATIONS
            )
            for _, source in self.edge_list
        )

    def forward(
        self, s0_BCHW: Tensor, s1_BCHW: Tensor, picks: Sequence[Pick], gate_EK: Tensor
    ) -> Tensor:
        states = self.preprocess(s0_BCHW, s1_BCHW)
        drawn = dict(picks)
        for node in range(max(of_node for of_node, _ in self.edge_list) + 1):
            total: Tensor | int = 0
            for e, (of_node, source) in enumerate(self.edge_list):
                if of_node == node:
                    k = drawn[e]
                    operation = self.edges[e][k]  # type: ignore[index]
                    total = total + gate_EK[e, k] * operation(states[source])
            states.append(total)
        return torch.cat(states[2:], dim=1)


class PlainSupernet(nn.Module):
    """gdas.cnn.supernet.Supernet with both cells searched."""

    def __init__(
        self, classes: int, *, channels: int = 16, normals_per_block: int = 2, nodes: int = 4
    ) -> None:
        super().__init__()
        self.stem = Stem(channels)
        before_last = last = 3 * channels
        self.cells = nn.ModuleList()
        for place in cell_places(channels, normals_per_block, "3n+2", "cifar"):
            cell = PlainSearchCell(
                before_last,
                last,
                place.channels,
                nodes=nodes,
                reduction=place.reduction,
                last_reduced=place.last_reduced,
            )
            self.cells.append(cell)
            before_last, last = last, nodes * place.channels
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, classes)

    def forward(
        self,
        images_BCHW: Tensor,
        picks: Sequence[Sequence[Pick]],
        gates: Sequence[Tensor],
    ) -> Tensor:
        s0_BCHW, s1_BCHW = self.stem(images_BCHW)
        for cell, cell_picks, gate_EK in zip(self.cells, picks, gates, strict=True):
            s0_BCHW, s1_BCHW = s1_BCHW, cell(s0_BCHW, s1_BCHW, cell_picks, gate_EK)
        return self.classifier(self.pool(s1_BCHW).flatten(1))  # type: ignore[no-any-return]


class PlainDerivedCell(nn.Module):
    def __init__(
        self,
        edges: Sequence[Edge],
        c_before_last: int,
        c_last: int,
        channels: int,
        *,
        reduction: bool,
        last_reduced: bool,
    ) -> None:
        super().__init__()
        self.preprocess = Preprocess(c_before_last, c_last, channels, True, last_reduced)
        self.sources = [source for _, source in edges]
        self.operations = nn.ModuleList(
            build_operation(name, channels, 2 if reduction and source < 2 else 1, True)
            for name, source in edges
        )

    def forward(self, s0_BCHW: Tensor, s1_BCHW: Tensor, masks: Iterator[Tensor]) -> Tensor:
        states = self.preprocess(s0_BCHW, s1_BCHW)
        for node in range(len(self.sources) // 2):
            terms = []
            for i in (2 * node, 2 * node + 1):
                out_BCHW = self.operations[i](states[self.sources[i]])
                if not isinstance(self.operations[i], nn.Identity):
                    out_BCHW = out_BCHW * next(masks)[:, None, None, None]
                terms.append(out_BCHW)
            states.append(terms[0] + terms[1])
        return torch.cat(states[2:], dim=1)


class PlainNetwork(nn.Module):
    """gdas.cnn.network.Network of a genotype with both cells, without auxiliary head."""

    def __init__(
        self,
        genotype: Genotype,
        classes: int,
        *,
        channels: int,
        normals_per_block: int,
        drop_sites: int,
        stem: StemName = "cifar",
    ) -> None:
        super().__init__()
        assert genotype.reduce is not None
        self.drop_sites = drop_sites
        self.stem = Stem(channels) if stem == "cifar" else ImageNetStem(channels)
        before_last = last = 3 * channels if stem == "cifar" else channels
        self.cells = nn.ModuleList()
        for place in cell_places(channels, normals_per_block, "3n+2", stem):
            edges = genotype.reduce if place.reduction else genotype.normal
            cell = PlainDerivedCell(
                edges,
                before_last,
                last,
                place.channels,
                reduction=place.reduction,
                last_reduced=place.last_reduced,
            )
            self.cells.append(cell)
            before_last, last = last, len(edges) // 2 * place.channels
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, classes)

    def forward(self, images_BCHW: Tensor, keep_DB: Tensor) -> tuple[Tensor, None]:
        s0_BCHW, s1_BCHW = self.stem(images_BCHW)
        masks = iter(keep_DB)
        for cell in self.cells:
            s0_BCHW, s1_BCHW = s1_BCHW, cell(s0_BCHW, s1_BCHW, masks)
        return self.classifier(self.pool(s1_BCHW).flatten(1)), None
