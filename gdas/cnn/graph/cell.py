"""A search cell as fixed lists of kernel launches, one autograd node (paper Eq. 3, 5).

What was drawn is read on the device: the same launches serve every draw. The gradients of the
weights go to the flat buffer of gdas.cnn.graph.flat, those of the gates to `gate_gradients`;
autograd carries the two inputs' only.

Shapes: B batch, C channels, H and W height and width, E edges, K operations; P output pixels and Q
input pixels of a cell (of all images).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gdas.cnn.cell import SearchCell
from gdas.cnn.graph import backward, depthwise, forward, shares
from gdas.cnn.graph.flat import FlatNorms, FlatWeights, flatten_norms

TILE = 2048
"""Numbers of a tile: pixels times channels."""
PROGRAMS = 256
"""Programs of an edge that leave a share of a pointwise weight's gradient each, at most."""
ADDING = 32
"""The same of a row of a depthwise kernel's gradient."""
WARPS = 8
"""Of the kernels that read up to 25 inputs an output."""
REGISTERS = 128
"""Most registers of a thread of theirs: with more, one program of 8 warps fills an H100's core."""
OF_SHARES = 8192
"""Numbers of tiles' shares that are added at once."""


class Sizes(NamedTuple):
    """Sizes of a cell for one batch."""

    batch: int
    h_in: int
    w_in: int
    h: int
    w: int

    @property
    def p(self) -> int:
        """How many output pixels the batch has."""
        return self.batch * self.h * self.w

    @property
    def q(self) -> int:
        """How many input pixels the batch has."""
        return self.batch * self.h_in * self.w_in


