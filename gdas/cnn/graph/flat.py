"""All weights of a supernet in one buffer, and their gradients and momenta in two more like it.

The supernet's parameters become views of the buffer: names and values stay as they are. Layouts do
too but for the operations' depthwise weights, which lie tap by tap, a row of C each, so that a
kernel reads a tap's weights at once.
So clipping and SGD are a few launches whatever was drawn, and a kernel finds the weights of a drawn
operation by a number. The batch norms' statistics of an edge's operations are one buffer a cell.

Shapes: E edges of a cell, K operations, C channels of a cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gdas.cnn.cell import SearchCell
from gdas.cnn.genotype import OPERATIONS
from gdas.cnn.operations import FactorizedReduce, Pool
from gdas.cnn.supernet import Supernet

UNIT = 64
"""Numbers that have one owner: an operation's weights begin at a multiple of it."""


@dataclass
class FlatWeights:
    """One buffer of weights, gradients and momenta each.

    Attributes:
        weights, gradients, momenta: float32; the gaps between operations are zero.
        owners: for every UNIT of numbers its entry in flags: 0 for what every pass uses, else
            1 + (cell * E + edge) * K + operation, cells counted among the searched ones; after
            those two a cell, for the preprocessing of its inputs, which a draw may not read.
        offsets: for every searched cell an E x K table, int32: where an operation's weights begin.
        ordinary: the parameters of no operation, which autograd knows.
        ordinary_gradients: their views of `gradients`.
        entries: for every parameter of the supernet, in order, its entry.
        momentum_of: for every parameter its view of `momenta`.
        gradient_of: for every parameter its view of `gradients`.
        layouts: for every parameter the strides that it had.
    """

    weights: Tensor
    gradients: Tensor
    momenta: Tensor
    owners: Tensor
    offsets: dict[int, Tensor]
    ordinary: list[nn.Parameter]
    ordinary_gradients: list[Tensor]
    entries: list[int]
    momentum_of: list[Tensor]
    gradient_of: list[Tensor]
    layouts: list[tuple[int, ...]]


