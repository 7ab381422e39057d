"""The search cell, the derived cell and the fixed reduction cell (paper Eq. 1, 3, 5; Fig. 3).

The inputs of a cell are the outputs of the two cells before it, after a ReLU: s0 (two back) and s1
(one back). Its output has `multiplier * channels` channels, at half the size if it is a reduction.

Shapes: B batch, C channels, H and W height and width, E edges, K operations, D drop-path sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gdas.cell_json import Edge
from gdas.cnn.derive import edge_list
from gdas.cnn.genotype import EDGES_PER_NODE, OPERATIONS
from gdas.cnn.layout import Wiring
from gdas.cnn.norm import BatchNorm
from gdas.cnn.operations import FactorizedReduce, Style, build_operation, conv_norm
from gdas.cnn.rearrange import concatenate, layout_of
from gdas.errors import InputError
from gdas.field_types import require_type
from gdas.sampler import Pick

NONE = OPERATIONS.index("none")
ONE_BY_ONE_ON = ("cpu",)
"""Device types on which a copy costs more than an operation; gates' gradients come one by one."""


class Preprocess(nn.Module):
    """Bring s0 and s1 to the cell's channels, and s0 to s1's size after a reduction.

    In the paper and the authors' code its layers begin with a ReLU. Here s0 and s1 have already
    passed one: two cells read every cell's output, and share its ReLU.
    """

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
            self.s0 = FactorizedReduce(c_before_last, channels, style, activate=False)
        else:
            self.s0 = conv_norm(c_before_last, channels, style)
        self.s1 = conv_norm(c_last, channels, style)

    def forward(self, s0_BCHW: Tensor, s1_BCHW: Tensor) -> list[Tensor]:
        """[s0, s1] with the cell's channels and of equal size."""
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
        operations: Sequence[str] = OPERATIONS,
    ) -> None:
        super().__init__()
        require_type(nodes, int, "nodes", least=1)
        self.preprocess = Preprocess(
            c_before_last, c_last, channels, style, last_reduced=last_reduced
        )
        self.none = operations.index("none") if "none" in operations else -1
        self.nodes = nodes
        self.reduction = reduction
        self.edge_list = edge_list(nodes)
        self.edges = nn.ModuleList(
            nn.ModuleList(
                build_operation(
                    name, channels, 2 if reduction and source < 2 else 1, style, operations
                )
                for name in operations
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
        """Run the picked operations only; returns the concatenated nodes.

        Args:
            picks: (edge, operation) pairs: 14 in a sampled pass, 8 in a derived cell. `none` and
                edges that are not named add nothing.
            gate_EK: the draw's gate on the images' device; only in the alpha step, which needs its
                gradient. In a hard draw its value is 1 at every pick.
            operation_BE: the operation that each image runs, on the CPU; the gate is then B x E x
                K.
        """
        states = self.preprocess(s0_BCHW, s1_BCHW)
        hard = len({e for e, _ in picks}) == len(picks)
        of_picks: dict[Pick, Tensor] = {}
        if gate_EK is not None and operation_BE is None:
            of_picks = dict(zip(picks, take_gates(gate_EK, picks), strict=True))
        for node in range(self.nodes):
            terms: list[Tensor] = []
            gates: list[Tensor] = []
            for e, k in picks:
                of_node, source = self.edge_list[e]
                if of_node != node or k == self.none:
                    continue
                operation: nn.Module = self.edges[e][k]  # type: ignore[index]
                if operation_BE is not None:
                    rows = (operation_BE[: len(s0_BCHW), e] == k).nonzero().flatten()
                    if len(rows):
                        terms.append(on_rows(operation, states[source], rows, gate_EK, e, k))
                    continue
                terms.append(operation(states[source]))
                if gate_EK is not None:
                    gates.append(of_picks[e, k])
            if not terms:
                states.append(self._zero(states[0]))
            elif not gates:
                states.append(sum_of(terms))
            elif hard:
                states.append(sum_through_gates(gates, terms))
            else:
                states.append(
                    sum_of([term * gate for term, gate in zip(terms, gates, strict=True)])
                )
        return concatenate(states[2:])

    def _zero(self, input_BCHW: Tensor) -> Tensor:
        stride = 2 if self.reduction else 1
        return torch.zeros_like(input_BCHW[:, :, ::stride, ::stride])


def on_rows(
    operation: nn.Module, state_BCHW: Tensor, rows: Tensor, gate_BEK: Tensor | None, e: int, k: int
) -> Tensor:
    """Run an operation on some images of a batch, the ones batch norm sees; others are zero."""
    rows = rows.to(state_BCHW.device, non_blocking=True)
    out_RCHW: Tensor = operation(state_BCHW[rows])
    if gate_BEK is not None:
        out_RCHW = out_RCHW * gate_BEK[rows, e, k].to(out_RCHW.dtype)[:, None, None, None]
    out_BCHW = out_RCHW.new_zeros(len(state_BCHW), *out_RCHW.shape[1:])
    return out_BCHW.index_add(0, rows, out_RCHW)


def sum_of(terms: Sequence[Tensor]) -> Tensor:
    """The sum of the terms, without the zero that Python's `sum` starts from."""
    if len(terms) == 1:
        return terms[0]
    total = terms[0] + terms[1]
    for term in terms[2:]:
        total += term
    return total


class _TakeGates(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_EK: Tensor, places: list[int]) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.shape, ctx.places = gate_EK.shape, places
        flat = gate_EK.flatten()
        return tuple(flat[place] for place in places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None]:
        known = [gradient for gradient in gradients if gradient is not None]
        if not known:
            return None, None
        values = [known[0].new_zeros(())] * ctx.shape.numel()
        for place, gradient in zip(ctx.places, gradients, strict=True):
            if gradient is not None:
                values[place] = gradient
        return torch.stack(values).view(ctx.shape), None


def take_gates(gate_EK: Tensor, picks: Sequence[Pick]) -> tuple[Tensor, ...]:
    """The gates of some picks, all different, each a scalar.

    With plain indexing, the backward pass would make a whole gate_EK, mostly zero, for each of
    them.
    """
    operations = gate_EK.shape[1]
    places = [e * operations + k for e, k in picks]
    return _TakeGates.apply(gate_EK, places)  # type: ignore[no-any-return]


class _SumThroughGates(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, count: int, *gates_and_terms: Tensor) -> Tensor:
        terms_BCHW = gates_and_terms[count:]
        ctx.dtype = gates_and_terms[0].dtype
        ctx.save_for_backward(*terms_BCHW)
        return sum_of(terms_BCHW) if count > 1 else terms_BCHW[0].view_as(terms_BCHW[0])

    @staticmethod
    def backward(ctx: Any, gradient_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        terms_BCHW = ctx.saved_tensors
        dtype = torch.promote_types(ctx.dtype, gradient_BCHW.dtype)
        products = _inner_products(gradient_BCHW, terms_BCHW, dtype)
        of_gates = [product.to(ctx.dtype) for product in products]
        return None, *of_gates, *[gradient_BCHW] * len(terms_BCHW)


def _inner_products(
    gradient_BCHW: Tensor, terms_BCHW: Sequence[Tensor], dtype: torch.dtype
) -> Sequence[Tensor]:
    """The inner product of each term with the gradient; off CPUs, in three launches for all."""
    if gradient_BCHW.device.type in ONE_BY_ONE_ON or len(terms_BCHW) < 3:
        return [(gradient_BCHW * term).sum(dtype=dtype) for term in terms_BCHW]
    if layout_of(gradient_BCHW) == torch.channels_last:  # copied in memory order
        gradient_BCHW = gradient_BCHW.permute(0, 2, 3, 1)
        terms_BCHW = [term.permute(0, 2, 3, 1) for term in terms_BCHW]
    products = torch.stack(list(terms_BCHW)) * gradient_BCHW
    return products.flatten(1).sum(1, dtype=dtype).unbind()


def sum_through_gates(gates: Sequence[Tensor], terms_BCHW: Sequence[Tensor]) -> Tensor:
    """The sum of gate times term, if every gate's value is exactly 1; gradients follow Eq. 7.

    Neither the products nor the terms' gradients need a separate pass over the tensors: a gate's
    gradient is the inner product of its term and the node's gradient.

    Args:
        gates: a scalar for each term.
        terms_BCHW: the outputs of the operations.
    """
    out: Tensor = _SumThroughGates.apply(len(terms_BCHW), *gates, *terms_BCHW)
    return out


def drop_path(x_BCHW: Tensor, keep_B: Tensor | None) -> Tensor:
    """Multiply each sample by its entry of `keep_B` (0, or 1 / keep probability); None: no drop."""
    return x_BCHW if keep_B is None else x_BCHW * keep_B[:, None, None, None].to(x_BCHW.dtype)


class DerivedCell(nn.Module):
    """The cell of a genotype (Eq. 1): two operations per node.

    Drop path (authors' code) applies to each operation's output, except identity skips.

    Args:
        concat: the nodes that the output concatenates, numbered from 2; None: all of them.
        named: the operations from outside that may be imported.
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
        concat: Sequence[int] | None = None,
        named: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.preprocess = Preprocess(
            c_before_last, c_last, channels, style, last_reduced=last_reduced
        )
        self.sources = [source for _, source in edges]
        self.operations = nn.ModuleList(
            build_operation(name, channels, 2 if reduction and source < 2 else 1, style, named)
            for name, source in edges
        )
        self.dropped = [not isinstance(operation, nn.Identity) for operation in self.operations]
        self.nodes = len(edges) // EDGES_PER_NODE
        self.concat = list(range(2, self.nodes + 2) if concat is None else concat)
        self.multiplier = len(self.concat)

    @property
    def drop_sites(self) -> int:
        """How many operations drop path applies to."""
        return sum(self.dropped)

    def forward(self, s0_BCHW: Tensor, s1_BCHW: Tensor, keep_DB: Tensor | None) -> Tensor:
        """The concatenated nodes; `keep_DB` has drop-path factors, None for no drop."""
        states = self.preprocess(s0_BCHW, s1_BCHW)
        masks = iter(keep_DB) if keep_DB is not None else None
        for node in range(self.nodes):
            terms = []
            for i in range(EDGES_PER_NODE * node, EDGES_PER_NODE * (node + 1)):
                out_BCHW = self.operations[i](states[self.sources[i]])
                keep_B = next(masks) if masks is not None and self.dropped[i] else None
                terms.append(drop_path(out_BCHW, keep_B))
            states.append(sum_of(terms))
        return concatenate([states[i] for i in self.concat])


class FixedReductionCell(nn.Module):
    """The hand-made reduction cell (paper Fig. 3; groups and batch norms from the authors' code).

    It has four branches of `channels` each, in this order: convolutions of s0, of s1, max pooling
    of s0, of s1. `wiring="2019"` is the older form of the search code, in which the first pooling
    reads the sum of the two convolution branches instead of s0 (with equal parameters and
    multiply-adds).
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
        wiring: Wiring = "figure",
    ) -> None:
        super().__init__()
        require_type(wiring, Wiring, "wiring")
        if channels % 8:
            raise InputError(
                f"{channels} cell channels: the fixed reduction cell needs a multiple of 8; choose "
                "initial channels divisible by 4, such as channels=16"
            )
        self.preprocess = Preprocess(
            c_before_last, c_last, channels, style, last_reduced=last_reduced
        )
        self.convolutions = nn.ModuleList(_reducing_convolution(channels, style) for _ in range(2))
        strides = (2, 2) if wiring == "figure" else (1, 2)
        self.poolings = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(3, stride, 1), BatchNorm(channels, affine=style.affine))
            for stride in strides
        )
        self.wiring = wiring

    def forward(self, s0_BCHW: Tensor, s1_BCHW: Tensor, keep_DB: Tensor | None) -> Tensor:
        """The four branches, concatenated; `keep_DB` has drop-path factors, None for no drop."""
        states = self.preprocess(s0_BCHW, s1_BCHW)
        masks = [None] * 4 if keep_DB is None else list(keep_DB)
        x0, x1 = (
            drop_path(convolution(state), mask)
            for convolution, state, mask in zip(self.convolutions, states, masks[:2], strict=True)
        )
        x2 = self.poolings[0](states[0] if self.wiring == "figure" else x0 + x1)
        x3 = self.poolings[1](states[1])
        return concatenate([x0, x1, drop_path(x2, masks[2]), drop_path(x3, masks[3])])


def _reducing_convolution(channels: int, style: Style) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, 3), (1, 2), (0, 1), groups=8, bias=style.bias),
        nn.Conv2d(channels, channels, (3, 1), (2, 1), (1, 0), groups=8, bias=style.bias),
        BatchNorm(channels, affine=style.affine),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 1, bias=style.bias),
        BatchNorm(channels, affine=style.affine),
    )
