"""The image data sets: where they come from, how they are checked, how they are split.

`open_images` converts a split once to Arrow and memory-maps it from then on. CIFAR comes from the
official Python archives, whose MD5 sums torchvision knows, and is read by an unpickler that can
build arrays and nothing else. The test split has a file of its own that nothing but a final
training opens.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from gdas.data.arrow import Images, content_digest, convert_once, read_images, write_images
from gdas.errors import InputError
from gdas.randomness import generator

Split = Literal["train", "test"]
Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]

DIGITS_TEST = 360
"""The last images of scikit-learn's digits, by other writers than the first, are the test split."""


@dataclass(frozen=True)
class ImageSet:
    """A known data set.

    Attributes:
        classes, size: number of classes; side of an image in pixels.
        counts: images a split.
        identity: what a split's content is, known without opening a file where a published
            checksum says so; it enters the id of every job that reads the split.
        read: (folder, split) to arrays, checked against that identity.
    """

    classes: int
    size: int
    counts: dict[Split, int]
    identity: Callable[[Split], str]
    read: Callable[[Path, Split], Arrays]


def known(name: str) -> ImageSet:
    """Look up a data set by name.

    Raises:
        InputError: unknown name.
    """
    match name:
        case "cifar10":
            counts: dict[Split, int] = {"train": 50_000, "test": 10_000}
            return ImageSet(10, 32, counts, _cifar_identity, _read_cifar10)
        case "digits":
            counts = {"train": 1797 - DIGITS_TEST, "test": DIGITS_TEST}
            return ImageSet(10, 32, counts, _digits_identity, lambda _, split: _digits(split))
    raise InputError(f"data.name={name}: unknown data set; known are cifar10, digits")


def open_images(name: str, split: Split, folder: Path, *, verify: bool = False) -> Images:
    """Memory-map a split, converting it first where that has not been done.

    Args:
        folder: where data sets lie; `folder`/arrow holds the converted files.
        verify: compare the whole content with its checksum.

    Raises:
        InputError: the source is missing and cannot be downloaded, or damaged.
    """
    data = known(name)
    path = folder / "arrow" / f"{name}-{split}.arrow"
    identity = data.identity(split)

    def convert() -> None:
        images, labels = data.read(folder, split)
        write_images(path, images, labels, classes=data.classes, identity=identity)

    convert_once(path, identity, convert)
    return read_images(path, identity=identity, verify=verify)


def split_indices(
    total: int, seed: int, train: int | None, valid: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two halves of the training images, D_T for the weights and D_V for the logits.

    Source: paper section 4.2 (random halves). `train` and `valid` shrink them.

    Raises:
        InputError: more images asked for than there are.
    """
    train = total // 2 if train is None else train
    valid = max(0, total - train) if valid is None else valid
    if train + valid > total:
        raise InputError(
            f"train_images={train} and valid_images={valid}: the training split has only {total}"
        )
    order = torch.randperm(total, generator=generator(seed, "split"))
    return order[:train], order[train : train + valid]


def subset(total: int, seed: int, count: int | None) -> torch.Tensor:
    """Indices of `count` training images (all for None), a random subset for `seed`.

    Raises:
        InputError: more images asked for than there are.
    """
    if count is None:
        return torch.arange(total)
    if count > total:
        raise InputError(f"train_images={count}: the training split has only {total}")
    return torch.randperm(total, generator=generator(seed, "subset"))[:count].sort().values


# CIFAR


def _cifar_files(split: Split) -> list[tuple[str, str]]:
    """(file, MD5) of a split, as torchvision publishes them."""
    from torchvision.datasets import CIFAR10

    files = CIFAR10.train_list if split == "train" else CIFAR10.test_list
    return [(str(name), str(md5)) for name, md5 in files]


def _cifar_identity(split: Split) -> str:
    md5s = "".join(md5 for _, md5 in _cifar_files(split))
    return "cifar10-" + hashlib.sha256(md5s.encode()).hexdigest()[:16]


def _read_cifar10(folder: Path, split: Split) -> Arrays:
    from torchvision.datasets import CIFAR10

    base = folder / CIFAR10.base_folder
    if not base.is_dir():
        _download_cifar10(folder)
    images, labels = [], []
    for name, md5 in _cifar_files(split):
        path = base / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{path}: cannot read ({error.strerror}); delete {base} to download it again"
            ) from None
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != md5:
            raise InputError(
                f"{path}: damaged, MD5 {found}, expected {md5}; "
                f"delete {base} to download it again, or put the official file there"
            )
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
        images.append(np.asarray(batch["data"], np.uint8))
        labels.append(np.asarray(batch["labels"], np.int64))
    return np.concatenate(images).reshape(-1, 3, 32, 32), np.concatenate(labels)


def _download_cifar10(folder: Path) -> None:
    from torchvision.datasets import CIFAR10

    try:
        folder.mkdir(parents=True, exist_ok=True)
        CIFAR10(str(folder), download=True)  # checks the archive's MD5
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"CIFAR-10 is not in {folder} (no {CIFAR10.base_folder}) and could not be downloaded "
            f"({error}); name the folder that holds it with --data"
        ) from None


ARRAY_BUILDERS = (
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads the official CIFAR batches; can build arrays, and call nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAY_BUILDERS:
            raise InputError(f"data file wants to load {module}.{name}: not a CIFAR batch")
        if module.startswith("numpy.core"):
            module = "numpy._core.multiarray"
        return super().find_class(module, name)


# scikit-learn's digits


@cache
def _digits(split: Split) -> Arrays:
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] * (255.0 / 16.0)
    large = torch.nn.functional.interpolate(small, size=32, mode="bilinear", align_corners=False)
    images = large.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous().numpy()
    labels = digits.target.astype(np.int64)
    rows = slice(None, -DIGITS_TEST) if split == "train" else slice(-DIGITS_TEST, None)
    return images[rows], labels[rows]


def _digits_identity(split: Split) -> str:
    return "digits-" + content_digest(*_digits(split))[:16]
