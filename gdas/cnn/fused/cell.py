"""A cell as one autograd node, and the readers of its output as another.

A cell's inputs are maps whose batch norm is left to those who read them, in pairs of tensors
(gdas.cnn.fused.pairs).

A cell's output stays in parts, one for each node of the cell. `read_parts` computes what the next
two cells make of it, in one pass for both; its backward pass writes the parts' gradients once.

Shapes: B batch, C channels, H and W height and width, E edges, K operations, D drop-path sites.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gdas.cnn.fused import calls
from gdas.cnn.fused.calls import Reader, Reading
from gdas.cnn.fused.interface import Map, at, check, kernels
from gdas.cnn.fused.layers import norm_weights, parameters_of
from gdas.cnn.fused.pairs import dense, flat, maps_of, of_norm, sums_as_norm, with_sums
from gdas.cnn.fused.plan import FLOAT, CellPlan, FlatCell


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
                found += [None] * len(parameters_of(reader))
                continue
            i = which.index(r)
            found += [w for w in of_weights[i] if w is not None]
            found += of_norm(reader.norm, readings[i].y, readings[i].of_y.sums_2C)
        return None, None, *found


def read_parts(parts: Sequence[Map], readers: Sequence[Reader]) -> list[Map]:
    """What every reader makes of the ReLU of the parts side by side, its norm left to others."""
    weights = [w for reader in readers for w in parameters_of(reader)]
    made = _ReadParts.apply(tuple(readers), len(parts), *flat(parts), *weights)
    return maps_of(iter(made), len(readers))


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
        inputs = [own.values_BCHW for own in states]
        cell = FlatCell(plan, inputs, keep_DB, index=any(ctx.needs_input_grad))
        states += [Map(cell.new_map(2 + n)) for n in range(len(plan.nodes))]
        memory = cell.new_memory()
        cell.place(states, memory)
        check(kernels().gdas_cell_forward(ctypes.byref(cell.struct)))
        ctx.plan, ctx.cell, ctx.gate_shape = plan, cell, None if gate_EK is None else gate_EK.shape
        ctx.save_for_backward(keep_DB, *flat(states), *memory)
        return tuple(state.values_BCHW for state in states[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        plan: CellPlan = ctx.plan
        cell: FlatCell = ctx.cell
        gates, weights = ctx.needs_input_grad[1], any(ctx.needs_input_grad[7:])
        needed = [any(ctx.needs_input_grad[3:5]), any(ctx.needs_input_grad[5:7])]
        keep_DB, *saved = ctx.saved_tensors
        states = maps_of(iter(saved), 2 + len(plan.nodes))
        cell.place(states, saved[2 * len(states) :])
        cell.struct.gates, cell.struct.weights = gates, weights
        of_outputs = [None if g is None else dense(g) for g in gradients]
        into, sums = _where_states_go(plan, cell, states, of_outputs)
        _say_what_is_wanted(plan, cell, needed)
        of_weights = _where_weights_go(plan, cell, wanted=weights)
        room = _room(plan, cell, keep=keep_DB is not None)
        check(kernels().gdas_cell_backward(ctypes.byref(cell.struct)))
        del room
        found: list[Tensor | None] = []
        for i, state in enumerate(cell.states[:2]):
            found.append(into[i] if state.gradient else None)
            found.append(sums_as_norm(states[i], sums[i]) if state.summed else None)
        found += _computed(plan, cell, of_weights)
        return None, _of_gates(plan, cell, ctx.gate_shape) if gates else None, None, *found


def _where_states_go(
    plan: CellPlan, cell: FlatCell, states: Sequence[Map], of_outputs: Sequence[Tensor | None]
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Room for the gradient of every state that an edge reads, and for its sums."""
    read = {edge.source for edge in plan.edges}
    into = [cell.new_map(i) if i in read else None for i in range(len(states))]
    sums = [
        torch.empty(2, own.values_BCHW.shape[1], dtype=torch.float64)
        if i in read and own.norm_4C is not None
        else None
        for i, own in enumerate(states)
    ]
    known = [None, None, *of_outputs]
    for state, *own in zip(cell.states, known, into, sums, strict=True):
        state.gradient, state.into, state.sums = (at(x) for x in own)
        state.summed = 0
    return into, sums


def _say_what_is_wanted(plan: CellPlan, cell: FlatCell, needed: Sequence[bool]) -> None:
    """Say which states' gradients are wanted: those on the way to something that learns."""
    wanted = list(needed)
    for node in plan.nodes:
        through = any(wanted[edge.source] for edge in node.edges)
        wanted.append(bool(cell.struct.gates or cell.struct.weights) or through)
    for state, own in zip(cell.states, wanted, strict=True):
        state.wanted = own
    for edge in cell.edges:
        edge.ran = 0


def _where_weights_go(plan: CellPlan, cell: FlatCell, *, wanted: bool) -> list[list[Tensor]]:
    """For every layer, where the gradients of its parameters are written, if they are wanted."""
    made: list[list[Tensor]] = []
    for layer, struct, weights in zip(plan.layers, cell.layers, cell.weights, strict=True):
        own = [torch.empty_like(w) for w in weights] if wanted else []
        norms = [torch.empty_like(w) for w in norm_weights([layer.norm])] if wanted else []
        struct.of_weight, struct.of_second = (at(w) for w in (*own, None, None)[:2])
        struct.of_gamma, struct.of_beta = (at(w) for w in (*norms, None, None)[:2])
        made.append(own + norms)
    return made


def _room(plan: CellPlan, cell: FlatCell, *, keep: bool) -> list[Tensor]:
    """Memory that the pass works in; returns what owns it."""
    room = []
    deepest = max((len(edge.layers) for edge in plan.edges), default=0)
    for i in range(2):
        if deepest > 2 - i:
            room.append(torch.empty(cell.batch * cell.between))
            cell.struct.between[i] = room[-1].data_ptr()
    if keep:
        room.append(torch.empty(cell.batch * max(size.floats for size in cell.sizes)))
        cell.struct.kept = room[-1].data_ptr()
    return room


def _computed(
    plan: CellPlan, cell: FlatCell, of_weights: Sequence[Sequence[Tensor]]
) -> list[Tensor | None]:
    """The gradients of all parameters; None for those that are not wanted or did not run."""
    if not cell.struct.weights:
        return [None] * len(plan.parameters)
    found: list[Tensor | None] = []
    of_layers = iter(of_weights)
    for edge, struct in zip(plan.edges, cell.edges, strict=True):
        for own in islice(of_layers, len(edge.layers)):
            found += own if struct.ran else [None] * len(own)
    return found


def _of_gates(plan: CellPlan, cell: FlatCell, shape: torch.Size) -> Tensor | None:
    """The gradient of gate_EK: that of a factor on every edge of the plan."""
    flat_EK = array("f", bytes(FLOAT * shape.numel()))
    edges = iter(cell.edges)
    ran = False
    for node, state in zip(plan.nodes, cell.states[2:], strict=True):
        for place in node.gates + node.undrawn_gates:
            edge = next(edges)
            if state.gradient:
                flat_EK[place], ran = edge.product, True
    return torch.frombuffer(flat_EK, dtype=torch.float32).view(shape) if ran else None


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
