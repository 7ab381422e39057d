"""The image data sets: where they come from, how they are checked, how they are split.

`open_images` converts a split once to Arrow and memory-maps it from then on. CIFAR comes from the
official Python archives, whose MD5 sums torchvision knows, and is read by an unpickler that can
build arrays and nothing else. The test split has a file of its own that nothing but a final
training opens. Photos (PhotoData) are converted by hand, once: see gdas.data.shards.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray

from gdas.data.arrow import Images, content_digest, convert_once, read_images, write_images
from gdas.data.settings import IMAGE_DATA, AnyImageData, ImageData, PhotoData
from gdas.data.shard_index import read_index
from gdas.data.source import ImageSource, Split
from gdas.errors import InputError
from gdas.randomness import generator

Checksum = Literal["published", "any"]
Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]

DIGIT_PHOTOS = "digit-photos"
"""The name of the photos that need no download: see gdas.data.digit_photos."""

DIGITS_TEST = 360
"""The last images of scikit-learn's digits, by other writers than the first, are the test split."""


@dataclass(frozen=True)
class ImageSet:
    """A known data set of arrays.

    Attributes:
        classes, size: number of classes; side of an image in pixels.
        counts: images a split.
        identity: what a split's content is; a published checksum says so without opening a file.
        read: to arrays, checked.
    """

    classes: int
    size: int
    counts: dict[Split, int]
    identity: Callable[[Split, Path, Checksum], str]
    read: Callable[[Split, Path, Checksum], Arrays]


def known(name: str) -> ImageSet:
    """Look up a data set by name.

    Raises:
        InputError: unknown name.
    """
    counts: dict[Split, int]
    if name in CIFAR:
        counts = {"train": 50_000, "test": 10_000}
        identity, read = partial(_cifar_identity, name), partial(_read_cifar, name)
        return ImageSet(CIFAR[name].classes, 32, counts, identity, read)
    if name == "digits":
        counts = {"train": 1797 - DIGITS_TEST, "test": DIGITS_TEST}
        return ImageSet(10, 32, counts, lambda split, *_: _digits_identity(split), _read_digits)
    raise InputError(f"data.name={name}: unknown data set; known are {', '.join(IMAGE_DATA)}")


def identity(data: AnyImageData, split: Split, folder: Path) -> str:
    """What a split's content is; it enters the id of every job that reads the split.

    Raises:
        InputError: it depends on files that are not there.
    """
    if data.name == DIGIT_PHOTOS:  # known before they are made
        images, _ = digits(split)
        return f"photos-{len(images)}-of-{_digits_identity(split)}"
    if isinstance(data, PhotoData):
        return read_index(folder / data.name).identity(split)
    return known(data.name).identity(split, folder, data.checksum)


@overload
def open_images(
    data: str | ImageData, split: Split, folder: Path, *, verify: bool = False
) -> Images: ...
@overload
def open_images(
    data: AnyImageData, split: Split, folder: Path, *, verify: bool = False
) -> ImageSource: ...
def open_images(
    data: str | AnyImageData, split: Split, folder: Path, *, verify: bool = False
) -> ImageSource:
    """Open a split: memory-map it, converting it first where that has not been done; or photos.

    Args:
        data: the settings, or the name of a known data set of arrays.
        folder: where data sets lie; `folder`/arrow holds the converted files.
        verify: compare the whole content with its checksum.

    Raises:
        InputError: the source is missing and cannot be downloaded, or damaged.
    """
    if isinstance(data, PhotoData):
        # Here, because torchvision's transforms take a second to import.
        from gdas.data.photos import open_photos

        return open_photos(data, split, folder, verify=verify)
    name = data if isinstance(data, str) else data.name
    checksum: Checksum = "published" if isinstance(data, str) else data.checksum
    source = known(name)
    path = folder / "arrow" / f"{name}-{split}.arrow"
    identity = source.identity(split, folder, checksum)

    def convert() -> None:
        images, labels = source.read(split, folder, checksum)
        write_images(path, images, labels, classes=source.classes, identity=identity)

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


class Cifar(NamedTuple):
    """What differs between CIFAR-10 and CIFAR-100."""

    name: str
    title: str  # also, without the hyphen, torchvision's class
    classes: int
    labels: str  # key in a batch


CIFAR = {
    "cifar10": Cifar("cifar10", "CIFAR-10", 10, "labels"),
    "cifar100": Cifar("cifar100", "CIFAR-100", 100, "fine_labels"),
}


def _torchvision_class(name: str) -> Any:
    from torchvision import datasets

    return getattr(datasets, CIFAR[name].title.replace("-", ""))


