"""The recurrent cells written from their equations: what ours is measured against.

    [c, h] = [x mx, s mh] W_0      s_0 = s + sigmoid(c) (tanh(h) - s)
    [c, h] = (s_p mh) W_i          s_i = s_p + sigmoid(c) (f(h) - s_p)

One time step after the other, one product for every step of the cell; in the search one for every
edge, with a gate on each and `none` as a product with zero. Parameters are those of gdas.rnn.cell,
taken from the cell that this one stands in for.

Shapes: T time steps, B batch, N hidden, E edges, K operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gdas.rnn.cell import DerivedCell, SearchCell
from gdas.rnn.genotype import RECURRENT_OPERATIONS
from gdas.sampler import Pick

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda h: h.mul(0.0),
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda h: h,
}


def _times(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask


def _input_state(
    x_BN: Tensor, s_BN: Tensor, w: Tensor, mx: Tensor | None, mh: Tensor | None
) -> Tensor:
    both = torch.cat([_times(x_BN, mx), _times(s_BN, mh)], dim=1)
    c_BN, h_BN = (both @ w).chunk(2, dim=1)
    return s_BN + torch.sigmoid(c_BN) * (torch.tanh(h_BN) - s_BN)


def _state(s_BN: Tensor, w: Tensor, mh: Tensor | None, function: str) -> Tensor:
    c_BN, h_BN = (_times(s_BN, mh) @ w).chunk(2, dim=1)
    return s_BN + torch.sigmoid(c_BN) * (FUNCTIONS[function](h_BN) - s_BN)


class PlainDerivedCell(nn.Module):
    """gdas.rnn.cell.DerivedCell."""

    def __init__(self, cell: DerivedCell) -> None:
        super().__init__()
        self.genotype, self.hidden = cell.genotype, cell.hidden
        self.input_weight, self.step_weights = cell.input_weight, cell.step_weights

    def forward(
        self,
        x_TBN: Tensor,
        s_BN: Tensor,
        input_mask_BN: Tensor | None = None,
        hidden_mask_BN: Tensor | None = None,
    ) -> Tensor:
        outputs = []
        for x_BN in x_TBN:
            states = [_input_state(x_BN, s_BN, self.input_weight, input_mask_BN, hidden_mask_BN)]
            for (function, p), w in zip(self.genotype.recurrent, self.step_weights, strict=True):
                states.append(_state(states[p], w, hidden_mask_BN, function))
            s_BN = torch.stack([states[i] for i in self.genotype.concat]).mean(0)
            outputs.append(s_BN)
        return torch.stack(outputs)


class PlainSearchCell(nn.Module):
    """gdas.rnn.cell.SearchCell with one drawn function an edge."""

    def __init__(self, cell: SearchCell) -> None:
        super().__init__()
        self.hidden, self.edges = cell.hidden, cell.edges
        self.input_weight, self.step_weights = cell.input_weight, cell.step_weights
        self.norm = nn.BatchNorm1d(cell.hidden, affine=False)

    def forward(
        self,
        x_TBN: Tensor,
        s_BN: Tensor,
        picks: Sequence[Pick],
        gate_EK: Tensor,
        input_mask_BN: Tensor | None = None,
        hidden_mask_BN: Tensor | None = None,
    ) -> Tensor:
        outputs = []
        drawn = dict(picks)
        for x_BN in x_TBN:
            first = _input_state(x_BN, s_BN, self.input_weight, input_mask_BN, hidden_mask_BN)
            states = [self.norm(first)]
            edge = 0
            for w in self.step_weights:
                total: Tensor | int = 0
                for s in states:
                    k = drawn[edge]
                    function = RECURRENT_OPERATIONS[k]
                    term = _state(s, w, hidden_mask_BN, function)
                    # In the search `none` adds nothing at all.
                    term = term.mul(0.0) if function == "none" else gate_EK[edge, k] * term
                    total = total + term
                    edge += 1
                states.append(self.norm(total))
            s_BN = torch.stack(states[1:]).mean(0)
            outputs.append(s_BN)
        return torch.stack(outputs)
