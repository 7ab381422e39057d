"""The backward kernels of a search cell, node by node from the last to the first.

For the edges into a node: sums over the batch that batch norm's gradient needs (the second of which
is the gate's gradient, <node's gradient, term>), the gradient before batch norm and through the
pointwise convolution, through the depthwise one, and the source's. An edge of a node has a source
of its own, so that every number has one writer. Shares of weight gradients are added afterwards in
a fixed order.

Names: P output pixels and Q input pixels of a cell (of all images), C channels, E edges, T tiles of
outputs.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gdas.cnn.graph.forward import halved_tile
from gdas.cnn.graph.tiles import (
    AVG_POOL,
    DIL_3,
    MAX_POOL,
    SEP_3,
    SKIP,
    coordinates,
    depthwise_gradient_tile,
    depthwise_place,
    place_of_state,
    place_of_weights,
    pointwise_place,
    pointwise_weight,
)

PLAIN = ["P", "Q", "H", "W", "H_IN", "W_IN", "T", "first", "node", "programs"]


@triton.jit(do_not_specialize=PLAIN)
def term_sums(
    states, gradients, raw, statistics, partial, operations, sources, first, node, P, Q, T,
    E: tl.constexpr, C: tl.constexpr, NODES: tl.constexpr, STRIDE: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A tile's sums of the node's gradient, and of that times the edge's term."""
    tile = tl.program_id(0)
    edge = first + tl.program_id(1)
    operation = tl.load(operations + edge)
    if operation >= MAX_POOL:
        source = tl.load(sources + edge)
        c = tl.arange(0, BLOCK_C)
        channel = c < C
        pixel = tile * BLOCK_P + tl.arange(0, BLOCK_P)
        mask = (pixel < P)[:, None] & channel[None, :]
        begin, step = place_of_state(node + 2, Q, NODES)
        at = gradients + (begin + pixel * step)[:, None] * C + c[None, :]
        gradient = tl.load(at, mask=mask, other=0.0).to(tl.float32)
        term = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
        if (operation == SKIP) & ((STRIDE == 1) | (source >= 2)):
            begin, step = place_of_state(source, Q, NODES)
            at = states + (begin + pixel * step)[:, None] * C + c[None, :]
            term = tl.load(at, mask=mask, other=0.0).to(tl.float32)
        else:
            kept = statistics + (E + edge) * 2 * C
            mean = tl.load(kept + c, mask=channel, other=0.0)
            rstd = tl.load(kept + C + c, mask=channel, other=0.0)
            at = raw + ((E + edge) * P + pixel)[:, None] * C + c[None, :]
            value = tl.load(at, mask=mask, other=0.0).to(tl.float32)
            term = (value - mean[None, :]) * rstd[None, :]
        share = partial + (edge * T + tile) * 2 * C
        tl.store(share + c, tl.sum(gradient, axis=0), mask=channel)
        tl.store(share + C + c, tl.sum(gradient * term, axis=0), mask=channel)


