"""A network's cells in order, fused where the kernels cover them and plain where they do not.

What a cell reads is a `Source`: a stem's output or a cell's. All fused readers of a source share
one pass over its parts (gdas.cnn.fused.cell.read_parts). A plain cell reads the same parts,
concatenated and activated, as it does in a plain network.

Shapes: B batch, C channels, H and W height and width, E edges, K operations, D drop-path sites.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.cnn.cell import DerivedCell, FixedReductionCell, Preprocess, SearchCell
from gdas.cnn.fused.calls import Reader
from gdas.cnn.fused.cell import read_parts, run_cell
from gdas.cnn.fused.interface import Map
from gdas.cnn.fused.layers import (
    Edge,
    edge_of,
    pooling_edge,
    reader_of,
    reducing_edge,
    runs_as,
)
from gdas.cnn.fused.plan import CellPlan, Node, search_node, undrawn_of
from gdas.cnn.fused.stem import meant, run_stem
from gdas.cnn.genotype import EDGES_PER_NODE
from gdas.cnn.layout import CifarStem, ImageNetStem
from gdas.cnn.rearrange import concatenate
from gdas.sampler import Pick


class Visit(NamedTuple):
    """One cell of a network in one pass.

    Attributes:
        plan: what it runs, or None if it runs in plain PyTorch.
        plain: its plain forward pass, of s0 and s1.
        readers: of a plan, who reads s0 and who reads s1.
        gate_EK, keep_DB: see gdas.cnn.cell.
    """

    plan: CellPlan | None
    plain: Callable[[Tensor, Tensor], Tensor]
    readers: Sequence[Reader] = ()
    gate_EK: Tensor | None = None
    keep_DB: Tensor | None = None


@dataclass
class Source:
    """An output in parts, and what was already made of it.

    Attributes:
        active: whether it has passed the ReLU with which its readers begin.
    """

    parts: list[Map]
    active: bool = False
    read: dict[int, Map] | None = None
    _activated: Tensor | None = None

    def joined(self) -> Tensor:
        """The parts, concatenated."""
        values = [meant(part) for part in self.parts]
        return values[0] if len(values) == 1 else concatenate(values)

    def activated(self) -> Tensor:
        """The same after a ReLU, computed once."""
        if self._activated is None:
            self._activated = self.joined() if self.active else F.relu(self.joined())
        return self._activated

    def pooled(self, last_activation: nn.Module, pool: nn.Module) -> Tensor:
        """What a network's last layers before its classifier make of it, B by channels."""
        means = runs_as(pool, nn.AdaptiveAvgPool2d) and pool.output_size == 1
        if means and runs_as(last_activation, nn.Identity):  # no map need be concatenated
            return torch.cat([meant(part).mean((2, 3)) for part in self.parts], dim=1)
        pooled_BCHW: Tensor = pool(last_activation(self.joined()))
        return pooled_BCHW.flatten(1)


def search_plan(cell: nn.Module, picks: Sequence[Pick], gate_EK: Tensor | None) -> CellPlan | None:
    """What a search cell runs, or None if the kernels do not cover it."""
    undrawn = undrawn_of(picks, gate_EK)
    if undrawn is None or not runs_as(cell, SearchCell):
        return None
    nodes = []
    for n in range(cell.nodes):
        edges = {
            (e, k): edge_of(cell.edges[e][k], cell.edge_list[e][1])  # type: ignore[index]
            for e, k in picks
            if cell.edge_list[e][0] == n and k != cell.none
        }
        node = search_node(edges, undrawn, len(cell.edges[0]))  # type: ignore[arg-type]
        if node is None:
            return None
        nodes.append(node)
    return CellPlan(tuple(nodes), 2 if cell.reduction else 1, tuple(range(cell.nodes)))


def derived_plan(cell: nn.Module) -> CellPlan | None:
    """What a derived cell runs, or None if the kernels do not cover it."""
    if not runs_as(cell, DerivedCell):
        return None
    sites, nodes, site = [], [], 0
    edges = []
    for operation, source, dropped in zip(cell.operations, cell.sources, cell.dropped, strict=True):
        edge = edge_of(operation, source)
        if edge is None:
            return None
        edges.append(edge)
        sites.append(site if dropped else None)
        site += dropped
    for first in range(0, len(edges), EDGES_PER_NODE):
        own = slice(first, first + EDGES_PER_NODE)
        nodes.append(Node(tuple(edges[own]), sites=tuple(sites[own])))
    return CellPlan(tuple(nodes), 1, tuple(i - 2 for i in cell.concat))


