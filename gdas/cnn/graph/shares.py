"""The kernel that adds the shares of weight gradients which the backward kernels leave.

A weight's shares are added in a fixed order, so that results are equal bit for bit from run to run.

Names: C channels, E edges.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gdas.cnn.graph.tiles import DIL_3, SEP_3, SKIP, kernel_area, place_of_weights


@triton.jit(do_not_specialize=["programs", "adding"])
def weight_gradients(
    pointwise, depthwise, gradients, operations, offsets, sources, programs, adding,
    E: tl.constexpr, C: tl.constexpr, STRIDE: tl.constexpr, BLOCK: tl.constexpr,
    BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Add the shares of an edge's weight gradients; a slot's pointwise or depthwise weight each.

    Args:
        programs, adding: shares of a pointwise and of a depthwise weight.
    """
    part = tl.program_id(2)  # slot * 2 + (1 for depthwise)
    slot = part // 2
    edge = tl.program_id(1)
    operation = tl.load(operations + edge)
    source = tl.load(sources + edge)
    separable = (operation >= SEP_3) & (operation < DIL_3)
    dilated = operation >= DIL_3
    reduced = (STRIDE == 2) & (operation == SKIP) & (source < 2)
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    begin = place_of_weights(offsets, edge, operation)
    area = kernel_area(operation)
    second = tl.where(separable & (slot == 1), area * C + C * C, 0)
    if part % 2 == 0:
        if separable | ((dilated | reduced) & (slot == 1)):
            shares = pointwise + (slot * E + edge) * programs * C * C
            total = sum_of_shares(shares, element, C * C, programs, BLOCK, BLOCK_T)
            to = gradients + begin + second + tl.where(reduced, 0, area * C)
            tl.store(to + element, total, mask=element < C * C)
    else:
        if separable | (dilated & (slot == 1)):
            shares = depthwise + (slot * E + edge) * adding * 25 * C
            inside = element < area * C
            if tl.program_id(0) * BLOCK < area * C:
                total = sum_of_shares(shares, element, 25 * C, adding, BLOCK, BLOCK_T)
                tl.store(gradients + begin + second + element, total, mask=inside)


@triton.jit
def sum_of_shares(
    shares, element, LENGTH: tl.constexpr, count, BLOCK: tl.constexpr, BLOCK_T: tl.constexpr
):  # fmt: skip
    """The sum of `count` rows of LENGTH numbers, at these elements."""
    total = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, count, BLOCK_T):
        share = begin + tl.arange(0, BLOCK_T)
        mask = (share < count)[:, None] & (element < LENGTH)[None, :]
        at = shares + share[:, None] * LENGTH + element[None, :]
        total += tl.sum(tl.load(at, mask=mask, other=0.0), axis=0)
    return total
