"""The kernel that adds what the programs of gdas.cnn.graph.backward left of weight gradients.

A weight's shares are added in a fixed order, so that results are equal bit for bit from run to run.

Names: C channels, E edges, T tiles of outputs, T_WIDE tiles of the larger images of a strided cell.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gdas.cnn.graph.tiles import DIL_3, OPERATIONS, SEP_3, SKIP, kernel_area


@triton.jit(do_not_specialize=["T", "T_WIDE", "programs"])
def weight_gradients(
    pointwise, depthwise, gradients, operations, offsets, sources, T, T_WIDE, programs,
    E: tl.constexpr, C: tl.constexpr, STRIDE: tl.constexpr, BLOCK: tl.constexpr,
    BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Add the shares of an edge's weight gradients; a slot's pointwise or depthwise weight each.

    Depthwise shares of sources of the larger images are T_WIDE tiles, others T.
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
    begin = tl.load(offsets + edge * OPERATIONS + operation)
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
            wide = (source < 2) & ((slot == 0) | dilated)
            count = tl.where(wide, T_WIDE, T)
            shares = depthwise + (slot * E + edge) * T_WIDE * 25 * C
            inside = element < area * C
            if tl.program_id(0) * BLOCK < area * C:
                total = sum_of_shares(shares, element, 25 * C, count, BLOCK, BLOCK_T)
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