def flatten_weights(supernet: Supernet) -> FlatWeights:
    """Move a supernet's parameters into one buffer on their device."""
    entry_of = {}
    starts: dict[tuple[int, int, int], int] = {}
    place_of: dict[int, int] = {}
    end = 0
    drawn: set[int] = set()
    for entry, key, parameters in _segments(supernet):
        end = -(-end // UNIT) * UNIT
        if key is not None:
            starts[key] = end
            drawn |= {id(p) for p in parameters}
        for p in parameters:
            place_of[id(p)], entry_of[id(p)] = end, entry
            end += p.numel()
    device = next(supernet.parameters()).device
    length = -(-end // UNIT) * UNIT
    weights, gradients, momenta = (torch.zeros(length, device=device) for _ in range(3))
    owners = torch.zeros(length // UNIT, dtype=torch.int32)
    ordinary, ordinary_gradients, gradient_of, momentum_of = [], [], [], []
    layouts = [tuple(p.stride()) for p in supernet.parameters()]
    for p in supernet.parameters():
        begin = place_of[id(p)]
        end = begin + p.numel()
        owners[begin // UNIT : -(-end // UNIT)] = entry_of[id(p)]
        layout = _tap_by_tap(p) if id(p) in drawn and p.shape[1] == 1 else p.stride()
        views = [b.as_strided(p.shape, layout, begin) for b in (weights, gradients, momenta)]
        with torch.no_grad():
            views[0].copy_(p)
        p.data = views[0]
        gradient_of.append(views[1])
        momentum_of.append(views[2])
        if id(p) not in drawn:
            ordinary.append(p)
            ordinary_gradients.append(views[1])
    offsets = {}
    for i, cell in enumerate(supernet.cells):
        if isinstance(cell, SearchCell):
            table = torch.zeros(len(cell.edges), len(OPERATIONS), dtype=torch.int32)
            for e, k in ((e, k) for e in range(len(cell.edges)) for k in range(len(OPERATIONS))):
                table[e, k] = starts.get((i, e, k), 0)
            offsets[i] = table.to(device)
    entries = [entry_of[id(p)] for p in supernet.parameters()]
    return FlatWeights(
        weights,
        gradients,
        momenta,
        owners.to(device),
        offsets,
        ordinary,
        ordinary_gradients,
        entries,
        momentum_of,
        gradient_of,
        layouts,
    )


def _segments(
    supernet: Supernet,
) -> Iterator[tuple[int, tuple[int, int, int] | None, list[nn.Parameter]]]:
    """What lies together: (entry, place of the operation, parameters in their order)."""
    apart: set[int] = set()
    found: list[tuple[int, tuple[int, int, int] | None, list[nn.Parameter]]] = []
    entry = 1
    searched = [(i, cell) for i, cell in enumerate(supernet.cells) if isinstance(cell, SearchCell)]
    for i, cell in searched:
        for e in range(len(cell.edges)):
            for k in range(len(OPERATIONS)):
                operation: nn.Module = cell.edges[e][k]  # type: ignore[index]
                parameters = list(operation.parameters())
                if parameters:
                    found.append((entry, (i, e, k), parameters))
                entry += 1
    for _, cell in searched:
        for layer in (cell.preprocess.s0, cell.preprocess.s1):
            found.append((entry, None, list(layer.parameters())))
            entry += 1
    for _, _, parameters in found:
        apart |= {id(p) for p in parameters}
    yield 0, None, [p for p in supernet.parameters() if id(p) not in apart]
    yield from found


def _tap_by_tap(weight_C1KK: Tensor) -> tuple[int, ...]:
    channels, _, _, kernel = weight_C1KK.shape
    return 1, channels, kernel * channels, channels


@dataclass
class FlatNorms:
    """The running statistics of a cell's operations.

    Attributes:
        running: E x K x 2 x 2 x C float32; the first 2 are the slots of gdas.cnn.graph.forward,
            the second mean and variance.
        counts: E x K x 2 int64, batches tracked.
        momentum, epsilon: of the batch norms.
    """

    running: Tensor
    counts: Tensor
    momentum: float
    epsilon: float


def flatten_norms(cell: SearchCell, channels: int) -> FlatNorms:
    """Move the running statistics of a cell's operations into one buffer."""
    device = next(cell.parameters()).device
    edges, operations = len(cell.edges), len(OPERATIONS)
    running = torch.zeros(edges, operations, 2, 2, channels, device=device)
    counts = torch.zeros(edges, operations, 2, dtype=torch.int64, device=device)
    norm: nn.BatchNorm2d | None = None
    for e in range(edges):
        for k in range(operations):
            for slot, norm in _norms(cell.edges[e][k]):  # type: ignore[index]
                assert norm.running_mean is not None
                assert norm.running_var is not None
                assert norm.num_batches_tracked is not None
                running[e, k, slot, 0].copy_(norm.running_mean)
                running[e, k, slot, 1].copy_(norm.running_var)
                counts[e, k, slot].copy_(norm.num_batches_tracked)
                norm.running_mean = running[e, k, slot, 0]
                norm.running_var = running[e, k, slot, 1]
                norm.num_batches_tracked = counts[e, k, slot]
    assert norm is not None
    assert norm.momentum is not None
    return FlatNorms(running, counts, norm.momentum, norm.eps)


def _norms(operation: nn.Module) -> list[tuple[int, nn.BatchNorm2d]]:
    """An operation's batch norms with their slots."""
    if isinstance(operation, (Pool, FactorizedReduce)):
        assert isinstance(operation.norm, nn.BatchNorm2d)
        return [(1, operation.norm)]
    norms = [layer for layer in operation.children() if isinstance(layer, nn.BatchNorm2d)]
    return [(2 - len(norms) + i, norm) for i, norm in enumerate(norms)]
