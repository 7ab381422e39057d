"""A cell as one autograd node, and the readers of its output as another.

A cell's inputs are maps whose batch norm is left to those who read them, in pairs of tensors
(gdas.cnn.fused.pairs).

A cell's output stays in parts, one for each node of the cell. `read_parts` computes what the next
two cells make of it, in one pass for both; its backward pass writes the parts' gradients once.

Shapes: B batch, C channels, H and W height and width, E edges, K operations, D drop-path sites.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gdas.cnn.fused import calls
from gdas.cnn.fused.calls import Gradient, Reader, Reading
from gdas.cnn.fused.convolution import pass_backward, pass_forward
from gdas.cnn.fused.interface import Map, Term, new_map
from gdas.cnn.fused.layers import Edge, reader_weights
from gdas.cnn.fused.pairs import dense, flat, maps_of, of_norm, sums_as_norm, with_sums
from gdas.sampler import Pick


class _ReadParts(torch.autograd.Function):
    """Arguments: readers, how many parts, (values, norm) of each part, all readers' weights."""

    @staticmethod
    def forward(ctx: Any, readers: Sequence[Reader], count: int, *tensors: Any) -> Any:
        ctx.set_materialize_grads(False)
        parts = [Map(dense(tensors[2 * i]), tensors[2 * i + 1]) for i in range(count)]
        outputs = calls.read(parts, readers)
        ctx.readers, ctx.count = readers, count
        ctx.save_for_backward(*flat(parts), *flat(outputs))
        return tuple(flat(outputs))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        maps = maps_of(iter(ctx.saved_tensors), ctx.count + len(ctx.readers))
        parts, outputs = maps[: ctx.count], maps[ctx.count :]
        readings, which = [], []
        for r, (reader, y) in enumerate(zip(ctx.readers, outputs, strict=True)):
            values_BCHW, of_norm_4C = gradients[2 * r], gradients[2 * r + 1]
            if values_BCHW is not None:
                of_y = with_sums(y, dense(values_BCHW), of_norm_4C)
                readings.append(Reading(reader, y, of_y))
                which.append(r)
        if not readings:
            return (None,) * len(ctx.needs_input_grad)
        weights = any(ctx.needs_input_grad[2 + 2 * ctx.count :])
        if not weights and not any(ctx.needs_input_grad):
            return (None,) * len(ctx.needs_input_grad)
        of_parts, of_weights = calls.read_backward(parts, readings, weights=weights)
        found: list[Tensor | None] = []
        for part, of_part in zip(parts, of_parts, strict=True):
            found += [of_part.values_BCHW, sums_as_norm(part, of_part.sums_2C)]
        for r, reader in enumerate(ctx.readers):
            if r not in which or not weights:
                found += [None] * len(reader_weights(reader))
                continue
            i = which.index(r)
            found += [w for w in of_weights[i] if w is not None]
            found += of_norm(reader.norm, readings[i].y, readings[i].of_y.sums_2C)
        return None, None, *found


def read_parts(parts: Sequence[Map], readers: Sequence[Reader]) -> list[Map]:
    """What every reader makes of the ReLU of the parts side by side, its norm left to others."""
    weights = [w for reader in readers for w in reader_weights(reader)]
    made = _ReadParts.apply(tuple(readers), len(parts), *flat(parts), *weights)
    return maps_of(iter(made), len(readers))


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
    def parameters(self) -> list[Tensor]:
        """The weights of all edges, in order."""
        return [w for node in self.nodes for edge in node.all_edges for w in edge.parameters]


@dataclass
class _Trace:
    """What an edge did: the maps after its source, and the places of a maximum."""

    edge: Edge
    maps: list[Map]
    places: Tensor | None = None

    def term(self, states: Sequence[Map]) -> Map:
        return self.maps[-1] if self.maps else states[self.edge.source]


def _run_edge(edge: Edge, x: Map, *, gradient: bool) -> _Trace:
    if edge.pool is not None:
        y, places = calls.pooling_forward(x, edge.pool, index=gradient)
        return _Trace(edge, [y], places)
    maps = [] if edge.reducing is None else [calls.reducing_forward(x, edge.reducing)]
    if edge.reader is not None:
        return _Trace(edge, [*maps, *calls.read([maps[-1] if maps else x], [edge.reader])])
    for layers in edge.passes:
        maps.append(pass_forward(maps[-1] if maps else x, layers))
    return _Trace(edge, maps)