def _cifar_files(name: str, split: Split) -> list[tuple[str, str]]:
    """(file, MD5) of a split, as torchvision publishes them."""
    of = _torchvision_class(name)
    files = of.train_list if split == "train" else of.test_list
    return [(str(file), str(md5)) for file, md5 in files]


def _cifar_identity(name: str, split: Split, folder: Path, checksum: Checksum) -> str:
    """By the published checksums; other files that are there, where wanted, by their content."""
    files = _cifar_files(name, split)
    published = hashlib.sha256("".join(md5 for _, md5 in files).encode()).hexdigest()[:16]
    base = folder / _torchvision_class(name).base_folder
    if checksum == "any" and base.is_dir():
        contents = [_content(base / file) for file, _ in files]
        if [_md5(content) for content in contents] != [md5 for _, md5 in files]:
            digest = hashlib.sha256()
            for content in contents:
                digest.update(hashlib.sha256(content).digest())
            return f"{name}-unpublished-{digest.hexdigest()[:16]}"
    return f"{name}-{published}"


def source_files(name: str, split: Split, folder: Path) -> list[tuple[Path, str]]:
    """The files that a split is read from, with their published MD5; none where it is built in."""
    if name not in CIFAR:
        return []
    base = folder / _torchvision_class(name).base_folder
    return [(base / file, md5) for file, md5 in _cifar_files(name, split)]


def _read_cifar(name: str, split: Split, folder: Path, checksum: Checksum) -> Arrays:
    base = folder / _torchvision_class(name).base_folder
    if not base.is_dir():
        _download_cifar(name, folder)
    images, labels = [], []
    for file, md5 in _cifar_files(name, split):
        path = base / file
        content = _content(path)
        if checksum == "published" and (found := _md5(content)) != md5:
            raise InputError(
                f"{path}: damaged or not the official file, MD5 {found}, expected {md5}; delete "
                f"{base} to download it again, put the official file there, or set "
                "data.checksum=any to read it as it is"
            )
        batch_images, batch_labels = _read_batch(path, content, CIFAR[name])
        images.append(batch_images)
        labels.append(batch_labels)
    return np.concatenate(images), np.concatenate(labels)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot read ({error.strerror}); delete {path.parent} to download it again"
        ) from None


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _download_cifar(name: str, folder: Path) -> None:
    of, title = _torchvision_class(name), CIFAR[name].title
    try:
        folder.mkdir(parents=True, exist_ok=True)
        of(str(folder), download=True)  # checks the archive's MD5
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{title} is not in {folder} (no {of.base_folder}) and could not be downloaded "
            f"({error}); name the folder that holds it with --data"
        ) from None


def _read_batch(path: Path, content: bytes, cifar: Cifar) -> Arrays:
    """The images and labels of one file, whatever else it holds left aside.

    Raises:
        InputError: it is no such file; names it.
    """
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
        images, labels = batch["data"], np.asarray(batch[cifar.labels])
    except Exception as error:  # a damaged pickle can raise anything
        what = error if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: not a {cifar.title} batch ({what})") from None
    if type(images) is not np.ndarray or images.dtype != np.uint8:
        raise InputError(f"{path}: not a {cifar.title} batch (its data are not an array of bytes)")
    if images.ndim != 2 or images.shape[1] != 3072 or len(images) == 0:
        raise InputError(
            f"{path}: not a {cifar.title} batch (its data are {images.shape}, expected N x 3072)"
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise InputError(
            f"{path}: not a {cifar.title} batch ({cifar.labels} must be {len(images)} integers)"
        )
    if labels.min() < 0 or labels.max() >= cifar.classes:
        raise InputError(
            f"{path}: {cifar.labels} from {labels.min()} to {labels.max()}, "
            f"expected 0 to {cifar.classes - 1}"
        )
    return images.reshape(-1, 3, 32, 32), labels.astype(np.int64)


ARRAY_BUILDERS = (
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads the official CIFAR batches; can build arrays, and call nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAY_BUILDERS:
            raise InputError(f"it wants to load {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


# scikit-learn's digits


@cache
def digits(split: Split) -> Arrays:
    """The handwritten digits at 32 x 32: images_NCHW, three equal channels, and labels_N."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    small = torch.from_numpy(loaded.images).float()[:, None] * (255.0 / 16.0)
    large = torch.nn.functional.interpolate(small, size=32, mode="bilinear", align_corners=False)
    images = large.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous().numpy()
    labels = loaded.target.astype(np.int64)
    rows = slice(None, -DIGITS_TEST) if split == "train" else slice(-DIGITS_TEST, None)
    return images[rows], labels[rows]


def _read_digits(split: Split, folder: Path, checksum: Checksum) -> Arrays:
    return digits(split)


def _digits_identity(split: Split) -> str:
    return "digits-" + content_digest(*digits(split))[:16]
