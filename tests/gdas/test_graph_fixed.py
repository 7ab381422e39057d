"""The fixed reduction cell with dense convolutions gives what the cell itself gives."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from gdas.cnn.cell import FixedReductionCell
from gdas.cnn.graph.fixed import fixed_cell
from gdas.cnn.operations import Style


@pytest.mark.parametrize("wiring", ["figure", "2019"])
def test_dense_convolutions_give_the_grouped_ones_results(
    wiring: Literal["figure", "2019"],
) -> None:
    torch.manual_seed(0)
    style = Style(True)
    cell = FixedReductionCell(12, 12, 16, style, last_reduced=False, wiring=wiring).double()
    cell.to(memory_format=torch.channels_last)
    inputs = [torch.randn(3, 12, 7, 6, dtype=torch.float64) for _ in range(2)]
    inputs = [x.contiguous(memory_format=torch.channels_last).requires_grad_() for x in inputs]
    known = [*inputs, *cell.parameters()]
    out = cell(*inputs, None)
    weight = torch.randn_like(out)
    wanted = torch.autograd.grad((out * weight).sum(), known)
    ours = fixed_cell(cell, *inputs)
    found = torch.autograd.grad((ours * weight).sum(), known)
    torch.testing.assert_close(ours, out)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)