class _Cell(torch.autograd.Function):
    """Arguments: plan, gate_EK, keep_DB, (values, norm) of s0 and of s1, the plan's parameters."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: CellPlan,
        gate_EK: Tensor | None,
        keep_DB: Tensor | None,
        *tensors: Any,
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        states = [Map(dense(tensors[0]), tensors[1]), Map(dense(tensors[2]), tensors[3])]
        gradient = any(ctx.needs_input_grad)
        traces: list[list[_Trace]] = []
        for node in plan.nodes:
            own = [_run_edge(e, states[e.source], gradient=gradient) for e in node.edges]
            terms = [
                Term(trace.term(states), _keep(node, i, keep_DB)) for i, trace in enumerate(own)
            ]
            own += [_run_edge(e, states[e.source], gradient=False) for e in node.undrawn]
            traces.append(own)
            states.append(Map(calls.sum_of_terms(terms) if terms else _zeros(states[0], plan)))
        ctx.plan, ctx.gate_shape = plan, None if gate_EK is None else gate_EK.shape
        of_traces = [x for own in traces for t in own for x in (*flat(t.maps), t.places)]
        ctx.save_for_backward(keep_DB, *flat(states), *of_traces)
        return tuple(state.values_BCHW for state in states[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        return _CellBackward(ctx, gradients).run()


def _keep(node: Node, i: int, keep_DB: Tensor | None) -> Tensor | None:
    if keep_DB is None or not node.sites:
        return None
    site = node.sites[i]
    return None if site is None else keep_DB[site]


def _zeros(x: Map, plan: CellPlan) -> Tensor:
    return new_map(x.values_BCHW, x.values_BCHW.shape[1], plan.stride).zero_()


@dataclass
class _State:
    """The gradient of a state so far; `own` if its tensor may be written to."""

    values_BCHW: Tensor | None = None
    sums_2C: Tensor | None = None
    own: bool = False

    def add(self, gradient: Gradient) -> None:
        """Take a sum that the present gradient is in."""
        self.values_BCHW, self.sums_2C, self.own = gradient.values_BCHW, gradient.sums_2C, True


@dataclass
class _CellBackward:
    """The backward pass of a cell, from its last node to its first."""

    ctx: Any
    gradients: Sequence[Tensor | None]
    found: dict[int, Tensor] = field(default_factory=dict)

    def run(self) -> tuple[Any, ...]:
        plan: CellPlan = self.ctx.plan
        needs = self.ctx.needs_input_grad
        saved = iter(self.ctx.saved_tensors)
        self.keep_DB = next(saved)
        self.maps = maps_of(saved, 2 + len(plan.nodes))
        traces = [[_trace(edge, saved) for edge in node.all_edges] for node in plan.nodes]
        self.weights, self.gates = any(needs[7:]), needs[1]
        self.needed = [needs[3] or needs[4], needs[5] or needs[6]]
        for node in plan.nodes:
            through = any(self.needed[edge.source] for edge in node.edges)
            self.needed.append(self.gates or self.weights or through)
        self.of_gates: dict[int, float] = {}
        self.states = [_State(), _State()]
        self.states += [_State(None if g is None else dense(g)) for g in self.gradients]
        for n in reversed(range(len(plan.nodes))):
            own = self.states[2 + n]
            if own.values_BCHW is not None and traces[n]:
                self._node(plan.nodes[n], traces[n], own.values_BCHW)
            self.states[2 + n] = _State()
        inputs: list[Tensor | None] = []
        for x, state in zip(self.maps[:2], self.states[:2], strict=True):
            inputs += [state.values_BCHW, sums_as_norm(x, state.sums_2C)]
        of_weights = [self.found.get(id(w)) for w in plan.parameters]
        return None, self._gate_gradient(), None, *inputs, *of_weights

    def _gate_gradient(self) -> Tensor | None:
        if not self.gates or not self.of_gates:
            return None
        flat = torch.zeros(self.ctx.gate_shape).flatten()
        for place, value in self.of_gates.items():
            flat[place] = value
        return flat.view(self.ctx.gate_shape)

    def _node(self, node: Node, traces: Sequence[_Trace], gradient_BCHW: Tensor) -> None:
        terms = [
            Term(trace.term(self.maps), _keep(node, i, self.keep_DB))
            for i, trace in enumerate(traces)
        ]
        # Without gates, terms that were not normalised need no sums.
        wanted = [i for i, t in enumerate(terms) if self.gates or t.map.norm_4C is not None]
        sums: dict[int, Tensor] = {}
        if wanted:
            sums_T2C, products_T = calls.gradient_sums(gradient_BCHW, [terms[i] for i in wanted])
            sums = dict(zip(wanted, sums_T2C, strict=True))
            if self.gates:
                places = node.gates + node.undrawn_gates
                self.of_gates |= zip(places, products_T.tolist(), strict=True)
        for i, trace in enumerate(traces[: len(node.edges)]):
            if self.weights or self.needed[trace.edge.source]:
                self._edge(trace, Gradient(gradient_BCHW, sums.get(i), terms[i].keep_B))

    def _edge(self, trace: _Trace, of_y: Gradient) -> None:
        edge = trace.edge
        x, state = self.maps[edge.source], self.states[edge.source]
        base, into = state.values_BCHW, state.values_BCHW if state.own else None
        if edge.pool is not None:
            state.add(
                calls.pooling_backward(
                    of_y, trace.maps[0], trace.places, x, edge.pool, base_BCHW=base, into_BCHW=into
                )
            )
            self._found(
                _norms_last(edge, [], [of_norm(edge.pool.norm, trace.maps[0], of_y.sums_2C)])
            )
        elif edge.reducing is not None:
            self._reducing(trace, of_y, state)
        elif edge.reader is not None:
            readings = [Reading(edge.reader, trace.maps[0], of_y)]
            (of_x,), (of_weights,) = calls.read_backward(
                [x], readings, weights=self.weights, bases=[base], into=[into]
            )
            state.add(of_x)
            norms = [of_norm(edge.reader.norm, trace.maps[0], of_y.sums_2C)]
            self._found(_norms_last(edge, list(of_weights), norms))
        elif edge.passes:
            self._passes(trace, of_y, state)
        elif base is None:
            state.values_BCHW, state.sums_2C = calls.kept(of_y), None
        else:
            state.add(Gradient(torch.add(base, calls.kept(of_y), out=into), None))

    def _reducing(self, trace: _Trace, of_y: Gradient, state: _State) -> None:
        edge, (y, z) = trace.edge, trace.maps
        assert edge.reducing is not None and edge.reader is not None
        base = state.values_BCHW
        readings = [Reading(edge.reader, z, of_y)]
        (between,), (of_pointwise,) = calls.read_backward([y], readings, weights=self.weights)
        of_x, of_weights = calls.reducing_backward(
            between,
            y,
            self.maps[edge.source],
            edge.reducing,
            weights=self.weights,
            base_BCHW=base,
            into_BCHW=base if state.own else None,
        )
        state.add(of_x)
        norms = [
            of_norm(edge.reducing.norm, y, between.sums_2C),
            of_norm(edge.reader.norm, z, of_y.sums_2C),
        ]
        self._found(_norms_last(edge, [*of_weights, *of_pointwise], norms))

    def _passes(self, trace: _Trace, of_y: Gradient, state: _State) -> None:
        edge = trace.edge
        of_weights: list[Tensor | None] = []
        norms: list[list[Tensor]] = []
        for i in reversed(range(len(edge.passes))):
            x = trace.maps[i - 1] if i else self.maps[edge.source]
            norms.insert(0, of_norm(edge.passes[i].norm, trace.maps[i], of_y.sums_2C))
            of_y, of_own = pass_backward(
                of_y,
                trace.maps[i],
                x,
                edge.passes[i],
                weights=self.weights,
                base_BCHW=None if i else state.values_BCHW,
                into_BCHW=state.values_BCHW if state.own and not i else None,
            )
            of_weights = [*of_own, *of_weights]
        state.add(of_y)
        self._found(_norms_last(edge, of_weights, norms))

    def _found(self, gradients: Sequence[tuple[Tensor, Tensor]]) -> None:
        if self.weights:
            self.found |= {id(w): gradient for w, gradient in gradients}


def _norms_last(
    edge: Edge, of_weights: Sequence[Tensor | None], norms: Sequence[Sequence[Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    """An edge's parameters with their gradients."""
    given = [w for w in of_weights if w is not None]
    if not given and edge.pool is None:
        return []
    found = [*given, *(g for own in norms for g in own)]
    return list(zip(edge.parameters, found, strict=True))


def _trace(edge: Edge, saved: Iterator[Any]) -> _Trace:
    layers = edge.pool, edge.reader, edge.reducing
    count = len(edge.passes) + sum(layer is not None for layer in layers)
    return _Trace(edge, maps_of(saved, count), next(saved))


def run_cell(
    plan: CellPlan, s0: Map, s1: Map, *, gate_EK: Tensor | None, keep_DB: Tensor | None
) -> list[Map]:
    """A cell's output, in parts.

    Args:
        gate_EK: a hard draw's gate, whose value is 1 at every drawn edge of the plan; or None.
        keep_DB: drop-path factors; None: no drop path.
    """
    outputs = _Cell.apply(plan, gate_EK, keep_DB, *s0, *s1, *plan.parameters)
    return [Map(outputs[n]) for n in plan.concat]
