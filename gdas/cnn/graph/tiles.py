"""What all kernels of a search cell share: which pixel, which state, which weight; and the taps.

Kernels work on tiles of BLOCK_P pixels by all C channels (BLOCK_C is the next power of two) of
channels-last images. A drawn operation is a number read from device memory; every branch below is
on such a number.

Names: P output pixels and Q input pixels of a cell (of all images), C channels, E edges.
"""

from __future__ import annotations

import triton
import triton.language as tl

# The operations by their place in gdas.cnn.genotype.OPERATIONS, which a test compares.
MAX_POOL: tl.constexpr = tl.constexpr(1)
AVG_POOL: tl.constexpr = tl.constexpr(2)
SKIP: tl.constexpr = tl.constexpr(3)
SEP_3: tl.constexpr = tl.constexpr(4)
SEP_5: tl.constexpr = tl.constexpr(5)
DIL_3: tl.constexpr = tl.constexpr(6)
DIL_5: tl.constexpr = tl.constexpr(7)
OPERATIONS: tl.constexpr = tl.constexpr(8)


@triton.jit
def coordinates(pixel, height, width):
    """Image, row and column of a pixel."""
    line = pixel // width
    return line // height, line % height, pixel % width


@triton.jit
def place_of_state(source, Q, NODES: tl.constexpr):
    """Where a state begins, in units of C numbers, and how far it is from pixel to pixel.

    A cell's states are one buffer: the two inputs, then the nodes side by side, as in the output.
    """
    begin = tl.where(source < 2, source * Q, 2 * Q + source - 2)
    step = tl.where(source < 2, 1, NODES)
    return begin, step


@triton.jit
def place_of_weights(offsets, edge, operation):
    """Where an operation's weights begin: at a multiple of gdas.cnn.graph.flat.UNIT numbers."""
    return tl.multiple_of(tl.load(offsets + edge * OPERATIONS + operation), 16)


@triton.jit
def kernel_area(operation):
    """Weights of one channel of the operation's depthwise kernel."""
    return tl.where((operation == SEP_5) | (operation == DIL_5), 25, 9)


@triton.jit
def depthwise_place(begin, operation, SECOND: tl.constexpr, C: tl.constexpr):
    """Where a pass's depthwise weight (kernel x kernel x C) begins.

    An operation's weights follow each other: depthwise, pointwise, and the same of a second pass.
    """
    if SECOND:
        begin += kernel_area(operation) * C + C * C
    return begin


@triton.jit
def pointwise_place(begin, operation, SECOND: tl.constexpr, C: tl.constexpr):
    """Where a pass's pointwise weight (C out x C in) begins; a strided skip has nothing else."""
    if SECOND:
        begin += kernel_area(operation) * C + C * C
    return begin + tl.where(operation == SKIP, 0, kernel_area(operation) * C)


@triton.jit
def positive(x):
    """ReLU that lets NaN through, so that a diverged run is seen."""
    return tl.where(x < 0, 0.0, x)


