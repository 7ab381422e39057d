"""The forward kernels of a search cell: passes, batch statistics, node sums.

A pass writes its raw output once and, for every tile, each channel's mean and squared deviations;
whoever reads it normalises on load. Tiles' shares are put together in a fixed order, so that
results are equal bit for bit from run to run.

An edge has two slots for raw outputs: 0 for the first pass of a separable convolution, 1 for what
enters the node. `none` and the identity use neither.

Names: P output pixels and Q input pixels of a cell (of all images), C channels, E edges, T tiles.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gdas.cnn.graph.tiles import (
    AVG_POOL,
    DIL_3,
    MAX_POOL,
    OPERATIONS,
    SEP_3,
    SKIP,
    coordinates,
    depthwise_place,
    depthwise_tile,
    place_of_state,
    place_of_weights,
    pointwise_place,
    pointwise_weight,
    positive,
)

# Numbers that change from launch to launch must not give a kernel of their own where they are 1
# or divisible by 16: the alignment of all addresses follows from C.
PLAIN = ["P", "Q", "H", "W", "H_IN", "W_IN", "T", "kept", "first", "count", "node"]


@triton.jit
def keep_raw(
    raw, partial, out, pixel, tile, row, edge, c, P, T,
    C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Store a tile of raw output, and its channels' means and squared deviations."""
    live = pixel < P
    mask = live[:, None] & (c < C)[None, :]
    tl.store(raw + (row + pixel)[:, None] * C + c[None, :], out, mask=mask)
    pixels = tl.minimum(P - tile * BLOCK_P, BLOCK_P).to(tl.float32)
    mean = tl.sum(tl.where(mask, out, 0.0), axis=0) / pixels
    off = tl.where(mask, out - mean[None, :], 0.0)
    share = partial + (edge * T + tile) * 2 * C
    tl.store(share + c, mean, mask=c < C)
    tl.store(share + C + c, tl.sum(off * off, axis=0), mask=c < C)


