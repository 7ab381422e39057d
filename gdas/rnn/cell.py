"""Recurrent cells: the derived cell of a finished network, and the search cell.

Both begin with an input state s_0 and add states s_1, s_2, ... (DARTS and the authors' code):

    [c, h] = [x mx, s mh] W_0      s_0 = s + sigmoid(c) (tanh(h) - s)      s: the last output
    [c, h] = (s_p mh) W_i          s_i = s_p + sigmoid(c) (f(h) - s_p)     p: the predecessor

The output is a mean of states, and is the next time step's s. In the search, step i adds this up
over all its predecessors, each with its drawn function, and s_0 and every sum pass through one
shared batch norm without parameters. Matrices have no biases and belong to steps, whatever the
predecessor and the function.

Decision: if every edge of a step drew `none` while undrawn functions run too (times 0), the gates
of that step get no gradient. At a sum of zeros batch norm multiplies it by 1 / sqrt(eps), 316, and
in a search such draws outweighed all the others.

Decision: in a derived cell, `none` stands for f = 0, so that the state decays; in the search it
adds nothing at all. Both are as in the authors' code.

A consequence of that batch norm: a sum of one term loses its scale, so in a hard draw the only gate
of such a step gets nearly no gradient. This is always so in step 1, whose function a search with
hard draws therefore hardly chooses; with soft draws it does.

Shapes: T time steps, B batch, N hidden = embedding, P predecessors, E edges, K operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.rnn.derive import edge_count, first_edge
from gdas.rnn.genotype import (
    RECURRENT_OPERATIONS,
    RecurrentGenotype,
    check_recurrent_genotype,
)
from gdas.rnn.over_time import Matrix, over_time, times
from gdas.rnn.regularisation import dropped
from gdas.sampler import Pick

INITIAL_RANGE = 0.04

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": torch.zeros_like,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda h: h,
}
NONE = RECURRENT_OPERATIONS.index("none")


def _matrix(rows: int, columns: int) -> nn.Parameter:
    """A matrix with initial weights: uniform, as in the authors' code."""
    return nn.Parameter(torch.empty(rows, columns).uniform_(-INITIAL_RANGE, INITIAL_RANGE))


def _input_state(
    projected_BM: Tensor, s_BN: Tensor, mask_BN: Tensor | None, w_NM: Matrix
) -> Tensor:
    """s_0; the input's part of the product was computed for all time steps at once (M = 2N)."""
    product_BM = (projected_BM + times(dropped(s_BN, mask_BN), w_NM)).to(s_BN.dtype)
    c_BN, h_BN = product_BM.chunk(2, dim=-1)
    return torch.lerp(s_BN, torch.tanh(h_BN), torch.sigmoid(c_BN))


