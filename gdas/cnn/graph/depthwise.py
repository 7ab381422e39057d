"""The gradient of the depthwise weights of a search cell, all edges and both passes at once.

A weight's gradient is a sum over all pixels. A program has one row of a kernel on one edge, goes
through many tiles of output pixels, and adds up in registers: it puts its threads' sums together
once, at the end, and leaves one share. `gdas.cnn.graph.shares` adds the shares.

Names: P output pixels and Q input pixels of a cell (of all images), C channels, E edges, T tiles.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gdas.cnn.graph.tiles import (
    DIL_3,
    SEP_3,
    coordinates,
    kernel_area,
    place_of_state,
    positive,
)

PLAIN = ["P", "Q", "H", "W", "H_IN", "W_IN", "T", "programs"]


@triton.jit
def read_by_tap(
    x, middle, away, mean, rstd, in_rows, z, width, c, C: tl.constexpr, NORMALISE: tl.constexpr
):  # fmt: skip
    """What one tap of a depthwise convolution reads at a tile of outputs, after the ReLU."""
    mask = (in_rows & (z >= 0) & (z < width))[:, None] & (c < C)[None, :]
    value = tl.load(x + away + middle, mask=mask, other=0.0).to(tl.float32)
    if NORMALISE:
        value = tl.where(mask, (value - mean[None, :]) * rstd[None, :], 0.0)
    return positive(value)


@triton.jit
def row_of_weights(
    x, begin, step, mean, rstd, gradient, shares, program, programs, down, P, T, H, W, height,
    width, stride, dilation, c,
    C: tl.constexpr, KERNEL: tl.constexpr, NORMALISE: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Add up a row of a kernel over every `programs`-th tile.

    Args:
        gradient: of the convolution's outputs, dense.
        shares: where this program's sums go, tap by tap, a row of C each.
        down: the row's number.
    """
    channel = c < C
    sum_0 = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    sum_1 = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    sum_2 = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    sum_3 = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    sum_4 = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for tile in range(program, T, programs):
        pixel = tile * BLOCK_P + tl.arange(0, BLOCK_P)
        live = pixel < P
        image, row, column = coordinates(pixel, H, W)
        at = pixel[:, None] * C + c[None, :]
        mask = live[:, None] & channel[None, :]
        sent = tl.load(gradient + at, mask=mask, other=0.0).to(tl.float32)
        y = row * stride + (down - KERNEL // 2) * dilation
        in_rows = live & (y >= 0) & (y < height)
        z = column * stride - KERNEL // 2 * dilation
        middle = (begin + ((image * height + y) * width + z) * step)[:, None] * C + c[None, :]
        away = dilation * step * C
        sum_0 += sent * read_by_tap(
            x, middle, 0, mean, rstd, in_rows, z, width, c, C, NORMALISE
        )  # fmt: skip
        sum_1 += sent * read_by_tap(
            x, middle, away, mean, rstd, in_rows, z + dilation, width, c, C, NORMALISE
        )  # fmt: skip
        sum_2 += sent * read_by_tap(
            x, middle, 2 * away, mean, rstd, in_rows, z + 2 * dilation, width, c, C, NORMALISE
        )  # fmt: skip
        if KERNEL == 5:
            sum_3 += sent * read_by_tap(
                x, middle, 3 * away, mean, rstd, in_rows, z + 3 * dilation, width, c, C, NORMALISE
            )  # fmt: skip
            sum_4 += sent * read_by_tap(
                x, middle, 4 * away, mean, rstd, in_rows, z + 4 * dilation, width, c, C, NORMALISE
            )  # fmt: skip
    to = shares + down * KERNEL * C + c
    tl.store(to, tl.sum(sum_0, axis=0), mask=channel)
    tl.store(to + C, tl.sum(sum_1, axis=0), mask=channel)
    tl.store(to + 2 * C, tl.sum(sum_2, axis=0), mask=channel)
    if KERNEL == 5:
        tl.store(to + 3 * C, tl.sum(sum_3, axis=0), mask=channel)
        tl.store(to + 4 * C, tl.sum(sum_4, axis=0), mask=channel)


@triton.jit
def rows_of_weights(
    x, begin, step, mean, rstd, gradient, shares, operation, program, programs, down, P, T, H, W,
    height, width, stride, dilation, c,
    C: tl.constexpr, NORMALISE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """`row_of_weights` with the drawn operation's kernel size."""
    if kernel_area(operation) == 25:
        row_of_weights(
            x, begin, step, mean, rstd, gradient, shares, program, programs, down, P, T, H, W,
            height, width, stride, dilation, c, C, 5, NORMALISE, BLOCK_P, BLOCK_C,
        )  # fmt: skip
    else:
        if down < 3:
            row_of_weights(
                x, begin, step, mean, rstd, gradient, shares, program, programs, down, P, T, H, W,
                height, width, stride, dilation, c, C, 3, NORMALISE, BLOCK_P, BLOCK_C,
            )  # fmt: skip


@triton.jit(do_not_specialize=PLAIN)
def depthwise_weights(
    states, raw, statistics, between, shares, operations, sources, P, Q, H, W, H_IN, W_IN, T,
    programs,
    E: tl.constexpr, C: tl.constexpr, NODES: tl.constexpr, STRIDE: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The shares of all depthwise weights' gradients; a program a slot, edge and kernel row.

    The second pass of a separable convolution reads the first one's raw output, normalised on load;
    all others read a state of the cell.

    Args:
        between: 2 x E x P x C by slot, gradients of the depthwise convolutions' outputs.
        shares: 2 x E x programs x 25 x C.
    """
    program = tl.program_id(0)
    slot = tl.program_id(1) // E
    edge = tl.program_id(1) % E
    down = tl.program_id(2)
    operation = tl.load(operations + edge)
    separable = (operation >= SEP_3) & (operation < DIL_3)
    c = tl.arange(0, BLOCK_C)
    gradient = between + (slot * E + edge) * P * C
    share = shares + ((slot * E + edge) * programs + program) * 25 * C
    if separable & (slot == 1):
        mean = tl.load(statistics + edge * 2 * C + c, mask=c < C, other=0.0)
        rstd = tl.load(statistics + edge * 2 * C + C + c, mask=c < C, other=0.0)
        rows_of_weights(
            raw, edge * P, 1, mean, rstd, gradient, share, operation, program, programs, down,
            P, T, H, W, H, W, 1, 1, c, C, True, BLOCK_P, BLOCK_C,
        )  # fmt: skip
    if (separable & (slot == 0)) | ((operation >= DIL_3) & (slot == 1)):
        source = tl.load(sources + edge)
        begin, step = place_of_state(source, Q, NODES)
        height = tl.where(source < 2, H_IN, H)
        width = tl.where(source < 2, W_IN, W)
        stride = tl.where(source < 2, STRIDE, 1)
        dilation = tl.where(operation >= DIL_3, 2, 1)
        none = tl.zeros([BLOCK_C], tl.float32)
        rows_of_weights(
            states, begin, step, none, none, gradient, share, operation, program, programs, down,
            P, T, H, W, height, width, stride, dilation, c, C, False, BLOCK_P, BLOCK_C,
        )  # fmt: skip
