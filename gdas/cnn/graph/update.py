"""The kernels around the cells: augmentation of a batch, and SGD on all weights at once.

Names: B images of a batch, C image channels, H and W height and width.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["H", "W", "padding", "cutout"])
def augment_batch(
    out, images, rows, moves, scale, shift, H, W, padding, cutout,
    C: tl.constexpr, FLIP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Crop, flip, normalise and cut out, as gdas.data.augment does, from images on the card.

    Args:
        out: B x H x W x C float32.
        images: all images, N x C x H x W uint8.
        rows: the batch's B numbers of images.
        moves: B x 5, see gdas.data.augment.Moves.
        scale, shift: pixels become pixel * scale - shift, by channel.
    """
    image = tl.program_id(1)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = pixel < H * W
    row = pixel // W
    column = pixel % W
    move = moves + image * 5
    y = row + (tl.load(move) - padding).to(tl.int32)
    x = column + (tl.load(move + 1) - padding).to(tl.int32)
    if FLIP:
        # Flip first, then crop: a flipped image read at column x is the original at W - 1 - x.
        x = tl.where(tl.load(move + 2) == 1, W - 1 - x, x)
    inside = live & (y >= 0) & (y < H) & (x >= 0) & (x < W)
    up = row - tl.load(move + 3).to(tl.int32) + cutout // 2
    left = column - tl.load(move + 4).to(tl.int32) + cutout // 2
    half = cutout // 2 * 2
    kept = (up < 0) | (up >= half) | (left < 0) | (left >= half)
    source = images + tl.load(rows + image) * (C * H * W)
    for channel in tl.static_range(C):
        value = tl.load(source + (channel * H + y) * W + x, mask=inside, other=0).to(tl.float32)
        value = value * tl.load(scale + channel) - tl.load(shift + channel)
        value = tl.where(kept, value, 0.0)
        tl.store(out + (image * H * W + pixel) * C + channel, value, mask=live)


@triton.jit(do_not_specialize=["LENGTH"])
def sgd(
    weights, gradients, momenta, moved, owners, scale, lr, decay, momentum, LENGTH,
    NESTEROV: tl.constexpr, UNIT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """torch.optim.SGD on one buffer of all weights, leaving out what `moved` does.

    Args:
        moved: for every operation of every edge whether it takes part; entry 0 is True and stands
            for all that always does.
        owners: which entry of `moved` every UNIT of numbers belongs to.
        scale: one number, of gradient clipping.
        lr: one number.
    """
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < LENGTH
    owner = tl.load(owners + at // UNIT, mask=inside, other=0)
    mask = inside & (tl.load(moved + owner, mask=inside, other=0) != 0)
    weight = tl.load(weights + at, mask=mask, other=0.0)
    gradient = tl.load(gradients + at, mask=mask, other=0.0) * tl.load(scale) + decay * weight
    kept = tl.load(momenta + at, mask=mask, other=0.0) * momentum + gradient
    tl.store(momenta + at, kept, mask=mask)
    if NESTEROV:
        kept = gradient + momentum * kept
    tl.store(weights + at, weight - tl.load(lr) * kept, mask=mask)
