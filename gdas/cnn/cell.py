"""The search cell, the derived cell and the fixed reduction cell (paper Eq. 1, 3, 5; Fig. 3).

Every cell maps the outputs of the two cells before it, s0 (two back) and s1 (one back), to
`multiplier * channels` channels, at half the size if it is a reduction.

Shapes: B batch, C channels, H and W height and width, E edges, K operations, D drop-path sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from gdas.cnn.operations import FactorizedReduce, Style, build_operation, relu_conv_norm
from gdas.derive import edge_list
from gdas.errors import InputError
from gdas.genotype import EDGES_PER_NODE, OPERATIONS, Edge
from gdas.sampler import Pick

NONE = OPERATIONS.index("none")


class Preprocess(nn.Module):
    """Bring s0 and s1 to the cell's channels, and s0 to s1's size after a reduction."""

    def __init__(
        self,
        c_before_last: int,
        c_last: int,
        channels: int,
        style: Style,
        *,
        last_reduced: bool,
    ) -> None:
        super().__init__()
        self.s0: nn.Module
        if last_reduced:
            self.s0 = FactorizedReduce(c_before_last, channels, style)
        else:
            self.s0 = relu_conv_norm(c_before_last, channels, style)
        self.s1 = relu_conv_norm(c_last, channels, style)

    def forward(self, s0_BCHW: Tensor, s1_BCHW: Tensor) -> list[Tensor]:
        return [self.s0(s0_BCHW), self.s1(s1_BCHW)]


class SearchCell(nn.Module):
    """All K operations on every edge; a forward pass runs only those that were picked (Eq. 3, 5).

    In a reduction cell the edges from the two inputs have stride 2, the others stride 1.
    """

    def __init__(
        self,
        c_before_last: int,
        c_last: int,
        channels: int,
        style: Style,
        *,
        nodes: int,
        reduction: bool,
        last_reduced: bool,
    ) -> None:
        super().__init__()
        self.preprocess = Preprocess(
            c_before_last, c_last, channels, style, last_reduced=last_reduced
        )
        self.nodes = nodes
        self.reduction = reduction
        self.edge_list = edge_list(nodes)
        self.edges = nn.ModuleList(
            nn.ModuleList(
                build_operation(name, channels, 2 if reduction and source < 2 else 1, style)
                for name in OPERATIONS
            )
            for _, source in self.edge_list
        )

    def forward(
        self,
        s0_BCHW: Tensor,
        s1_BCHW: Tensor,
        picks: Sequence[Pick],
        gate_EK: Tensor | None = None,
        operation_BE: Tensor | None = None,
    ) -> Tensor:
        """Run the picked operations only.

        Args:
            picks: (edge, operation) pairs, at most one draw's: 14 of them in a sampled pass, 8 in
                a derived cell. `none` and edges that are not named add nothing.
            gate_EK: the draw's gate on the images' device; given in the alpha step only, where
                its gradient is the point. Its value is 1 at every pick.
            operation_BE: what each image runs, on the CPU; then the gate is gate_BEK.
        """
        states = self.preprocess(s0_BCHW, s1_BCHW)
        for node in range(self.nodes):
            terms: list[Tensor] = []
            for e, k in picks:
                of_node, source = self.edge_list[e]
                if of_node != node or k == NONE:
                    continue
                operation: nn.Module = self.edges[e][k]  # type: ignore[index]
                if operation_BE is not None:
                    rows = (operation_BE[: len(s0_BCHW), e] == k).nonzero().flatten()
                    if len(rows):
                        terms.append(on_rows(operation, states[source], rows, gate_EK, e, k))
                    continue
                out_BCHW: Tensor = operation(states[source])
                terms.append(out_BCHW if gate_EK is None else out_BCHW * gate_EK[e, k])
            states.append(sum_of(terms) if terms else self._zero(states[0]))
        return torch.cat(states[2:], dim=1)

    def _zero(self, input_BCHW: Tensor) -> Tensor:
        stride = 2 if self.reduction else 1
        return torch.zeros_like(input_BCHW[:, :, ::stride, ::stride])


def on_rows(
    operation: nn.Module, state_BCHW: Tensor, rows: Tensor, gate_BEK: Tensor | None, e: int, k: int
) -> Tensor:
    """An operation on some images of a batch, zero for the others; its batch norm sees those."""
    rows = rows.to(state_BCHW.device, non_blocking=True)
    out_RCHW: Tensor = operation(state_BCHW[rows])
    if gate_BEK is not None:
        out_RCHW = out_RCHW * gate_BEK[rows, e, k].to(out_RCHW.dtype)[:, None, None, None]
    out_BCHW = out_RCHW.new_zeros(len(state_BCHW), *out_RCHW.shape[1:])
    return out_BCHW.index_add(0, rows, out_RCHW)


def sum_of(terms: Sequence[Tensor]) -> Tensor:
    """Their sum, without the zero that `sum` starts from."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def drop_path(x_BCHW: Tensor, keep_B: Tensor | None) -> Tensor:
    """Scale every sample by its entry of `keep_B` (0, or 1 / keep probability); None: no drop."""
    return x_BCHW if keep_B is None else x_BCHW * keep_B[:, None, None, None].to(x_BCHW.dtype)


