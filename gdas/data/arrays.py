"""Check arrays of images and labels once, when they are put together.

Arrays of another form would run too, and the result would mean nothing: float pixels from 0 to 1
are divided by 255 once more; with one-hot labels every class of an image counts as a hit. So every
form that loaders give is refused by name, with the line of code that corrects it. Nothing is
converted silently, because only the owner knows whether a float array has pixels or normalised
values.

Shapes: N images, C channels, H and W height and width, K classes.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gdas.errors import InputError

SOME = 64
"""How many images are checked first, to avoid a pass over all of them."""


def check_images(images_NCHW: object, labels_N: object, classes: object) -> None:
    """Refuse images and labels that trainings would misread.

    Raises:
        InputError: images are not uint8 N x 3 x H x W with H = W, labels are not N whole numbers
            (int64) from 0 to `classes` - 1, or pixels are only 0 and 1; the error says how to
            correct it.
    """
    images = _tensor(images_NCHW, "images", "torch.from_numpy(images)")
    labels = _tensor(labels_N, "labels", "torch.as_tensor(labels)")
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 1:
        raise InputError(f"classes={classes!r}: must be an int of 1 or more, such as classes=10")
    _check_pixels(images)
    _check_shape(images)
    if not images.is_meta and images[:SOME].max() <= 1 and images.max() <= 1:
        raise InputError(
            "images are 0 and 1 alone: pixels must be uint8 from 0 to 255, or networks see black; "
            "use (images * 255), or multiply before a float array from 0 to 1 is made uint8"
        )
    _check_labels(labels, len(images), classes)
    if images.device != labels.device:
        raise InputError(
            f"images are on {images.device} and labels on {labels.device}: both must be on one "
            "device; move labels with labels.to(images.device)"
        )


def _tensor(value: object, what: str, fix: str) -> Tensor:
    if isinstance(value, list) and value and isinstance(value[0], str):
        fix = "torch.tensor([sorted(set(labels)).index(label) for label in labels])"
    elif what == "images":
        fix = stacked(value) or fix
    if isinstance(value, Tensor) and value.layout != torch.strided:
        raise InputError(f"{what} are sparse: must be dense; use {what}.to_dense()")
    if not isinstance(value, Tensor):
        kind = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
        raise InputError(f"{what} are a {kind}: must be a torch.Tensor; use {fix}")
    return value


def stacked(images: object) -> str | None:
    """The line that makes one tensor of a list or a data set of images; None: of something else.

    A list's images may stand alone or each with its label.
    """
    if isinstance(images, DataLoader):
        return "torch.cat([batch for batch, _ in images])"
    first = _first(images)
    pairs = isinstance(first, tuple | list) and len(first) == 2
    each, one = ("image, _", first[0]) if pairs else ("image", first)
    loop = f"for {each} in images])"
    if isinstance(one, Image):
        to_tensor = "pil_to_tensor of torchvision.transforms.functional"
        return f'torch.stack([pil_to_tensor(image.convert("RGB")) {loop}, with {to_tensor}'
    if isinstance(one, Tensor) and one.ndim < 4:
        return f"torch.stack([image {loop}" if pairs else "torch.stack(list(images))"
    if isinstance(one, np.ndarray) and one.ndim < 4:
        return f"torch.stack([torch.from_numpy(image) {loop}"
    return None


def _first(images: object) -> Any:
    """The first of a list or of a data set; None of anything else."""
    if isinstance(images, list | tuple):
        return images[0] if images else None
    if isinstance(images, Dataset):
        with contextlib.suppress(Exception):  # what reads it is the owner's
            return images[0]
    return None


def _check_pixels(images: Tensor) -> None:
    if images.dtype != torch.uint8:
        raise InputError(
            f"images are {_name(images.dtype)}{_range(images)}: pixels must be uint8 from 0 to "
            f"255; use {_to_uint8(images)}"
        )
    if images.numel() == 0:
        raise InputError(f"images of shape {tuple(images.shape)}: must be one or more, not empty")


def _to_uint8(images: Tensor) -> str:
    if images.dtype == torch.bool:
        return "(images * 255).to(torch.uint8)"
    if images.is_meta or images.is_complex() or images.numel() == 0:
        return "pixels as they are stored in the picture's file"
    if not bool(images.isfinite().all()):
        return "finite pixels, as they are stored in the picture's file"
    if images.max() > 255:
        return "pixels of 8 bits; of 16 bits, (images / 65535 * 255).round().to(torch.uint8)"
    if not images.is_floating_point():
        if images.min() < 0:
            return "(images + 128).to(torch.uint8) if they are of -128 to 127"
        return "images.to(torch.uint8)"
    if images.min() < 0:
        return (
            "the pixels as they were before they were normalised: "
            "((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)"
        )
    if images.max() <= 1:
        return "(images * 255).round().to(torch.uint8)"
    return "images.round().to(torch.uint8)"


def _range(values: Tensor) -> str:
    if values.numel() == 0 or values.is_complex() or values.is_meta:
        return ""
    return f" from {values.min().item():.6g} to {values.max().item():.6g}"


def _check_shape(images: Tensor) -> None:
    shape = tuple(images.shape)
    wanted = f"images of shape {shape}: must be N x 3 x H x W; use "
    if images.ndim == 3:
        # N images without channels, or one image without the first dimension.
        raise InputError(
            wanted + "images[:, None].expand(-1, 3, -1, -1) for N gray images, images[None] for "
            "one image of 3 channels"
        )
    if images.ndim != 4:
        raise InputError(wanted + "a tensor of 4 dimensions")
    if shape[1] != 3 and shape[3] in (1, 3, 4):
        then = {1: ".expand(-1, 3, -1, -1)", 3: "", 4: "[:, :3]"}[shape[3]]
        raise InputError(f"{wanted}images.permute(0, 3, 1, 2){then}: channels come second")
    if shape[1] == 1:
        raise InputError(wanted + "images.expand(-1, 3, -1, -1): gray in three equal channels")
    if shape[1] == 4:
        raise InputError(wanted + "images[:, :3], without the channel of transparency")
    if shape[1] != 3:
        raise InputError(wanted + "three channels")
    if shape[2] != shape[3]:
        raise InputError(
            f"images of shape {shape}: must be squares, because crops and cutout are; resize or "
            f"pad them, such as torch.nn.functional.pad(images, ({_padding(shape)}))"
        )


def _padding(shape: tuple[int, ...]) -> str:
    """Zeros on both sides of the shorter side, as arguments of torch.nn.functional.pad."""
    lack = abs(shape[2] - shape[3])
    sides = (lack // 2, lack - lack // 2)
    return ", ".join(map(str, (0, 0, *sides) if shape[2] < shape[3] else (*sides, 0, 0)))


def _check_labels(labels: Tensor, images: int, classes: int) -> None:
    shape = tuple(labels.shape)
    if labels.ndim == 2 and shape[1] == 1 and shape[0] == images:
        raise InputError(f"labels of shape {shape}: must be N numbers; use labels.flatten()")
    if labels.ndim == 2 and shape[0] == images:
        raise InputError(
            f"labels of shape {shape}: must be N numbers, the class of each image; use "
            "labels.argmax(1) if they are one-hot"
        )
    if labels.ndim != 1:
        raise InputError(f"labels of shape {shape}: must be N numbers, the class of each image")
    if len(labels) != images:
        raise InputError(
            f"{len(labels)} labels for {images} images: must be one label an image, in the "
            "images' order"
        )
    if labels.is_floating_point() and not labels.is_meta and bool((labels % 1 != 0).any()):
        raise InputError(
            f"labels are {_name(labels.dtype)}{_range(labels)}, not all whole: must be the class "
            f"of each image, int64 from 0 to {classes - 1}, such as labels.round().long()"
        )
    if labels.dtype != torch.int64:
        raise InputError(
            f"labels are {_name(labels.dtype)}{_range(labels)}: must be int64 from 0 to "
            f"{classes - 1}; use labels.long()"
        )
    if labels.is_meta:  # shapes without values, as a plan uses them
        return
    low, high = int(labels.min()), int(labels.max())
    must = f"must be from 0 to {classes - 1}"
    if (low, high) == (1, classes):
        raise InputError(f"labels from 1 to {high}: {must}; use labels - 1")
    if low < 0:
        raise InputError(
            f"labels from {low} to {high}: {must}; leave images without "
            "a class out, such as images[labels >= 0] and labels[labels >= 0]"
        )
    if high >= classes:
        raise InputError(
            f"labels from {low} to {high}: {must}; give classes={high + 1}, "
            "or number the labels anew: labels.unique(return_inverse=True)[1]"
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