class DerivedCell(nn.Module):
    """The cell of a genotype.

    Steps that share a predecessor share a product, which multiplies it with all their matrices at
    once.
    """

    def __init__(self, genotype: RecurrentGenotype, hidden: int) -> None:
        super().__init__()
        check_recurrent_genotype(genotype)
        self.genotype = genotype
        self.hidden = hidden
        self.input_weight = _matrix(2 * hidden, 2 * hidden)
        self.step_weights = nn.ParameterList(
            _matrix(hidden, 2 * hidden) for _ in genotype.recurrent
        )
        # Each predecessor with the steps that read it, in increasing order, so that a predecessor
        # is computed before it is read.
        self.readers = [
            (p, steps)
            for p in range(len(genotype.recurrent))
            if (steps := [i for i, (_, q) in enumerate(genotype.recurrent) if q == p])
        ]
        self._time_step: Callable[..., Tensor] = self.time_step
        self.compiled = False

    def compile_time_step(self) -> None:
        """Compile a single time step, which sequences of any length use."""
        self._time_step = torch.compile(self.time_step, dynamic=False)
        self.compiled = True

    def forward(
        self,
        x_TBN: Tensor,
        s_BN: Tensor,
        input_mask_BN: Tensor | None = None,
        hidden_mask_BN: Tensor | None = None,
    ) -> Tensor:
        """Outputs of all time steps, T x B x N; the last one is the next sequence's `s_BN`."""
        projected_TBM = dropped(x_TBN, input_mask_BN) @ self.input_weight[: self.hidden]
        weights = [self.input_weight[self.hidden :]] + [
            torch.cat([self.step_weights[i] for i in steps], dim=1) for _, steps in self.readers
        ]
        dtype = projected_TBM.dtype
        matrices = [over_time(w_NM, dtype, at_once=not self.compiled) for w_NM in weights]
        outputs = []
        for projected_BM in projected_TBM.unbind():
            s_BN = self._time_step(projected_BM, s_BN, hidden_mask_BN, matrices)
            outputs.append(s_BN)
        return torch.stack(outputs)

    def time_step(
        self,
        projected_BM: Tensor,
        s_BN: Tensor,
        mask_BN: Tensor | None,
        matrices: Sequence[Matrix],
    ) -> Tensor:
        """The output of one time step, B x N."""
        states = {0: _input_state(projected_BM, s_BN, mask_BN, matrices[0])}
        for (p, steps), w_NM in zip(self.readers, matrices[1:], strict=True):
            s_BN = states[p]
            product_BM = times(dropped(s_BN, mask_BN), w_NM).to(s_BN.dtype)
            for i, part_BM in zip(steps, product_BM.chunk(len(steps), dim=-1), strict=True):
                c_BN, h_BN = part_BM.chunk(2, dim=-1)
                f = FUNCTIONS[self.genotype.recurrent[i][0]]
                states[i + 1] = torch.lerp(s_BN, f(h_BN), torch.sigmoid(c_BN))
        return torch.stack([states[i] for i in self.genotype.concat]).mean(0)


class _Step(NamedTuple):
    """What a search step reads, grouped by function.

    Attributes:
        predecessors: the states that are read, each once.
        functions: the functions that run, each once.
        rows: for every function, its indices into `predecessors`, on the device; None: all of them.
        sizes: how many rows every function has, if each predecessor has one function, as in a hard
            draw, so that the rows of a function are adjacent; else None.
        edges, operations: for all rows in their order, where the gate has their factors.
    """

    predecessors: list[int]
    functions: list[Callable[[Tensor], Tensor]]
    rows: list[Tensor | None]
    sizes: list[int] | None
    edges: list[int]
    operations: list[int]

    def split(self, x_PBN: Tensor) -> Sequence[Tensor]:
        """The rows of every function."""
        if self.sizes is not None:
            return list(x_PBN.split(self.sizes))
        return [x_PBN if rows is None else x_PBN[rows] for rows in self.rows]


def plan_steps(picks: Sequence[Pick], steps: int, device: torch.device) -> list[_Step]:
    """Group picks by step, and each step's predecessors by function; `none` is left out."""
    plans = []
    for step in range(1, steps + 1):
        start = first_edge(step)
        chosen = sorted((k, e - start) for e, k in picks if start <= e < start + step and k != NONE)
        predecessors = list(dict.fromkeys(p for _, p in chosen))
        operations = list(dict.fromkeys(k for k, _ in chosen))
        rows = [[predecessors.index(p) for j, p in chosen if j == k] for k in operations]
        every = list(range(len(predecessors)))
        side_by_side = [row for of_one in rows for row in of_one] == every
        plans.append(
            _Step(
                predecessors,
                [FUNCTIONS[RECURRENT_OPERATIONS[k]] for k in operations],
                [
                    None if side_by_side or of_one == every else _indices(of_one, device)
                    for of_one in rows
                ],
                [len(of_one) for of_one in rows] if side_by_side else None,
                [start + p for _, p in chosen],
                [k for k, _ in chosen],
            )
        )
    return plans