@triton.jit
def pool_tile(
    x, begin, step, operation, image, row, column, live, height, width, stride, c,
    C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Max and which tap it was, or the mean without the padding, of 3 x 3 inputs."""
    channel = c < C
    best = tl.full([BLOCK_P, BLOCK_C], float("-inf"), tl.float32)
    which = tl.zeros([BLOCK_P, BLOCK_C], tl.int32)
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    taps = tl.zeros([BLOCK_P], tl.float32)
    for tap in tl.static_range(9):
        y = row * stride + tap // 3 - 1
        z = column * stride + tap % 3 - 1
        inside = live & (y >= 0) & (y < height) & (z >= 0) & (z < width)
        at = begin + ((image * height + y) * width + z) * step
        mask = inside[:, None] & channel[None, :]
        value = tl.load(x + at[:, None] * C + c[None, :], mask=mask, other=0.0).to(tl.float32)
        total += value
        taps += inside.to(tl.float32)
        better = mask & ((value > best) | (value != value))  # NaN wins, as in PyTorch
        best = tl.where(better, value, best)
        which = tl.where(better, tap, which)
    mean = total / tl.maximum(taps, 1.0)[:, None]
    return tl.where(operation == MAX_POOL, best, mean), which


@triton.jit
def halved_tile(
    x, begin, step, image, row, column, live, height, width, shift, c, C: tl.constexpr
):  # fmt: skip
    """relu(x) at every second pixel, `shift` pixels down and right; zero beyond the border."""
    y = 2 * row + shift
    z = 2 * column + shift
    inside = live & (y < height) & (z < width)
    at = begin + ((image * height + y) * width + z) * step
    mask = inside[:, None] & (c < C)[None, :]
    value = tl.load(x + at[:, None] * C + c[None, :], mask=mask, other=0.0)
    return positive(value.to(tl.float32))


@triton.jit(do_not_specialize=PLAIN)
def first_pass(
    states, raw, depth, taken, partial, operations, weights, offsets, sources, edges,
    first, P, Q, H, W, H_IN, W_IN, T, kept,
    E: tl.constexpr, C: tl.constexpr, NODES: tl.constexpr, STRIDE: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The drawn operation's first pass on edges whose sources are ready; a tile and edge each.

    Args:
        kept: 1 if weights will want a gradient, for which `depth` keeps what the depthwise
            convolution gives; else 0.
    """
    tile = tl.program_id(0)
    edge = tl.load(edges + first + tl.program_id(1))
    operation = tl.load(operations + edge)
    source = tl.load(sources + edge)
    begin, step = place_of_state(source, Q, NODES)
    height = tl.where(source < 2, H_IN, H)
    width = tl.where(source < 2, W_IN, W)
    stride = tl.where(source < 2, STRIDE, 1)
    c = tl.arange(0, BLOCK_C)
    pixel = tile * BLOCK_P + tl.arange(0, BLOCK_P)
    live = pixel < P
    image, row, column = coordinates(pixel, H, W)
    weight = place_of_weights(offsets, edge, operation)
    last = (E + edge) * P  # of slot 1
    mask = live[:, None] & (c < C)[None, :]
    none = tl.zeros([BLOCK_C], tl.float32)
    if operation >= SEP_3:
        dilation = tl.where(operation >= DIL_3, 2, 1)
        at = tl.where(operation >= DIL_3, last, edge * P)
        value = depthwise_tile(
            states, begin, step, none, none, weights + weight, operation, image, row, column, live,
            height, width, stride, dilation, c, C, False, BLOCK_P, BLOCK_C,
        )  # fmt: skip
        if kept:
            tl.store(depth + (at + pixel)[:, None] * C + c[None, :], value, mask=mask)
        place = pointwise_place(weight, operation, False, C)
        matrix = pointwise_weight(weights + place, c, C, 0, C)
        out = tl.dot(value, tl.trans(matrix), input_precision=PRECISION)
        keep_raw(raw, partial, out, pixel, tile, at, edge, c, P, T, C, BLOCK_P)
    if (operation == MAX_POOL) | (operation == AVG_POOL):
        out, which = pool_tile(
            states, begin, step, operation, image, row, column, live, height, width, stride, c,
            C, BLOCK_P, BLOCK_C,
        )  # fmt: skip
        at_taken = taken + (edge * P + pixel)[:, None] * C + c[None, :]
        tl.store(at_taken, which.to(tl.int8), mask=mask)
        keep_raw(raw, partial, out, pixel, tile, last, edge, c, P, T, C, BLOCK_P)
    if STRIDE == 2:
        if (operation == SKIP) & (source < 2):
            even = halved_tile(
                states, begin, step, image, row, column, live, height, width, 0, c, C
            )
            odd = halved_tile(states, begin, step, image, row, column, live, height, width, 1, c, C)
            top = pointwise_weight(weights + weight, c, C, 0, C // 2)
            bottom = pointwise_weight(weights + weight, c, C, C // 2, C)
            out = tl.dot(even, tl.trans(top), input_precision=PRECISION)
            out += tl.dot(odd, tl.trans(bottom), input_precision=PRECISION)
            keep_raw(raw, partial, out, pixel, tile, last, edge, c, P, T, C, BLOCK_P)


@triton.jit(do_not_specialize=PLAIN)
def second_pass(
    raw, depth, partial, statistics, operations, weights, offsets, edges, first, P, H, W, T, kept,
    E: tl.constexpr, C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The second pass of separable convolutions: from slot 0, normalised on load, to slot 1."""
    tile = tl.program_id(0)
    edge = tl.load(edges + first + tl.program_id(1))
    operation = tl.load(operations + edge)
    if (operation >= SEP_3) & (operation < DIL_3):
        c = tl.arange(0, BLOCK_C)
        pixel = tile * BLOCK_P + tl.arange(0, BLOCK_P)
        live = pixel < P
        image, row, column = coordinates(pixel, H, W)
        mean = tl.load(statistics + edge * 2 * C + c, mask=c < C, other=0.0)
        rstd = tl.load(statistics + edge * 2 * C + C + c, mask=c < C, other=0.0)
        begin = place_of_weights(offsets, edge, operation)
        weight = depthwise_place(begin, operation, True, C)
        value = depthwise_tile(
            raw, edge * P, 1, mean, rstd, weights + weight, operation, image, row, column, live,
            H, W, 1, 1, c, C, True, BLOCK_P, BLOCK_C,
        )  # fmt: skip
        last = (E + edge) * P
        mask = live[:, None] & (c < C)[None, :]
        if kept:
            tl.store(depth + (last + pixel)[:, None] * C + c[None, :], value, mask=mask)
        matrix = pointwise_weight(weights + pointwise_place(begin, operation, True, C), c, C, 0, C)
        out = tl.dot(value, tl.trans(matrix), input_precision=PRECISION)
        keep_raw(raw, partial, out, pixel, tile, last, edge, c, P, T, C, BLOCK_P)


@triton.jit(do_not_specialize=PLAIN)
def batch_statistics(
    partial, statistics, running, counts, operations, sources, edges, first, P, T,
    momentum, epsilon,
    E: tl.constexpr, C: tl.constexpr, STRIDE: tl.constexpr, SECOND: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Mean and 1 / deviation of an edge's raw output from its tiles' shares; running statistics.

    The variance comes from the tiles' squared deviations about their own means and the spread of
    those means.
    """
    edge = tl.load(edges + first + tl.program_id(0))
    operation = tl.load(operations + edge)
    separable = (operation >= SEP_3) & (operation < DIL_3)
    if SECOND:
        active = separable
        slot = 1
    else:
        identity = (operation == SKIP) & ((STRIDE == 1) | (tl.load(sources + edge) >= 2))
        active = (operation >= MAX_POOL) & (identity == 0)
        slot = tl.where(separable, 0, 1)
    if active:
        c = tl.arange(0, BLOCK_C)
        channel = c < C
        sums = tl.zeros([BLOCK_C], tl.float32)
        squares = tl.zeros([BLOCK_C], tl.float32)
        # The means' distances from the first of them: no difference of two large numbers.
        about = tl.load(partial + edge * T * 2 * C + c, mask=channel, other=0.0)
        for begin in range(0, T, BLOCK_T):
            tile = begin + tl.arange(0, BLOCK_T)
            mask = (tile < T)[:, None] & channel[None, :]
            at = partial + (edge * T + tile)[:, None] * 2 * C + c[None, :]
            pixels = tl.minimum(P - tile * BLOCK_P, BLOCK_P).to(tl.float32)
            off = tl.where(mask, tl.load(at, mask=mask, other=0.0) - about[None, :], 0.0)
            weighted = off * pixels[:, None]
            sums += tl.sum(weighted, axis=0)
            within = tl.load(at + C, mask=mask, other=0.0)
            squares += tl.sum(within + weighted * off, axis=0)
        off_mean = sums / P
        mean = about + off_mean
        squares = positive(squares - sums * off_mean)
        to = statistics + (slot * E + edge) * 2 * C
        tl.store(to + c, mean, mask=channel)
        tl.store(to + C + c, 1.0 / tl.sqrt_rn(squares / P + epsilon), mask=channel)
        norm = (edge * OPERATIONS + operation) * 2 + slot
        old = running + norm * 2 * C
        old_mean = tl.load(old + c, mask=channel, other=0.0)
        old_variance = tl.load(old + C + c, mask=channel, other=0.0)
        new_mean = old_mean * (1.0 - momentum) + mean * momentum
        new_variance = old_variance * (1.0 - momentum) + squares / (P - 1) * momentum
        tl.store(old + c, new_mean, mask=channel)
        tl.store(old + C + c, new_variance, mask=channel)
        tl.store(counts + norm, tl.load(counts + norm) + 1)


@triton.jit(do_not_specialize=PLAIN)
def node_sum(
    states, raw, statistics, operations, sources, node, first, count, P, Q,
    E: tl.constexpr, C: tl.constexpr, NODES: tl.constexpr, STRIDE: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A node: the sum of its edges' normalised outputs (Eq. 3)."""
    c = tl.arange(0, BLOCK_C)
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    mask = (pixel < P)[:, None] & (c < C)[None, :]
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for edge in range(first, first + count):
        operation = tl.load(operations + edge)
        source = tl.load(sources + edge)
        identity = (operation == SKIP) & ((STRIDE == 1) | (source >= 2))
        if identity:
            begin, step = place_of_state(source, Q, NODES)
            at = states + (begin + pixel * step)[:, None] * C + c[None, :]
            total += tl.load(at, mask=mask, other=0.0).to(tl.float32)
        if (operation >= MAX_POOL) & (identity == 0):
            kept = statistics + (E + edge) * 2 * C
            mean = tl.load(kept + c, mask=c < C, other=0.0)
            rstd = tl.load(kept + C + c, mask=c < C, other=0.0)
            at = raw + ((E + edge) * P + pixel)[:, None] * C + c[None, :]
            value = tl.load(at, mask=mask, other=0.0).to(tl.float32)
            total += (value - mean[None, :]) * rstd[None, :]
    begin, step = place_of_state(node + 2, Q, NODES)
    tl.store(states + (begin + pixel * step)[:, None] * C + c[None, :], total, mask=mask)
