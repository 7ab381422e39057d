"""The network of NAS-Bench-201 (Dong & Yang, ICLR 2020): a supernet, or the network of one cell.

It has a convolution to C channels, three stages of N cells with C, 2C and 4C channels, a residual
block of stride 2 between stages, batch norm, ReLU, global average pooling, and a linear layer. The
layers are those of the authors' 2020 code.

Decisions: a search cell adds the terms of the drawn operations and nothing else. That code also
adds the gates of the others, whose value is 0 but whose gradient is not. The searched convolutions
have no bias; that code has one, which batch norm removes again.

Shapes: B batch, C channels, H and W height and width, E edges, K operations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gdas.bench201.genotype import CELL_OPERATIONS, EDGES, NODES, Bench201Genotype
from gdas.cell_json import require_genotype
from gdas.cnn.cell import on_rows, sum_of
from gdas.cnn.fused.calls import Pool
from gdas.cnn.fused.cell import run_cell
from gdas.cnn.fused.interface import Map
from gdas.cnn.fused.layers import (
    Edge,
    covers_input,
    residual_edge,
    runs_as,
    sequence_of,
    shortcut_edge,
)
from gdas.cnn.fused.plan import CellPlan, Node, search_node, undrawn_of
from gdas.cnn.fused.stem import meant, run_stem
from gdas.cnn.norm import BatchNorm
from gdas.cnn.pooling import AveragePool
from gdas.cnn.rearrange import with_dense_gradient
from gdas.field_types import require_type
from gdas.sampler import Pick

CELL_TYPE = "cell"
RESIDUAL = "residual"
LOGIT_SCALE = 1e-3
"""Standard deviation of the initial logits (authors' code)."""

EVERYTHING = tuple((e, k) for e in range(len(EDGES)) for k in range(len(CELL_OPERATIONS)))


def picks_of(genotype: Bench201Genotype) -> list[Pick]:
    """A cell as picks: the operation of every edge."""
    return [(e, CELL_OPERATIONS.index(name)) for e, name in enumerate(genotype.operations)]


def relu_conv_norm(
    c_in: int, c_out: int, kernel: int, *, stride: int = 1, affine: bool = True
) -> nn.Sequential:
    """ReLU, a convolution without bias, and batch norm."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False),
        BatchNorm(c_out, affine=affine),
    )


def build_cell_operation(name: str, channels: int, *, affine: bool) -> nn.Module:
    """Build one of CELL_OPERATIONS other than `none`, which needs no module.

    Raises:
        ValueError: the name is not one of them.
    """
    match name:
        case "skip_connect":
            return nn.Identity()
        case "nor_conv_1x1":
            return relu_conv_norm(channels, channels, 1, affine=affine)
        case "nor_conv_3x3":
            return relu_conv_norm(channels, channels, 3, affine=affine)
        case "avg_pool_3x3":
            return AveragePool(1)
    raise ValueError(f"no module for operation {name!r}")


class Cell(nn.Module):
    """A cell: each node is the sum of its terms, and the last node is the output.

    Args:
        channels: C.
        held: the (edge, operation) pairs that have a module.
        affine: whether batch norms learn scale and shift.

    Attributes:
        fused: whether it runs with the kernels of gdas.cnn.fused where those cover it.
    """

    fused: bool = False

    def __init__(self, channels: int, held: Sequence[Pick], *, affine: bool) -> None:
        super().__init__()
        self.held = list(held)
        self.edges = nn.ModuleList(
            nn.ModuleDict(
                {
                    CELL_OPERATIONS[k]: build_cell_operation(
                        CELL_OPERATIONS[k], channels, affine=affine
                    )
                    for of_edge, k in self.held
                    if of_edge == e and CELL_OPERATIONS[k] != "none"
                }
            )
            for e in range(len(EDGES))
        )

    def forward(
        self,
        x_BCHW: Tensor,
        picks: Sequence[Pick] | None = None,
        gate_EK: Tensor | None = None,
        operation_BE: Tensor | None = None,
    ) -> Tensor:
        """Run the picked operations only; returns the last node.

        Args:
            picks: (edge, operation) pairs, each among `held`; `none` and edges that are not named
                add nothing. None: all of `held`.
            gate_EK: factors of the operations, on the images' device; None: 1.
            operation_BE: the operation that each image runs, on the CPU; the gate is then B x E x
                K.
        """
        if self.fused and self.training and operation_BE is None and covers_input(x_BCHW):
            plan = self._plan(self.held if picks is None else picks, gate_EK)
            if plan is not None:
                return _run(plan, Map(x_BCHW), gate_EK)
        states = [x_BCHW]
        for node in range(1, NODES):
            terms: list[Tensor] = []
            for e, k in self.held if picks is None else picks:
                of_node, source = EDGES[e]
                if of_node != node or CELL_OPERATIONS[k] == "none":
                    continue
                operation = self.operation(e, k)
                if operation_BE is not None:
                    rows = (operation_BE[: len(x_BCHW), e] == k).nonzero().flatten()
                    if len(rows):
                        terms.append(on_rows(operation, states[source], rows, gate_EK, e, k))
                    continue
                out_BCHW = operation(states[source])
                terms.append(out_BCHW if gate_EK is None else out_BCHW * gate_EK[e, k])
            states.append(sum_of(terms) if terms else torch.zeros_like(x_BCHW))
        return states[-1]

    def after_stem(
        self,
        x: Map,
        picks: Sequence[Pick] | None,
        gate_EK: Tensor | None,
        operation_BE: Tensor | None,
    ) -> Tensor:
        """The same for the output of a fused stem, whose batch norm was left to this cell."""
        if operation_BE is None and runs_as(self, Cell):
            plan = self._plan(self.held if picks is None else picks, gate_EK)
            if plan is not None:
                return _run(plan, x, gate_EK)
        out: Tensor = self(meant(x), picks, gate_EK, operation_BE)
        return out

    def _plan(self, picks: Sequence[Pick], gate_EK: Tensor | None) -> CellPlan | None:
        """What the kernels run, or None if they do not cover it; its first two states are x."""
        undrawn = undrawn_of(picks, gate_EK)
        if undrawn is None:
            return None
        nodes = []
        for n in range(1, NODES):
            edges = {
                (e, k): _edge(self.operation(e, k), _state(EDGES[e][1]))
                for e, k in picks
                if EDGES[e][0] == n and CELL_OPERATIONS[k] != "none"
            }
            node = search_node(edges, undrawn, len(CELL_OPERATIONS))
            if node is None:
                return None
            nodes.append(node)
        return CellPlan(tuple(nodes), 1, (NODES - 2,))

    def operation(self, edge: int, k: int) -> nn.Module:
        """The module of an operation among `held`, other than `none`."""
        module: nn.Module = self.edges[edge][CELL_OPERATIONS[k]]  # type: ignore[index]
        return module


def _run(plan: CellPlan, x: Map, gate_EK: Tensor | None) -> Tensor:
    (out,) = run_cell(plan, x, x, gate_EK=gate_EK, keep_DB=None)
    return out.values_BCHW


def _state(node: int) -> int:
    """The state of a plan that a node of the cell is; a plan has two inputs, here the same."""
    return node + 1 if node else 0


def _edge(operation: nn.Module, source: int) -> Edge | None:
    """An operation as an edge of a plan, or None if the kernels do not cover it."""
    if runs_as(operation, nn.Identity):
        return Edge(source)
    if runs_as(operation, AveragePool):
        return Edge(source, (Pool(True, None, operation.stride),))
    own = sequence_of(operation)
    return None if own is None else Edge(source, (own,))


class ResidualBlock(nn.Module):
    """Halve the size: two 3 x 3 convolutions, plus 2 x 2 mean pooling and a 1 x 1 convolution.

    Attributes:
        fused: as in a Cell.
    """

    fused: bool = False

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            relu_conv_norm(c_in, c_out, 3, stride=2), relu_conv_norm(c_out, c_out, 3)
        )
        # Rounded up, so that odd sizes agree with those after the convolutions.
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
            nn.Conv2d(c_in, c_out, 1, bias=False),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """B x c_in x H x W to B x c_out x ceil(H / 2) x ceil(W / 2)."""
        if self.fused and self.training and covers_input(x_BCHW):
            edge, shortcut = residual_edge(self.convolutions, 0), shortcut_edge(self.shortcut, 0)
            if edge is not None and shortcut is not None:
                node = Node((edge, shortcut), (0, 0))
                return _run(CellPlan((node,), 2, (0,)), Map(x_BCHW), None)
        out: Tensor = self.convolutions(x_BCHW) + self.shortcut(x_BCHW)
        return out


class Network(nn.Module):
    """The shared weights W of all cells, or the network of one cell.

    Args:
        classes: number of classes.
        channels: C, 16 in the benchmark.
        normals_per_block: N, 5 in the benchmark.
        genotype: the one cell, with affine batch norms. None: all operations on every edge, with
            batch norms without affine in the searched cells.

    Attributes:
        cell_types: for every member of `cells`, CELL_TYPE, or RESIDUAL, which is not searched.
        fused: as in a Cell.
    """

    fused: bool = False

    def __init__(
        self,
        classes: int,
        *,
        channels: int = 16,
        normals_per_block: int = 5,
        genotype: Bench201Genotype | None = None,
    ) -> None:
        super().__init__()
        if genotype is not None:
            require_genotype(genotype, (Bench201Genotype,), {}, "")
        require_type(classes, int, "classes", least=1)
        require_type(channels, int, "channels", least=1)
        require_type(normals_per_block, int, "normals_per_block", least=0)
        held = EVERYTHING if genotype is None else picks_of(genotype)
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1, bias=False), BatchNorm(channels)
        )
        self.cells = nn.ModuleList()
        self.cell_types: list[str] = []
        for stage in range(3):
            width = channels * 2**stage
            if stage:
                self.cells.append(ResidualBlock(width // 2, width))
                self.cell_types.append(RESIDUAL)
            for _ in range(normals_per_block):
                self.cells.append(Cell(width, held, affine=genotype is not None))
                self.cell_types.append(CELL_TYPE)
        self.last_activation = nn.Sequential(BatchNorm(width), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, classes)

    def forward(
        self,
        images_BCHW: Tensor,
        picks: Sequence[Sequence[Pick]] | None = None,
        gates: Sequence[Tensor | None] | None = None,
        samples: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """Class scores, B by the number of classes.

        Args:
            picks: for every member of `cells`, what it runs; None: all that it can run.
            gates: for every member, its gate_EK on the images' device.
            samples: for every member, what each image runs, if images differ.
        """
        made = run_stem(self.stem, images_BCHW) if self.fused and self.training else None
        x_BCHW = self.stem(images_BCHW) if made is None else None
        for i, cell in enumerate(self.cells):
            if not isinstance(cell, Cell):
                x_BCHW = cell(x_BCHW)
                continue
            pick = None if picks is None else picks[i]
            gate = None if gates is None else gates[i]
            sample = None if samples is None else samples[i]
            if i == 0 and made is not None:
                x_BCHW = cell.after_stem(made[0], pick, gate, sample)
            else:
                x_BCHW = cell(x_BCHW, pick, gate, sample)
        active_BCHW = with_dense_gradient(self.last_activation(x_BCHW))
        scores: Tensor = self.classifier(self.pool(active_BCHW).flatten(1))
        return scores

    def initial_logits(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Logits A: E x K, normal with sd 0.001, on the CPU."""
        shape = (len(EDGES), len(CELL_OPERATIONS))
        a_EK = torch.randn(shape, generator=generator).mul_(LOGIT_SCALE).requires_grad_()
        return {CELL_TYPE: a_EK}
