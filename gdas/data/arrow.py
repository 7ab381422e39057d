"""Images as one memory-mapped Arrow file a split, so that processes on a node share one copy.

The file is an Arrow IPC file of two columns, `image` (channels x height x width bytes) and `label`,
in a single batch; its schema metadata hold the shape, the class count, the source's identity and
the SHA-256 of the two columns.

Shapes: N images, C channels, H and W height and width.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from gdas.errors import InputError

FORMAT = b"gdas-images/1"


@dataclass(frozen=True)
class Images:
    """A split of a data set.

    Attributes:
        images_NCHW: uint8; a view of the memory-mapped file where it was read from one.
        labels_N: int64.
        classes: number of classes.
    """

    images_NCHW: Tensor
    labels_N: Tensor
    classes: int

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def size(self) -> int:
        return int(self.images_NCHW.shape[-1])

    def to(self, device: torch.device) -> Images:
        """The same on `device`; nothing is copied where it is there already."""
        return Images(self.images_NCHW.to(device), self.labels_N.to(device), self.classes)


def content_digest(images_NCHW: NDArray[np.uint8], labels_N: NDArray[np.int64]) -> str:
    """SHA-256 of the images' and labels' bytes."""
    digest = hashlib.sha256(np.ascontiguousarray(images_NCHW).data)
    digest.update(np.ascontiguousarray(labels_N).data)
    return digest.hexdigest()


def write_images(
    path: Path,
    images_NCHW: NDArray[np.uint8],
    labels_N: NDArray[np.int64],
    *,
    classes: int,
    identity: str,
) -> None:
    """Write beside, then rename: another process may be doing the same."""
    n, *shape = images_NCHW.shape
    images_NCHW = np.ascontiguousarray(images_NCHW)
    image = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(int(np.prod(shape))), n, [None, pa.py_buffer(images_NCHW)]
    )
    metadata = {
        b"format": FORMAT,
        b"shape": ",".join(map(str, shape)).encode(),
        b"classes": str(classes).encode(),
        b"identity": identity.encode(),
        b"sha256": content_digest(images_NCHW, labels_N).encode(),
    }
    table = pa.table({"image": image, "label": pa.array(labels_N)}).replace_schema_metadata(
        metadata
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.partial")
    try:
        with pa.OSFile(str(beside), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_images(path: Path, *, identity: str, verify: bool) -> Images:
    """Memory-map a split.

    Args:
        identity: what the file's source must be.
        verify: also compare the content with its SHA-256 (reads the whole file).

    Raises:
        InputError: not such a file, of another source, or damaged.
    """
    fix = f"delete {path} and run again to convert it anew"
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        metadata = table.schema.metadata or {}
        if metadata.get(b"format") != FORMAT:
            raise InputError(f"{path}: not an image file of this project; {fix}")
        shape = tuple(int(s) for s in metadata[b"shape"].split(b","))
        image, label = table["image"].chunk(0), table["label"].chunk(0)
        n, width = len(table), int(np.prod(shape))
        if image.type.byte_width != width or n == 0 or table["image"].num_chunks != 1:
            raise InputError(f"{path}: its columns do not fit its shape {shape}; {fix}")
        images = np.frombuffer(image.buffers()[1], np.uint8, n * width).reshape(n, *shape)
        labels = np.frombuffer(label.buffers()[1], np.int64, n)
        found, classes = metadata[b"identity"].decode(), int(metadata[b"classes"])
        expected_sha = metadata[b"sha256"].decode()
    except (pa.ArrowException, OSError, KeyError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged ({error}); {fix}") from None
    if found != identity:
        raise InputError(f"{path}: made from {found}, expected {identity}; {fix}")
    if verify and (sha := content_digest(images, labels)) != expected_sha:
        raise InputError(f"{path}: damaged, SHA-256 {sha}, expected {expected_sha}; {fix}")
    with warnings.catch_warnings():  # the mapping is read-only, and nothing here writes to it
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return Images(torch.from_numpy(images), torch.from_numpy(labels), classes)