class DerivedCell(nn.Module):
    """The cell of a genotype (Eq. 1): two operations a node.

    Drop path (authors' code): each operation's output but identity skips.
    """

    def __init__(
        self,
        edges: Sequence[Edge],
        c_before_last: int,
        c_last: int,
        channels: int,
        style: Style,
        *,
        reduction: bool,
        last_reduced: bool,
    ) -> None:
        super().__init__()
        self.preprocess = Preprocess(
            c_before_last, c_last, channels, style, last_reduced=last_reduced
        )
        self.sources = [source for _, source in edges]
        self.operations = nn.ModuleList(
            build_operation(name, channels, 2 if reduction and source < 2 else 1, style)
            for name, source in edges
        )
        self.dropped = [not isinstance(operation, nn.Identity) for operation in self.operations]
        self.multiplier = len(edges) // EDGES_PER_NODE

    @property
    def drop_sites(self) -> int:
        return sum(self.dropped)

    def forward(self, s0_BCHW: Tensor, s1_BCHW: Tensor, keep_DB: Tensor | None) -> Tensor:
        states = self.preprocess(s0_BCHW, s1_BCHW)
        masks = iter(keep_DB) if keep_DB is not None else None
        for node in range(self.multiplier):
            terms = []
            for i in range(EDGES_PER_NODE * node, EDGES_PER_NODE * (node + 1)):
                out_BCHW = self.operations[i](states[self.sources[i]])
                keep_B = next(masks) if masks is not None and self.dropped[i] else None
                terms.append(drop_path(out_BCHW, keep_B))
            states.append(sum_of(terms))
        return torch.cat(states[2:], dim=1)


class FixedReductionCell(nn.Module):
    """The hand-made reduction cell (paper Fig. 3; groups and batch norms from the authors' code).

    Four branches of `channels` each, in this order: convolutions of s0, of s1, max pooling of s0,
    of s1. `wiring="2019"` is the search code's older form, where the first pooling reads the sum
    of the two convolution branches instead of s0 (equal parameters and multiply-adds).
    """

    multiplier = 4
    drop_sites = 4

    def __init__(
        self,
        c_before_last: int,
        c_last: int,
        channels: int,
        style: Style,
        *,
        last_reduced: bool,
        wiring: Literal["figure", "2019"] = "figure",
    ) -> None:
        super().__init__()
        if channels % 8:
            raise InputError(
                f"the fixed reduction cell needs cell channels divisible by 8, got {channels}: "
                "choose initial channels divisible by 4"
            )
        self.preprocess = Preprocess(
            c_before_last, c_last, channels, style, last_reduced=last_reduced
        )
        self.convolutions = nn.ModuleList(_reducing_convolution(channels, style) for _ in range(2))
        strides = (2, 2) if wiring == "figure" else (1, 2)
        self.poolings = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(3, stride, 1), nn.BatchNorm2d(channels, affine=style.affine))
            for stride in strides
        )
        self.wiring = wiring

    def forward(self, s0_BCHW: Tensor, s1_BCHW: Tensor, keep_DB: Tensor | None) -> Tensor:
        states = self.preprocess(s0_BCHW, s1_BCHW)
        masks = [None] * 4 if keep_DB is None else list(keep_DB)
        x0, x1 = (
            drop_path(convolution(state), mask)
            for convolution, state, mask in zip(self.convolutions, states, masks[:2], strict=True)
        )
        x2 = self.poolings[0](states[0] if self.wiring == "figure" else x0 + x1)
        x3 = self.poolings[1](states[1])
        return torch.cat([x0, x1, drop_path(x2, masks[2]), drop_path(x3, masks[3])], dim=1)


def _reducing_convolution(channels: int, style: Style) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, 3), (1, 2), (0, 1), groups=8, bias=style.bias),
        nn.Conv2d(channels, channels, (3, 1), (2, 1), (1, 0), groups=8, bias=style.bias),
        nn.BatchNorm2d(channels, affine=style.affine),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 1, bias=style.bias),
        nn.BatchNorm2d(channels, affine=style.affine),
    )
