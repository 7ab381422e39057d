"""What a cell runs, and the same as the flat structures of cell.cpp.

Shapes: B batch, C channels, H and W height and width, E edges, K operations, D drop-path sites.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gdas.cnn.fused.calls import Pass, Pool, Reader, Reducing
from gdas.cnn.fused.convolution import Convolution
from gdas.cnn.fused.interface import (
    CellStruct,
    EdgeStruct,
    LayerStruct,
    Map,
    StateStruct,
    at,
    batch_norm_struct,
)
from gdas.cnn.fused.layers import Edge, Layer
from gdas.sampler import Pick

SEPARABLE, CONVOLUTION, AVERAGE_POOLING, MAX_POOLING, READER, REDUCING = range(6)
"""The kinds of a layer, in the order of kernels.h."""
CACHE_LINE = 16
"""Floats of a cache line, with which every part of a layer's memory begins."""
FLOAT = 4
"""Bytes of a float."""


class Node(NamedTuple):
    """A node of a cell.

    Attributes:
        edges: what it is the sum of.
        gates: for every edge, its place in the flattened gate_EK.
        sites: for every edge, its row of keep_DB, or None for no drop path.
        undrawn: edges whose gate is 0, which run for the sake of the gates' gradients alone.
        undrawn_gates: for each of these, its place in the flattened gate_EK.
    """

    edges: tuple[Edge, ...]
    gates: tuple[int, ...] = ()
    sites: tuple[int | None, ...] = ()
    undrawn: tuple[Edge, ...] = ()
    undrawn_gates: tuple[int, ...] = ()

    @property
    def all_edges(self) -> tuple[Edge, ...]:
        """All that run."""
        return self.edges + self.undrawn


def undrawn_of(picks: Sequence[Pick], gate_EK: Tensor | None) -> frozenset[Pick] | None:
    """The picks whose gate is 0; None if a node is not the plain sum of the others."""
    if len({e for e, _ in picks}) == len(picks):
        return frozenset()
    if gate_EK is None or not gate_EK.requires_grad:
        return None
    values = gate_EK.tolist()
    gates = {(e, k): values[e][k] for e, k in picks}
    if not set(gates.values()) <= {0.0, 1.0}:
        return None
    return frozenset(pick for pick, gate in gates.items() if gate == 0.0)


def search_node(
    edges: Mapping[Pick, Edge | None], undrawn: frozenset[Pick], operations: int
) -> Node | None:
    """A node of a search cell, or None if the kernels do not cover it.

    Undrawn operations get no gradient of their weights here, not even 0, so they must want none.

    Args:
        edges: what it runs, in order; None: an operation that is not covered.
        undrawn: those whose gate is 0.
        operations: K.
    """
    drawn: dict[int, Edge] = {}
    aside: dict[int, Edge] = {}
    for (e, k), edge in edges.items():
        if edge is None:
            return None
        if (e, k) not in undrawn:
            drawn[e * operations + k] = edge
        elif any(w.requires_grad for w in edge.parameters):
            return None
        else:
            aside[e * operations + k] = edge
    return Node(tuple(drawn.values()), tuple(drawn), (), tuple(aside.values()), tuple(aside))


class CellPlan(NamedTuple):
    """What a cell runs.

    Attributes:
        stride: 2 if it halves the size.
        concat: which nodes, numbered from 0, make up its output.
    """

    nodes: tuple[Node, ...]
    stride: int
    concat: tuple[int, ...]

    @property
    def edges(self) -> list[Edge]:
        """The edges of all nodes, in order."""
        return [edge for node in self.nodes for edge in node.all_edges]

    @property
    def layers(self) -> list[Layer]:
        """The layers of all edges, in order."""
        return [layer for edge in self.edges for layer in edge.layers]

    @property
    def parameters(self) -> list[Tensor]:
        """The weights of all layers, in order."""
        return [w for edge in self.edges for w in edge.parameters]