@dataclass
class GraphCell:
    """A search cell's tables on the device, and what its kernels write beside their results.

    Attributes:
        channels, nodes, edges, stride: C, B, E; 2 in a reduction cell.
        sources: int32, every edge's source.
        by_source: int32, the edges in the order in which their sources are ready.
        offsets: E x K, see FlatWeights.
        gate_gradients: E numbers (and some more), of the last backward pass.
        precision: of matrix products: "ieee", "tf32x3" (as exact, on tensor cores) or "tf32".
        dtype: in which feature maps are stored; sums are float32.
    """

    channels: int
    nodes: int
    edges: int
    stride: int
    sources: Tensor
    by_source: Tensor
    offsets: Tensor
    weights: FlatWeights
    norms: FlatNorms
    gate_gradients: Tensor
    precision: str
    dtype: torch.dtype = torch.float32
    tile: int = TILE
    warps: int = WARPS
    registers: int = REGISTERS

    @property
    def of_taps(self) -> dict[str, int]:
        """How the kernels run that read up to 25 inputs an output."""
        return {"num_warps": self.warps, "maxnreg": self.registers}

    @property
    def block_c(self) -> int:
        """How many channels a tile has: a power of 2, at least 16 and at least C."""
        return max(16, 1 << (self.channels - 1).bit_length())

    @property
    def block_p(self) -> int:
        """How many pixels a tile has, so that it has about `tile` numbers."""
        return max(16, self.tile // self.block_c)

    @property
    def block_t(self) -> int:
        """How many tiles' shares, of `block_c` channels each, are added at once."""
        return max(16, OF_SHARES // self.block_c)

    def sizes(self, x_BCHW: Tensor) -> Sizes:
        """The sizes of a batch of inputs and of the outputs for the cell's stride."""
        batch, _, h, w = x_BCHW.shape
        return Sizes(batch, h, w, -(-h // self.stride), -(-w // self.stride))


def graph_cell(
    cell: SearchCell,
    place: int,
    weights: FlatWeights,
    *,
    precision: str = "tf32x3",
    tile: int = TILE,
    warps: int = WARPS,
) -> GraphCell:
    """Prepare a cell whose weights lie in `weights`; its running statistics move to one buffer.

    Args:
        place: the cell's number in the network.
    """
    channels = cell.preprocess.s1[-1].num_features
    assert isinstance(channels, int)
    device = weights.weights.device
    sources = [source for _, source in cell.edge_list]
    ready = sorted(range(len(sources)), key=lambda e: (max(sources[e], 1), e))
    return GraphCell(
        channels=channels,
        nodes=cell.nodes,
        edges=len(sources),
        stride=2 if cell.reduction else 1,
        sources=torch.tensor(sources, dtype=torch.int32, device=device),
        by_source=torch.tensor(ready, dtype=torch.int32, device=device),
        offsets=weights.offsets[place],
        weights=weights,
        norms=flatten_norms(cell, channels),
        gate_gradients=torch.zeros(-(-len(sources) // 16) * 16, device=device),
        precision=precision,
        tile=tile,
        warps=warps,
    )


@dataclass
class Kept:
    """What a forward pass keeps for the backward one.

    Attributes:
        states: the two inputs (Q x C each), then the nodes side by side (P x nodes * C).
        raw, depth: 2 x E x P x C by slot: outputs before batch norm, and of depthwise convolutions.
        taken: E x P x C int8, which of nine inputs a max pool took.
        statistics: 2 x E x 2 x C, mean and 1 / deviation.
    """

    sizes: Sizes
    operations: Tensor
    states: Tensor
    raw: Tensor
    depth: Tensor
    taken: Tensor
    statistics: Tensor


def run_forward(
    cell: GraphCell, s0_BCHW: Tensor, s1_BCHW: Tensor, operations: Tensor, *, weights: bool
) -> tuple[Tensor, Kept]:
    """The cell's output (channels-last), and what backward needs.

    Args:
        weights: whether the weights will want a gradient.
        operations: int32, the drawn operation of every edge, on the device.
    """
    size = cell.sizes(s0_BCHW)
    c, e, p, q = cell.channels, cell.edges, size.p, size.q
    device, dtype = s0_BCHW.device, cell.dtype
    tiles = -(-p // cell.block_p)
    states = torch.empty((2 * q + cell.nodes * p) * c, device=device, dtype=dtype)
    for i, s_BCHW in enumerate((s0_BCHW, s1_BCHW)):
        _image(states, i * q * c, size.batch, size.h_in, size.w_in, c).copy_(s_BCHW)
    raw = torch.empty(2 * e * p * c, device=device, dtype=dtype)
    depth = torch.empty_like(raw) if weights else raw  # never written
    taken = torch.empty(e * p * c, device=device, dtype=torch.int8)
    statistics = torch.empty(2 * e * 2 * c, device=device)
    partial = torch.empty(e * tiles * 2 * c, device=device)
    blocks = {"BLOCK_P": cell.block_p, "BLOCK_C": cell.block_c}
    values, norms = cell.weights.weights, cell.norms
    kept = int(weights)
    first = 0
    for node in range(cell.nodes):
        # The edges from the state that is ready now: both inputs, then node after node.
        count = 2 * cell.nodes if node == 0 else cell.nodes - node
        forward.first_pass[(tiles, count)](
            states, raw, depth, taken, partial, operations, values, cell.offsets, cell.sources,
            cell.by_source, first, p, q, size.h, size.w, size.h_in, size.w_in, tiles, kept,
            e, c, cell.nodes, cell.stride, **blocks, PRECISION=cell.precision, **cell.of_taps,
        )  # fmt: skip
        for second in (False, True):
            if second:
                forward.second_pass[(tiles, count)](
                    raw, depth, partial, statistics, operations, values, cell.offsets,
                    cell.by_source, first, p, size.h, size.w, tiles, kept,
                    e, c, **blocks, PRECISION=cell.precision, **cell.of_taps,
                )  # fmt: skip
            forward.batch_statistics[(count,)](
                partial, statistics, norms.running, norms.counts, operations, cell.sources,
                cell.by_source, first, p, tiles, norms.momentum, norms.epsilon,
                e, c, cell.stride, second, **blocks, BLOCK_T=cell.block_t, num_warps=8,
            )  # fmt: skip
        forward.node_sum[(tiles,)](
            states, raw, statistics, operations, cell.sources, node, _first_edge(node), node + 2,
            p, q, e, c, cell.nodes, cell.stride, **blocks,
        )  # fmt: skip
        first += count
    out_BCHW = _image(states, 2 * q * c, size.batch, size.h, size.w, cell.nodes * c)
    return out_BCHW, Kept(size, operations, states, raw, depth, taken, statistics)


def run_backward(
    cell: GraphCell, kept: Kept, gradient_BCHW: Tensor, *, weights: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the two inputs; the others go where GraphCell says.

    Args:
        weights: False where the weights stand still (alpha step).
    """
    size = kept.sizes
    c, e, p, q = cell.channels, cell.edges, size.p, size.q
    device = kept.states.device
    tiles, wide = -(-p // cell.block_p), -(-max(p, q) // cell.block_p)
    programs, adding = min(tiles, PROGRAMS), min(tiles, ADDING)
    gradients = torch.empty_like(kept.states)
    nodes = _image(gradients, 2 * q * c, size.batch, size.h, size.w, cell.nodes * c)
    nodes.copy_(gradient_BCHW)
    sums = torch.empty_like(kept.statistics)
    partial = torch.empty(e * tiles * 2 * c, device=device)
    between = torch.empty(2 * e * p * c, device=device, dtype=cell.dtype)
    inner = torch.empty(e * p * c, device=device, dtype=cell.dtype)
    # Shares of weight gradients; nothing is written where the weights stand still.
    of_pointwise = torch.empty(2 * e * programs * c * c if weights else 1, device=device)
    of_depthwise = torch.empty(2 * e * adding * 25 * c if weights else 1, device=device)
    flat = cell.weights
    shape = (p, q, size.h, size.w, size.h_in, size.w_in)
    kind = (e, c, cell.nodes, cell.stride)
    blocks = {"BLOCK_P": cell.block_p, "BLOCK_C": cell.block_c}
    for node in reversed(range(cell.nodes)):
        first, count = _first_edge(node), node + 2
        backward.term_sums[(tiles, count)](
            kept.states, gradients, kept.raw, kept.statistics, partial, kept.operations,
            cell.sources, first, node, p, q, tiles, *kind, **blocks,
        )  # fmt: skip
        for slot in (1, 0):
            backward.gradient_sums[(count,)](
                partial, sums, cell.gate_gradients, kept.operations, first, tiles,
                e, c, slot, cell.block_c, BLOCK_T=cell.block_t, num_warps=8,
            )  # fmt: skip
            backward.pointwise_gradient[(programs, count)](
                kept.states, gradients, kept.raw, kept.depth, kept.statistics, sums, between, inner,
                of_pointwise, kept.operations, flat.weights, cell.offsets, cell.sources,
                first, node, *shape, tiles, programs, *kind, slot, weights, **blocks,
                PRECISION=cell.precision, num_stages=1,
            )  # fmt: skip
            if slot:
                backward.inner_gradient[(tiles, count)](
                    kept.raw, kept.statistics, between, inner, partial, kept.operations,
                    flat.weights, cell.offsets, first, p, size.h, size.w, tiles,
                    e, c, **blocks, **cell.of_taps,
                )  # fmt: skip
        backward.source_gradient[(wide, count)](
            kept.states, gradients, kept.taken, between, inner, kept.operations, flat.weights,
            cell.offsets, cell.sources, first, node, *shape, *kind, **blocks, **cell.of_taps,
        )  # fmt: skip
    if weights:
        depthwise.depthwise_weights[(adding, 2 * e, 5)](
            kept.states, kept.raw, kept.statistics, between, of_depthwise, kept.operations,
            cell.sources, *shape, tiles, adding, *kind, **blocks, **cell.of_taps,
        )  # fmt: skip
        blocks_of_weights = -(-max(c, 25) * c // 128)
        shares.weight_gradients[(blocks_of_weights, e, 4)](
            of_pointwise, of_depthwise, flat.gradients, kept.operations, cell.offsets,
            cell.sources, programs, adding, e, c, cell.stride, BLOCK=128, BLOCK_T=16,
        )  # fmt: skip
    s0, s1 = (_image(gradients, i * q * c, size.batch, size.h_in, size.w_in, c) for i in range(2))
    return s0, s1


def _first_edge(node: int) -> int:
    """The number of a node's first edge: the edges of a node follow each other."""
    return node * (node + 3) // 2


def _image(
    buffer: Tensor, begin: int, batch: int, height: int, width: int, channels: int
) -> Tensor:
    """A part of a buffer as channels-last images."""
    strides = (height * width * channels, 1, width * channels, channels)
    return buffer.as_strided((batch, channels, height, width), strides, begin)


class _Cell(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        s0_BCHW: Tensor,
        s1_BCHW: Tensor,
        gates: Tensor,
        cell: GraphCell,
        operations: Tensor,
        weights: bool,
    ) -> Tensor:
        out_BCHW, kept = run_forward(cell, s0_BCHW, s1_BCHW, operations, weights=weights)
        ctx.cell, ctx.kept, ctx.weights = cell, kept, weights
        return out_BCHW

    @staticmethod
    def backward(ctx: Any, gradient_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        s0, s1 = run_backward(ctx.cell, ctx.kept, gradient_BCHW, weights=ctx.weights)
        ctx.kept = None  # what autograd would free by itself
        return s0, s1, ctx.cell.gate_gradients, None, None, None


def apply_cell(
    cell: GraphCell,
    s0_BCHW: Tensor,
    s1_BCHW: Tensor,
    gates: Tensor,
    operations: Tensor,
    *,
    weights: bool,
) -> Tensor:
    """The cell's output, differentiable in both inputs and in the drawn operations' gates.

    Args:
        gates: as many numbers as `cell.gate_gradients`; their value is taken to be 1.
        operations: int32, the drawn operation of every edge, on the device.
        weights: whether backward adds the weights' gradients to the flat buffer (which holds
            zeros for what was not drawn).
    """
    out: Tensor = _Cell.apply(s0_BCHW, s1_BCHW, gates, cell, operations, weights)
    return out
