"""People's own arrays: what a training would misread is refused, with the line that mends it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gdas.cnn.genotype import PUBLISHED
from gdas.cnn.train import train_image
from gdas.data.arrow import Images
from gdas.errors import InputError
from tests.gdas.tiny import CPU, train_config

PIXELS = torch.arange(10 * 3 * 8 * 8).reshape(10, 3, 8, 8).to(torch.uint8)
LABELS = torch.arange(10) % 5
MEAN = torch.tensor([0.5, 0.4, 0.3])[:, None, None]

# What is given, what the refusal says, and how its advice gives PIXELS or LABELS back.
PICTURES: dict[str, tuple[Any, str, Any]] = {
    "NumPy": (PIXELS.numpy(), "images are a numpy.ndarray", torch.from_numpy),
    "a list": (PIXELS.tolist(), "images are a list", lambda x: torch.tensor(x).to(torch.uint8)),
    "float, 0 to 1": (
        PIXELS / 255,
        "images are float32 from 0 to 1",
        lambda images: (images * 255).round().to(torch.uint8),
    ),
    "double, 0 to 255": (
        PIXELS.double(),
        "images are float64 from 0 to 255",
        lambda images: images.round().to(torch.uint8),
    ),
    "normalised": ((PIXELS / 255 - MEAN) / 0.2, "as they were before they were normalised", None),
    "not a number": (PIXELS * float("nan"), "finite pixels", None),
    "int64": (
        PIXELS.long(),
        "images are int64 from 0 to 255",
        lambda images: images.to(torch.uint8),
    ),
    "from -128": (
        PIXELS.int() - 128,
        r"images are int32 from -128 to 127: .*\(images \+ 128\)\.to\(torch\.uint8\)",
        lambda images: (images + 128).to(torch.uint8),
    ),
    "16 bits": (
        PIXELS.int() * 257,
        r"int32 from 0 to 65535: .*\(images / 65535 \* 255\)\.round\(\)",
        lambda images: (images / 65535 * 255).round().to(torch.uint8),
    ),
    "16 bits, float": (PIXELS * 257.0, r"float32 from 0 to 65535: .*images / 65535", None),
    "complex": (PIXELS.to(torch.complex64), "images are complex64", None),
    "sparse": (PIXELS.to_sparse(), r"images\.to_dense\(\)", lambda images: images.to_dense()),
    "a list of tensors": (
        list(PIXELS),
        r"torch\.stack\(list\(images\)\)",
        lambda images: torch.stack(list(images)),
    ),
    "bool": (PIXELS > 99, r"images are bool.*\(images \* 255\).to\(torch.uint8\)", None),
    "cut off at one": ((PIXELS / 255).to(torch.uint8), "images are 0 and 1 alone", None),
    "channels last": (
        PIXELS.permute(0, 2, 3, 1),
        r"images.permute\(0, 3, 1, 2\): channels",
        lambda images: images.permute(0, 3, 1, 2),
    ),
    "channels last with alpha": (
        torch.cat([PIXELS.permute(0, 2, 3, 1), PIXELS.permute(0, 2, 3, 1)[..., :1]], -1),
        r"images.permute\(0, 3, 1, 2\)\[:, :3\]",
        lambda images: images.permute(0, 3, 1, 2)[:, :3],
    ),
    "one channel": (PIXELS[:, :1], r"images.expand\(-1, 3, -1, -1\)", None),
    "no channel": (PIXELS[:, 0], r"images\[:, None\].expand\(-1, 3, -1, -1\)", None),
    "two channels": (PIXELS[:, :2], "three channels", None),
    "alpha": (torch.cat([PIXELS, PIXELS[:, :1]], 1), r"images\[:, :3\]", lambda x: x[:, :3]),
    "a high rectangle": (PIXELS[..., :5], r"must be squares.*pad\(images, \(1, 2, 0, 0\)\)", None),
    "a wide rectangle": (PIXELS[:, :, :6], r"must be squares.*pad\(images, \(0, 0, 1, 1\)\)", None),
    "rows of numbers": (PIXELS.flatten(1), "N x 3 x H x W", None),
    "none": (PIXELS[:0], "must be one or more", None),
}


@pytest.mark.parametrize("case", PICTURES)
def test_pixels_of_another_kind_are_refused_and_the_advice_mends_them(case: str) -> None:
    given_images, says, mend = PICTURES[case]
    with pytest.raises(InputError, match=says) as caught:
        Images(given_images, LABELS[: len(given_images)], 5)
    assert "\n" not in str(caught.value)
    if mend is not None:
        assert torch.equal(Images(mend(given_images), LABELS, 5).images_NCHW, PIXELS)


def test_the_padding_that_is_advised_makes_squares() -> None:
    assert torch.nn.functional.pad(PIXELS[..., :5], (1, 2, 0, 0)).shape == PIXELS.shape
    assert torch.nn.functional.pad(PIXELS[:, :, :6], (0, 0, 1, 1)).shape == PIXELS.shape


ANSWERS: dict[str, tuple[Any, int, str, Any]] = {
    "NumPy": (LABELS.numpy(), 5, "labels are a numpy.ndarray", torch.as_tensor),
    "a list": (LABELS.tolist(), 5, "labels are a list", torch.as_tensor),
    "one-hot": (
        torch.nn.functional.one_hot(LABELS, 5),
        5,
        r"labels.argmax\(1\) if they are one-hot",
        lambda labels: labels.argmax(1),
    ),
    "one-hot, float": (torch.eye(5)[LABELS], 5, r"labels.argmax\(1\)", lambda x: x.argmax(1)),
    "a column": (LABELS[:, None], 5, r"labels.flatten\(\)", lambda labels: labels.flatten()),
    "fewer": (LABELS[:7], 5, "7 labels for 10 images", None),
    "more": (LABELS.repeat(2), 5, "20 labels for 10 images", None),
    "from 1": (LABELS + 1, 5, "labels from 1 to 5.*labels - 1", lambda labels: labels - 1),
    "beyond": (LABELS, 4, "labels from 0 to 4: must be from 0 to 3; give classes=5", None),
    "negative": (LABELS - 1, 5, r"labels from -1 to 3.*labels >= 0", None),
    "float": (LABELS.float(), 5, r"labels are float32.*labels.long\(\)", lambda x: x.long()),
    "not whole": (LABELS + 0.5, 5, "not all whole", None),
    "text": (
        ["abcde"[label] for label in LABELS.tolist()],
        5,
        r"torch\.tensor\(\[sorted\(set\(labels\)\)\.index\(label\) for label in labels\]\)",
        lambda labels: torch.tensor([sorted(set(labels)).index(label) for label in labels]),
    ),
    "int32": (LABELS.int(), 5, r"labels are int32.*labels.long\(\)", lambda x: x.long()),
    "uint8": (LABELS.to(torch.uint8), 5, r"labels are uint8", lambda x: x.long()),
    "classes as a float": (LABELS, 5.0, r"classes=5.0", None),  # type: ignore[dict-item]
    "classes as truth": (LABELS, True, r"classes=True", None),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_labels_of_another_kind_are_refused_and_the_advice_mends_them(case: str) -> None:
    labels, classes, says, mend = ANSWERS[case]
    with pytest.raises(InputError, match=says) as caught:
        Images(PIXELS, labels, classes)
    assert "\n" not in str(caught.value)
    if mend is not None:
        assert torch.equal(Images(PIXELS, mend(labels), 5).labels_N, LABELS)


def test_right_arrays_train_and_are_the_same_object_on_their_device() -> None:
    images = Images(PIXELS, LABELS, 5)
    assert images.to(torch.device("cpu")) is images
    config = dataclasses.replace(train_config(batch_size=5, epochs=1), auxiliary_weight=0.0)
    rows = torch.arange(10)
    (segment,) = train_image(
        config,
        PUBLISHED["GDAS_F1"],
        images,
        rows,
        images,
        rows,
        evaluated_on="valid",
        device=CPU,
    )
    assert 0 <= segment.metrics["valid/top1"] <= 100


KINDS = [torch.uint8, torch.int8, torch.int64, torch.float16, torch.float32, torch.bool]
SHAPES = st.lists(st.integers(0, 4), max_size=5)


@settings(max_examples=60, deadline=None)
@given(SHAPES, SHAPES, st.sampled_from(KINDS), st.sampled_from(KINDS), st.integers(-1, 3))
def test_whatever_the_arrays_are_one_line_says_so_or_they_are_what_trainings_want(
    shape: list[int], of_labels: list[int], kind: torch.dtype, label_kind: torch.dtype, classes: int
) -> None:
    rng = np.random.default_rng(len(shape))
    pixels: Tensor = torch.from_numpy(rng.integers(0, 256, shape)).to(kind)
    labels: Tensor = torch.from_numpy(np.asarray(rng.integers(0, 4, of_labels))).to(label_kind)
    try:
        images = Images(pixels, labels, classes)
    except InputError as problem:
        assert "\n" not in str(problem) and len(str(problem)) < 300
        return
    n, channels, height, width = images.images_NCHW.shape
    assert n >= 1 and channels == 3 and height == width and labels.shape == (n,)
    assert labels.min() >= 0 and labels.max() < classes
