"""CIFAR-10 and CIFAR-100: their source, and how their files are checked and read.

They come from the official Python archives, whose MD5 sums torchvision has. They are read by an
unpickler that can build arrays and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gdas.data.arrow import Arrays
from gdas.data.settings import Checksum
from gdas.data.source import Split
from gdas.errors import InputError


class Cifar(NamedTuple):
    """What differs between CIFAR-10 and CIFAR-100."""

    name: str
    title: str  # without the hyphen, the name of torchvision's class
    classes: int
    labels: str  # the key of the labels in a batch


CIFAR = {
    "cifar10": Cifar("cifar10", "CIFAR-10", 10, "labels"),
    "cifar100": Cifar("cifar100", "CIFAR-100", 100, "fine_labels"),
}


def _torchvision_class(name: str) -> Any:
    from torchvision import datasets

    return getattr(datasets, CIFAR[name].title.replace("-", ""))


def cifar_files(name: str, split: Split) -> list[tuple[str, str]]:
    """(file, MD5) of a split, as torchvision publishes them."""
    of = _torchvision_class(name)
    files = of.train_list if split == "train" else of.test_list
    return [(str(file), str(md5)) for file, md5 in files]


def cifar_identity(name: str, split: Split, folder: Path, checksum: Checksum) -> str:
    """A checksum from the published ones; for unpublished files, if allowed, from their content."""
    files = cifar_files(name, split)
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
    """The files that a split is read from, with their published MD5; none for built-in data."""
    if name not in CIFAR:
        return []
    base = folder / _torchvision_class(name).base_folder
    return [(base / file, md5) for file, md5 in cifar_files(name, split)]


def read_cifar(name: str, split: Split, folder: Path, checksum: Checksum) -> Arrays:
    """Read a split, which is downloaded if it is missing."""
    base = folder / _torchvision_class(name).base_folder
    if not base.is_dir():
        _download_cifar(name, folder)
    images, labels = [], []
    for file, md5 in cifar_files(name, split):
        path = base / file
        content = _content(path)
        if checksum == "published" and _md5(content) != md5:
            raise InputError(
                f"{path}: damaged or not the official file (whose MD5 is {md5}); delete {base} to "
                "download it again, put the official file there, or set data.checksum=any to read "
                "it as it is"
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
        of(str(folder), download=True)  # this checks the archive's MD5
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{title} is not in {folder} (no {of.base_folder}) and could not be downloaded "
            f"({error}); name the folder that holds it with --data"
        ) from None


def _read_batch(path: Path, content: bytes, cifar: Cifar) -> Arrays:
    """The images and labels of one file; its other content is ignored.

    Raises:
        InputError: it is another kind of file; the error names it.
    """
    fix = f"delete {path.parent} to download it again, or put the official file there"
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
        images, labels = batch["data"], np.asarray(batch[cifar.labels])
    except Exception as error:  # a damaged pickle can raise anything
        what = error if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: not a {cifar.title} batch ({what}); {fix}") from None
    if type(images) is not np.ndarray or images.dtype != np.uint8:
        raise InputError(
            f"{path}: not a {cifar.title} batch (its data are not an array of bytes); {fix}"
        )
    if images.ndim != 2 or images.shape[1] != 3072 or len(images) == 0:
        raise InputError(
            f"{path}: not a {cifar.title} batch (its data are {images.shape}, must be N x 3072); "
            f"{fix}"
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise InputError(
            f"{path}: not a {cifar.title} batch ({cifar.labels} must be {len(images)} integers); "
            f"{fix}"
        )
    if labels.min() < 0 or labels.max() >= cifar.classes:
        raise InputError(
            f"{path}: {cifar.labels} from {labels.min()} to {labels.max()}, must be from 0 to "
            f"{cifar.classes - 1}; {fix}"
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
    """Reads the official CIFAR batches; it can build arrays, and call nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAY_BUILDERS:
            raise InputError(f"it wants to load {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)