class Size(NamedTuple):
    """The size of a map."""

    channels: int
    height: int
    width: int

    def after(self, channels: int, stride: int) -> Size:
        """The size of a layer's output."""
        return Size(channels, -(-self.height // stride), -(-self.width // stride))

    @property
    def floats(self) -> int:
        """Of one image."""
        return self.channels * self.height * self.width


class FlatCell:
    """A plan as cell.cpp reads it: addresses, and no tensor but small copies of weights.

    Attributes:
        sizes: of every state.
        between: the most floats of an image between two layers of an edge.
        states, edges, layers, struct: the structures.
        weights: for every layer, its weights as the kernels read them.
    """

    def __init__(
        self, plan: CellPlan, inputs: Sequence[Tensor], keep_DB: Tensor | None, *, index: bool
    ) -> None:
        """List all but the memory of maps; count a batch for every norm.

        Args:
            inputs: the values of s0 and s1.
            index: whether max poolings write which pixels were the largest, for the gradient.
        """
        edges, layers = plan.edges, plan.layers
        self.batch = len(inputs[0])
        self.sizes = [Size(*x.shape[1:]) for x in inputs]
        self.between = 0
        self.states = (StateStruct * (2 + len(plan.nodes)))()
        self.edges = (EdgeStruct * len(edges))()
        self.layers = (LayerStruct * len(layers))()
        self.weights = [_weights_of(layer) for layer in layers]
        self._starts: list[tuple[int, int, int]] = []
        listed = iter(self.edges)
        for node in plan.nodes:
            size = self.sizes[0].after(self.sizes[0].channels, plan.stride)
            for i, edge in enumerate(node.all_edges):
                size = self._list(edge, index=index and i < len(node.edges))
                struct = next(listed)
                struct.source, struct.layers = edge.source, len(edge.layers)
                site = node.sites[i] if node.sites else None
                if keep_DB is not None and site is not None:
                    struct.keep = keep_DB[site].data_ptr()
            self.sizes.append(size)
        for state, size in zip(self.states, self.sizes, strict=True):
            state.channels, state.height, state.width = size
        for i, node in enumerate(plan.nodes):
            state = self.states[2 + i]
            state.edges, state.undrawn = len(node.edges), len(node.undrawn)
        self.struct = CellStruct(
            batch=self.batch,
            threads=torch.get_num_threads(),
            nodes=len(plan.nodes),
            states=ctypes.addressof(self.states),
            edges=ctypes.addressof(self.edges),
            layers=ctypes.addressof(self.layers),
        )

    def _list(self, edge: Edge, *, index: bool) -> Size:
        """List the layers of the next edge; returns the size of its output."""
        size = self.sizes[edge.source]
        for i, layer in enumerate(edge.layers):
            if i:
                self.between = max(self.between, size.floats)
            place = len(self._starts)
            struct = _struct_of(layer, self.weights[place], size.channels)
            size = size.after(struct.channels, struct.stride)
            if layer.norm is not None:
                struct.norm = batch_norm_struct(layer.norm, (self.batch, *size), None)
            self.layers[place] = struct
            values = _whole_lines(4 * size.channels)
            end = values + _whole_lines(self.batch * size.floats)
            indices = self.batch * size.floats if index and struct.kind == MAX_POOLING else 0
            self._starts.append((values, end, end + -(-indices // FLOAT)))
        return size

    def new_memory(self) -> list[Tensor]:
        """For every layer, room for its norm, its map and its index, in this order."""
        return [torch.empty(end) for _, _, end in self._starts]

    def place(self, states: Sequence[Map], memory: Sequence[Tensor]) -> None:
        """Say where the states and the layers' memory are."""
        for state, x in zip(self.states, states, strict=True):
            state.map, state.norm = x.values_BCHW.data_ptr(), at(x.norm_4C)
        listed = zip(self.layers, self._starts, memory, strict=True)
        for struct, (values, index, end), own in listed:
            start = own.data_ptr()
            struct.y = start + FLOAT * values
            struct.index = start + FLOAT * index if index < end else None
            if struct.norm.epsilon:
                struct.norm.norm = start

    def new_map(self, state: int) -> Tensor:
        """An uninitialised map of a state's size."""
        return torch.empty((self.batch, *self.sizes[state]), memory_format=torch.channels_last)


def _whole_lines(floats: int) -> int:
    return -(-floats // CACHE_LINE) * CACHE_LINE


def _weights_of(layer: Layer) -> tuple[Tensor, ...]:
    """A layer's weights; those of grouped convolutions are copied if they are channels-last."""
    if isinstance(layer, Reducing):
        return tuple(w.detach().contiguous() for w in layer.weights)
    return layer.weights


def _struct_of(layer: Layer, weights: Sequence[Tensor], channels: int) -> LayerStruct:
    """A layer that reads so many channels, without its norm."""
    first, second = (at(w) for w in (*weights, None, None)[:2])
    match layer:
        case Pass():
            kernel = layer.depthwise.shape[-1]
            head = SEPARABLE, kernel, layer.stride, layer.dilation, channels, 0, 0, 0, 0
        case Convolution():
            of_out, of_in, _, of_tap = layer.weight.stride()
            steps = of_out, of_in, of_tap, layer.relu
            head = CONVOLUTION, layer.kernel, layer.stride, 1, len(layer.weight), *steps
        case Pool():
            kind = AVERAGE_POOLING if layer.average else MAX_POOLING
            head = kind, layer.kernel, layer.stride, 1, channels, 0, 0, 0, 0
        case Reader():
            head = READER, 0, layer.stride, 1, layer.channels, 0, 0, 0, 0
        case Reducing():
            head = REDUCING, 0, 2, 1, channels, 0, 0, 0, 0
    return LayerStruct(*head, first, second)