@triton.jit
def taps_of_output(
    x, begin, step, mean, rstd, weight, image, row, column, live, height, width, stride,
    dilation, c,
    C: tl.constexpr, KERNEL: tl.constexpr, NORMALISE: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Depthwise convolution of relu(x), or of relu of the normalised x, at a tile of outputs.

    All that depends on the pixel is worked out once: a tap moves the address by a number.
    """
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    channel = c < C
    top = row * stride
    left = column * stride
    middle = (begin + ((image * height + top) * width + left) * step)[:, None] * C + c[None, :]
    for down in tl.static_range(KERNEL):
        y = (down - KERNEL // 2) * dilation
        in_rows = live & (top + y >= 0) & (top + y < height)
        for right in tl.static_range(KERNEL):
            z = (right - KERNEL // 2) * dilation
            inside = in_rows & (left + z >= 0) & (left + z < width)
            mask = inside[:, None] & channel[None, :]
            away = (y * width + z) * step * C
            value = tl.load(x + away + middle, mask=mask, other=0.0).to(tl.float32)
            if NORMALISE:
                value = tl.where(mask, (value - mean[None, :]) * rstd[None, :], 0.0)
            of_tap = tl.load(weight + (down * KERNEL + right) * C + c, mask=channel, other=0.0)
            total += positive(value) * of_tap[None, :]
    return total


@triton.jit
def depthwise_tile(
    x, begin, step, mean, rstd, weight, operation, image, row, column, live, height, width, stride,
    dilation, c,
    C: tl.constexpr, NORMALISE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """`taps_of_output` with the drawn operation's kernel size."""
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    if kernel_area(operation) == 25:
        total = taps_of_output(
            x, begin, step, mean, rstd, weight, image, row, column, live, height, width, stride,
            dilation, c, C, 5, NORMALISE, BLOCK_P, BLOCK_C,
        )  # fmt: skip
    else:
        total = taps_of_output(
            x, begin, step, mean, rstd, weight, image, row, column, live, height, width, stride,
            dilation, c, C, 3, NORMALISE, BLOCK_P, BLOCK_C,
        )  # fmt: skip
    return total


@triton.jit
def taps_of_input(
    gradient, begin, weight, image, row, column, live, height, width,
    half, dilation, c,
    C: tl.constexpr, KERNEL: tl.constexpr, STRIDED: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A depthwise convolution's gradient at a tile of inputs, from the outputs that read them.

    Args:
        gradient: of the outputs, dense, `height` x `width`.
        half: 1 if the stride is 2, which it can only be if STRIDED, else 0.
    """
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    channel = c < C
    middle = (begin + (image * height + row) * width + column)[:, None] * C + c[None, :]
    for down in tl.static_range(KERNEL):
        y = row - (down - KERNEL // 2) * dilation
        in_rows = live & (y >= 0)
        if STRIDED:
            in_rows = in_rows & ((y & half) == 0)
            y = y >> half
        in_rows = in_rows & (y < height)
        line = begin + (image * height + y) * width
        for right in tl.static_range(KERNEL):
            z = column - (right - KERNEL // 2) * dilation
            inside = in_rows & (z >= 0)
            if STRIDED:
                inside = inside & ((z & half) == 0)
                z = z >> half
            inside = inside & (z < width)
            mask = inside[:, None] & channel[None, :]
            tap = down * KERNEL + right
            if STRIDED:
                at = (line + z)[:, None] * C + c[None, :]
                value = tl.load(gradient + at, mask=mask, other=0.0).to(tl.float32)
            else:
                away = ((KERNEL // 2 - down) * width + KERNEL // 2 - right) * dilation * C
                value = tl.load(gradient + away + middle, mask=mask, other=0.0).to(tl.float32)
            of_tap = tl.load(weight + tap * C + c, mask=channel, other=0.0)
            total += value * of_tap[None, :]
    return total


@triton.jit
def depthwise_gradient_tile(
    gradient, begin, weight, operation, image, row, column, live, height, width, half, dilation, c,
    C: tl.constexpr, STRIDED: tl.constexpr, BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    """`taps_of_input` with the drawn operation's kernel size."""
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    if kernel_area(operation) == 25:
        total = taps_of_input(
            gradient, begin, weight, image, row, column, live, height,
            width, half, dilation, c, C, 5, STRIDED, BLOCK_P, BLOCK_C,
        )  # fmt: skip
    else:
        total = taps_of_input(
            gradient, begin, weight, image, row, column, live, height,
            width, half, dilation, c, C, 3, STRIDED, BLOCK_P, BLOCK_C,
        )  # fmt: skip
    return total


@triton.jit
def pointwise_weight(
    weight, c, C: tl.constexpr, FIRST_OUT: tl.constexpr, END_OUT: tl.constexpr
):  # fmt: skip
    """The C out x C in matrix with the rows outside [FIRST_OUT, END_OUT) zero."""
    out = (c >= FIRST_OUT) & (c < END_OUT)
    mask = out[:, None] & (c < C)[None, :]
    return tl.load(weight + c[:, None] * C + c[None, :], mask=mask, other=0.0)