def fixed_plan(cell: nn.Module) -> CellPlan | None:
    """What a fixed reduction cell runs, or None if the kernels do not cover it.

    In the wiring of 2019 a node more is the sum that the first pooling reads.
    """
    if not runs_as(cell, FixedReductionCell):
        return None
    if cell.wiring == "figure":
        sources, hidden = (0, 1), 0
    else:
        sources, hidden = (4, 1), 1
    convolutions = [reducing_edge(branch, j) for j, branch in enumerate(cell.convolutions)]
    pools = [pooling_edge(own, j) for own, j in zip(cell.poolings, sources, strict=True)]
    nodes = []
    for site, edge in enumerate([*convolutions, *pools]):
        if edge is None:
            return None
        if site == 2 and hidden:
            nodes.append(Node((Edge(2), Edge(3)), sites=(None, None)))
        nodes.append(Node((edge,), sites=(site,)))
    return CellPlan(tuple(nodes), 2, (0, 1, 2 + hidden, 3 + hidden))


def readers_of(preprocess: nn.Module) -> list[Reader] | None:
    """Who reads s0 and who reads s1, or None if the kernels do not cover them."""
    if not runs_as(preprocess, Preprocess):
        return None
    s0, s1 = reader_of(preprocess.s0), reader_of(preprocess.s1)
    return None if s0 is None or s1 is None else [s0, s1]


def visit(
    cell: nn.Module,
    plan: CellPlan | None,
    plain: Callable[[Tensor, Tensor], Tensor],
    *,
    gate_EK: Tensor | None = None,
    keep_DB: Tensor | None = None,
) -> Visit:
    """A cell's visit, plain unless plan and preprocessing are covered."""
    readers = None if plan is None else readers_of(cell.preprocess)  # type: ignore[arg-type]
    if readers is None:
        return Visit(None, plain)
    return Visit(plan, plain, readers, gate_EK, keep_DB)


def stem_sources(stem: CifarStem | ImageNetStem, images_BCHW: Tensor) -> tuple[Source, Source]:
    """A stem's outputs s0 and s1, which may be the same."""
    made = run_stem(stem, images_BCHW)
    if made is None:
        s0_BCHW, s1_BCHW = stem(images_BCHW)
        before_last = Source([Map(s0_BCHW)], active=True)
        one = s1_BCHW is s0_BCHW
        return before_last, before_last if one else Source([Map(s1_BCHW)], active=True)
    last = Source(made[-1:])
    return last if len(made) == 1 else Source(made[-2:-1]), last


def walk(
    before_last: Source,
    last: Source,
    visits: Sequence[Visit],
    after: Callable[[int, Source], None] | None = None,
) -> Source:
    """Run the cells; returns the last one's output.

    Args:
        before_last, last: the stem's outputs.
        visits: the cells.
        after: called with every cell's index and output.
    """
    first = before_last
    wanted = _wanted(visits, one_stem=last is first)
    for i, own in enumerate(visits):
        if own.plan is None:
            out = Source([Map(own.plain(before_last.activated(), last.activated()))])
        else:
            s0 = _read(before_last, wanted[0 if before_last is first else i], 2 * i)
            s1 = _read(last, wanted[0 if last is first else i + 1], 2 * i + 1)
            gates = own.gate_EK
            out = Source(run_cell(own.plan, s0, s1, gate_EK=gates, keep_DB=own.keep_DB))
        before_last, last = last, out
        if after is not None:
            after(i, out)
    return last


def _wanted(visits: Sequence[Visit], *, one_stem: bool) -> dict[int, list[tuple[int, Reader]]]:
    """The fused readers of every source, 0 and 1 the stem's outputs, with a number each."""
    wanted: dict[int, list[tuple[int, Reader]]] = {}
    for i, own in enumerate(visits):
        for j, reader in enumerate(own.readers):
            source = 0 if one_stem and i + j == 1 else i + j
            wanted.setdefault(source, []).append((2 * i + j, reader))
    return wanted


def _read(source: Source, wanted: Sequence[tuple[int, Reader]], place: int) -> Map:
    """What one reader makes of a source; all of its readers run at the first call."""
    if source.read is None:
        made = read_parts(source.parts, [reader for _, reader in wanted])
        source.read = {own: y for (own, _), y in zip(wanted, made, strict=True)}
    return source.read.pop(place)
