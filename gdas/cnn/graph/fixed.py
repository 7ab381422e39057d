"""The fixed reduction cell with dense convolutions in place of grouped ones: the same sums.

cuDNN runs a grouped 1 x 3 convolution of channels-last images group by group, and cuts every group
out of its input first: some 5 of 21 ms of an iteration on an H100. A dense convolution whose
weight is zero between groups adds nothing but zeros and is one kernel.

Shapes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdas.cnn.cell import FixedReductionCell


def dense_weight(convolution: nn.Conv2d) -> Tensor:
    """The weight of a convolution without groups that gives the same, C out x C in x kernel."""
    groups, weight = convolution.groups, convolution.weight
    out, within, height, width = weight.shape
    same_G1G = torch.eye(groups, dtype=weight.dtype, device=weight.device)[:, None, :]
    spread = weight.reshape(groups, out // groups, 1, within * height * width)
    dense = spread * same_G1G[..., None]
    return dense.reshape(out, groups * within, height, width)


def dense_convolution(convolution: nn.Conv2d, x_BCHW: Tensor) -> Tensor:
    """What the convolution gives."""
    weight = dense_weight(convolution).contiguous(memory_format=torch.channels_last)
    stride, padding = convolution.stride, convolution.padding
    assert isinstance(padding, tuple)
    return F.conv2d(x_BCHW, weight, convolution.bias, stride, padding)


def fixed_cell(cell: FixedReductionCell, s0_BCHW: Tensor, s1_BCHW: Tensor) -> Tensor:
    """What the cell gives, to rounding."""
    kept = [list(branch) for branch in cell.convolutions]  # type: ignore[call-overload]
    states = cell.preprocess(s0_BCHW, s1_BCHW)
    branches = []
    for (relu, wide, high, *rest), state_BCHW in zip(kept, states, strict=True):
        out_BCHW = dense_convolution(high, dense_convolution(wide, relu(state_BCHW)))
        for layer in rest:
            out_BCHW = layer(out_BCHW)
        branches.append(out_BCHW)
    pooled = [states[0] if cell.wiring == "figure" else branches[0] + branches[1], states[1]]
    branches += [pooling(x) for pooling, x in zip(cell.poolings, pooled, strict=True)]
    return torch.cat(branches, dim=1)