def _gates(gate_EK: Tensor, plan: _Step) -> Tensor:
    """The factors of a step's rows; without a gradient if all are 0."""
    places = [e * gate_EK.shape[1] + k for e, k in zip(plan.edges, plan.operations, strict=True)]
    gate_P = gate_EK.flatten()[_indices(places, gate_EK.device)]
    return torch.where((gate_P.detach() != 0).any(), gate_P, gate_P.detach())


def _indices(rows: list[int], device: torch.device) -> Tensor:
    """Indices as a tensor on a device; unlike for a list, the CPU does not wait for the device."""
    return torch.tensor(rows).to(device, non_blocking=True)


class SearchCell(nn.Module):
    """A cell that runs the picked (edge, operation) pairs of every step."""

    def __init__(self, steps: int, hidden: int) -> None:
        super().__init__()
        self.steps = steps
        self.hidden = hidden
        self.input_weight = _matrix(2 * hidden, 2 * hidden)
        self.step_weights = nn.ParameterList(_matrix(hidden, 2 * hidden) for _ in range(steps))
        self.norm = nn.BatchNorm1d(hidden, affine=False)

    @property
    def edges(self) -> int:
        """The number of edges, which is the number of rows of the logits."""
        return edge_count(self.steps)

    def forward(
        self,
        x_TBN: Tensor,
        s_BN: Tensor,
        picks: Sequence[Pick],
        gate_EK: Tensor | None = None,
        input_mask_BN: Tensor | None = None,
        hidden_mask_BN: Tensor | None = None,
    ) -> Tensor:
        """Outputs of all time steps, T x B x N.

        Args:
            picks: the (edge, operation) pairs that run, for all time steps and the whole batch.
            gate_EK: the factors of all pairs; None: 1.
        """
        plans = plan_steps(picks, self.steps, x_TBN.device)
        gates = [
            _gates(gate_EK, plan) if gate_EK is not None and plan.edges else None for plan in plans
        ]
        projected_TBM = dropped(x_TBN, input_mask_BN) @ self.input_weight[: self.hidden]
        dtype = projected_TBM.dtype
        w_NM = over_time(self.input_weight[self.hidden :], dtype)
        matrices = [over_time(step_NM, dtype) for step_NM in self.step_weights]
        outputs = []
        for projected_BM in projected_TBM.unbind():
            states = [self._normalise(_input_state(projected_BM, s_BN, hidden_mask_BN, w_NM))]
            for plan, gate_P, step_NM in zip(plans, gates, matrices, strict=True):
                states.append(self._step(states, plan, gate_P, hidden_mask_BN, step_NM))
            s_BN = torch.stack(states[1:]).mean(0)
            outputs.append(s_BN)
        return torch.stack(outputs)

    def _step(
        self,
        states: Sequence[Tensor],
        plan: _Step,
        gate_P: Tensor | None,
        mask_BN: Tensor | None,
        w_NM: Matrix,
    ) -> Tensor:
        """The next state: one product for all predecessors, one function call for each group."""
        if not plan.edges:
            return self._normalise(torch.zeros_like(states[0]))
        s_PBN = torch.stack([states[p] for p in plan.predecessors])
        product_PBM = times(dropped(s_PBN, mask_BN), w_NM).to(s_PBN.dtype)
        c_PBN, h_PBN = product_PBM.chunk(2, dim=-1)
        groups = zip(
            plan.functions,
            plan.split(s_PBN),
            plan.split(h_PBN),
            plan.split(torch.sigmoid(c_PBN)),
            strict=True,
        )
        added = [torch.lerp(s, f(h), c) for f, s, h, c in groups]
        added_PBN = torch.cat(added) if len(added) > 1 else added[0]
        if gate_P is not None:
            added_PBN = added_PBN * gate_P[:, None, None]
        return self._normalise(added_PBN.sum(0))

    def _normalise(self, s_BN: Tensor) -> Tensor:
        """Apply the shared batch norm; functional, since nothing reads its count of batches."""
        norm = self.norm
        return F.batch_norm(
            s_BN,
            norm.running_mean,
            norm.running_var,
            training=self.training,
            momentum=norm.momentum or 0.0,
            eps=norm.eps,
        )