@triton.jit(do_not_specialize=PLAIN)
def gradient_sums(
    partial, sums, gates, operations, first, T,
    E: tl.constexpr, C: tl.constexpr, SLOT: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Add the tiles' sums; for what enters the node, the gate's gradient too."""
    edge = first + tl.program_id(0)
    operation = tl.load(operations + edge)
    c = tl.arange(0, BLOCK_C)
    channel = c < C
    plain = tl.zeros([BLOCK_C], tl.float32)
    with_term = tl.zeros([BLOCK_C], tl.float32)
    if SLOT == 1:
        active = operation >= MAX_POOL
    else:
        active = (operation >= SEP_3) & (operation < DIL_3)
    if active:
        for begin in range(0, T, BLOCK_T):
            tile = begin + tl.arange(0, BLOCK_T)
            mask = (tile < T)[:, None] & channel[None, :]
            at = partial + (edge * T + tile)[:, None] * 2 * C + c[None, :]
            plain += tl.sum(tl.load(at, mask=mask, other=0.0), axis=0)
            with_term += tl.sum(tl.load(at + C, mask=mask, other=0.0), axis=0)
        kept = sums + (SLOT * E + edge) * 2 * C
        tl.store(kept + c, plain, mask=channel)
        tl.store(kept + C + c, with_term, mask=channel)
    if SLOT == 1:
        tl.store(gates + edge, tl.sum(with_term, axis=0))


@triton.jit
def before_norm(
    gradient, begin, step, raw, statistics, sums, slot, edge, pixel, mask, c, P,
    E: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """The gradient of a tile of raw outputs, from that of the normalised ones."""
    kept = (slot * E + edge) * 2 * C
    channel = c < C
    mean = tl.load(statistics + kept + c, mask=channel, other=0.0)
    rstd = tl.load(statistics + kept + C + c, mask=channel, other=0.0)
    plain = tl.load(sums + kept + c, mask=channel, other=0.0) / P
    with_term = tl.load(sums + kept + C + c, mask=channel, other=0.0) / P
    at = gradient + (begin + pixel * step)[:, None] * C + c[None, :]
    value = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    at = raw + ((slot * E + edge) * P + pixel)[:, None] * C + c[None, :]
    term = (tl.load(at, mask=mask, other=0.0).to(tl.float32) - mean[None, :]) * rstd[None, :]
    out = rstd[None, :] * (value - plain[None, :] - term * with_term[None, :])
    return tl.where(mask, out, 0.0)


@triton.jit(do_not_specialize=PLAIN)
def pointwise_gradient(
    states, gradients, raw, depth, statistics, sums, between, inner, shares, operations, weights,
    offsets, sources, first, node, P, Q, H, W, H_IN, W_IN, T, programs,
    E: tl.constexpr, C: tl.constexpr, NODES: tl.constexpr, STRIDE: tl.constexpr,
    SLOT: tl.constexpr, WEIGHTS: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Through batch norm and pointwise convolution of a slot, into `between` (2 x E x P x C).

    Pools have no convolution: `between` gets the gradient before their norm. A strided skip has
    two: `inner` gets what belongs to the odd pixels. A program takes every `programs`-th tile and
    leaves its share of the pointwise weight's gradient in `shares`.
    """
    program = tl.program_id(0)
    edge = first + tl.program_id(1)
    operation = tl.load(operations + edge)
    source = tl.load(sources + edge)
    c = tl.arange(0, BLOCK_C)
    channel = c < C
    weight = place_of_weights(offsets, edge, operation)
    share = shares + ((SLOT * E + edge) * programs + program) * C * C
    at_share = share + c[:, None] * C + c[None, :]
    square = channel[:, None] & channel[None, :]
    if SLOT == 1:
        begin, step = place_of_state(node + 2, Q, NODES)
        convolution = operation >= SEP_3
    else:
        begin = edge * P
        step = 1
        convolution = (operation >= SEP_3) & (operation < DIL_3)
    separable = (operation >= SEP_3) & (operation < DIL_3)
    if convolution:
        place = pointwise_place(weight, operation, False, C)
        if SLOT == 1:
            if separable:
                place = pointwise_place(weight, operation, True, C)
        matrix = pointwise_weight(weights + place, c, C, 0, C)
        total = tl.zeros([BLOCK_C, BLOCK_C], tl.float32)
        for tile in range(program, T, programs):
            pixel = tile * BLOCK_P + tl.arange(0, BLOCK_P)
            mask = (pixel < P)[:, None] & channel[None, :]
            if SLOT == 1:
                out = before_norm(
                    gradients, begin, step, raw, statistics, sums, 1, edge, pixel, mask, c, P, E, C
                )
            else:
                out = before_norm(
                    inner, begin, step, raw, statistics, sums, 0, edge, pixel, mask, c, P, E, C
                )
            at = ((SLOT * E + edge) * P + pixel)[:, None] * C + c[None, :]
            tl.store(between + at, tl.dot(out, matrix, input_precision=PRECISION), mask=mask)
            if WEIGHTS:
                value = tl.load(depth + at, mask=mask, other=0.0).to(tl.float32)
                total += tl.dot(tl.trans(out), value, input_precision=PRECISION)
        if WEIGHTS:
            tl.store(at_share, total, mask=square)
    if SLOT == 1:
        if (operation == MAX_POOL) | (operation == AVG_POOL):
            for tile in range(program, T, programs):
                pixel = tile * BLOCK_P + tl.arange(0, BLOCK_P)
                mask = (pixel < P)[:, None] & channel[None, :]
                out = before_norm(
                    gradients, begin, step, raw, statistics, sums, 1, edge, pixel, mask, c, P, E, C
                )
                if operation == AVG_POOL:
                    height = tl.where(source < 2, H_IN, H)
                    width = tl.where(source < 2, W_IN, W)
                    stride = tl.where(source < 2, STRIDE, 1)
                    _, row, column = coordinates(pixel, H, W)
                    high = reach(row * stride, height) * reach(column * stride, width)
                    out = out / high.to(tl.float32)[:, None]
                at = ((E + edge) * P + pixel)[:, None] * C + c[None, :]
                tl.store(between + at, out, mask=mask)
        if STRIDE == 2:
            if (operation == SKIP) & (source < 2):
                place_x, step_x = place_of_state(source, Q, NODES)
                top = pointwise_weight(weights + weight, c, C, 0, C // 2)
                bottom = pointwise_weight(weights + weight, c, C, C // 2, C)
                total = tl.zeros([BLOCK_C, BLOCK_C], tl.float32)
                for tile in range(program, T, programs):
                    pixel = tile * BLOCK_P + tl.arange(0, BLOCK_P)
                    live = pixel < P
                    mask = live[:, None] & channel[None, :]
                    out = before_norm(
                        gradients, begin, step, raw, statistics, sums, 1, edge, pixel, mask, c, P,
                        E, C,
                    )  # fmt: skip
                    at = (edge * P + pixel)[:, None] * C + c[None, :]
                    even = tl.dot(out, top, input_precision=PRECISION)
                    tl.store(between + E * P * C + at, even, mask=mask)
                    odd = tl.dot(out, bottom, input_precision=PRECISION)
                    tl.store(inner + at, odd, mask=mask)
                    if WEIGHTS:
                        image, row, column = coordinates(pixel, H, W)
                        upper = (c < C // 2)[None, :]
                        value = halved_tile(
                            states, place_x, step_x, image, row, column, live, H_IN, W_IN, 0, c, C
                        )
                        out_even = tl.trans(tl.where(upper, out, 0.0))
                        total += tl.dot(out_even, value, input_precision=PRECISION)
                        value = halved_tile(
                            states, place_x, step_x, image, row, column, live, H_IN, W_IN, 1, c, C
                        )
                        out_odd = tl.trans(tl.where(upper, 0.0, out))
                        total += tl.dot(out_odd, value, input_precision=PRECISION)
                if WEIGHTS:
                    tl.store(at_share, total, mask=square)


@triton.jit
def reach(centre, size):
    """How many of the three positions about `centre` lie within [0, size)."""
    return tl.minimum(centre + 2, size) - tl.maximum(centre - 1, 0)


@triton.jit(do_not_specialize=PLAIN)
def inner_gradient(
    raw, statistics, between, inner, partial, operations, weights, offsets, first, P, H, W, T,
    E: tl.constexpr, C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Through the second depthwise convolution of separable ones and its ReLU, into `inner`.

    A tile also leaves the sums that the first batch norm's gradient needs.
    """
    tile = tl.program_id(0)
    edge = first + tl.program_id(1)
    operation = tl.load(operations + edge)
    if (operation >= SEP_3) & (operation < DIL_3):
        c = tl.arange(0, BLOCK_C)
        channel = c < C
        pixel = tile * BLOCK_P + tl.arange(0, BLOCK_P)
        live = pixel < P
        mask = live[:, None] & channel[None, :]
        image, row, column = coordinates(pixel, H, W)
        mean = tl.load(statistics + edge * 2 * C + c, mask=channel, other=0.0)
        rstd = tl.load(statistics + edge * 2 * C + C + c, mask=channel, other=0.0)
        at = (edge * P + pixel)[:, None] * C + c[None, :]
        value = tl.load(raw + at, mask=mask, other=0.0).to(tl.float32)
        term = tl.where(mask, (value - mean[None, :]) * rstd[None, :], 0.0)
        begin = place_of_weights(offsets, edge, operation)
        weight = weights + depthwise_place(begin, operation, True, C)
        out = depthwise_gradient_tile(
            between, (E + edge) * P, weight, operation, image, row, column, live, H, W, 0, 1, c,
            C, False, BLOCK_P, BLOCK_C,
        )  # fmt: skip
        out = tl.where(term > 0, out, 0.0)
        tl.store(inner + at, out, mask=mask)
        share = partial + (edge * T + tile) * 2 * C
        tl.store(share + c, tl.sum(out, axis=0), mask=channel)
        tl.store(share + C + c, tl.sum(out * term, axis=0), mask=channel)


@triton.jit
def pool_gradient_tile(
    gradient, taken, begin, operation, image, row, column, live, height, width, half, c,
    C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A pool's gradient at a tile of inputs, from the outputs that read them (or took them)."""
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for down in tl.static_range(3):
        y = row - (down - 1)
        in_rows = live & (y >= 0) & ((y & half) == 0)
        y = y >> half
        in_rows = in_rows & (y < height)
        line = begin + (image * height + y) * width
        for right in tl.static_range(3):
            z = column - (right - 1)
            inside = in_rows & (z >= 0) & ((z & half) == 0)
            z = z >> half
            mask = (inside & (z < width))[:, None] & (c < C)[None, :]
            at = (line + z)[:, None] * C + c[None, :]
            value = tl.load(gradient + at, mask=mask, other=0.0).to(tl.float32)
            which = tl.load(taken + at, mask=mask, other=-1).to(tl.int32)
            read = (operation == AVG_POOL) | (which == down * 3 + right)
            total += tl.where(read, value, 0.0)
    return total


@triton.jit(do_not_specialize=PLAIN)
def source_gradient(
    states, gradients, taken, between, inner, operations, weights, offsets, sources,
    first, node, P, Q, H, W, H_IN, W_IN,
    E: tl.constexpr, C: tl.constexpr, NODES: tl.constexpr, STRIDE: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Add what the edges of a node send back to their sources; a tile of inputs and edge each."""
    tile = tl.program_id(0)
    edge = first + tl.program_id(1)
    operation = tl.load(operations + edge)
    source = tl.load(sources + edge)
    large = source < 2
    pixels = tl.where(large, Q, P)
    # The first that writes the gradient of an input; whoever comes later adds to it.
    fresh = large & (node == NODES - 1)
    if ((operation >= MAX_POOL) | fresh) & (tile * BLOCK_P < pixels):
        begin, step = place_of_state(source, Q, NODES)
        half = tl.where(large, STRIDE - 1, 0)
        c = tl.arange(0, BLOCK_C)
        channel = c < C
        pixel = tile * BLOCK_P + tl.arange(0, BLOCK_P)
        live = pixel < pixels
        mask = live[:, None] & channel[None, :]
        image, row, column = coordinates(pixel, tl.where(large, H_IN, H), tl.where(large, W_IN, W))
        at = (begin + pixel * step)[:, None] * C + c[None, :]
        x = tl.load(states + at, mask=mask, other=0.0).to(tl.float32)
        out = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
        if operation >= SEP_3:
            from_slot = tl.where(operation >= DIL_3, E, 0)
            dilation = tl.where(operation >= DIL_3, 2, 1)
            weight = weights + place_of_weights(offsets, edge, operation)
            out = depthwise_gradient_tile(
                between, (from_slot + edge) * P, weight, operation, image, row, column, live, H, W,
                half, dilation, c, C, STRIDE == 2, BLOCK_P, BLOCK_C,
            )  # fmt: skip
            out = tl.where(x > 0, out, 0.0)
        if (operation == MAX_POOL) | (operation == AVG_POOL):
            out = pool_gradient_tile(
                between + E * P * C, taken, edge * P, operation, image, row, column, live, H, W,
                half, c, C, BLOCK_P, BLOCK_C,
            )  # fmt: skip
        if operation == SKIP:
            if half == 0:
                of_node, apart = place_of_state(node + 2, Q, NODES)
                from_node = gradients + (of_node + pixel * apart)[:, None] * C + c[None, :]
                out = tl.load(from_node, mask=mask, other=0.0).to(tl.float32)
            else:
                place = edge * P + (image * H + row // 2) * W + column // 2
                read = place[:, None] * C + c[None, :]
                even = (row % 2 == 0) & (column % 2 == 0)
                odd = (row % 2 == 1) & (column % 2 == 1)
                of_even = tl.load(between + E * P * C + read, mask=mask & even[:, None], other=0.0)
                of_odd = tl.load(inner + read, mask=mask & odd[:, None], other=0.0)
                out = tl.where(x > 0, of_even.to(tl.float32) + of_odd.to(tl.float32), 0.0)
        before = tl.load(gradients + at, mask=mask & (fresh == 0), other=0.0).to(tl.float32)
        tl.store(gradients + at, before + out, mask=mask)
