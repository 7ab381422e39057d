"""Data sets as memory-mapped Arrow files, one per split, which processes on a node share.

A file is an Arrow IPC file of plain columns in a single batch. Its schema metadata have the format,
the source's identity, the SHA-256 of the columns' bytes, and what else the format needs. Images
have two columns, `image` (channels x height x width bytes) and `label`.

Shapes: N images, C channels, H and W height and width.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from gdas.data.arrays import check_images
from gdas.data.source import Batch, Wanted
from gdas.errors import InputError, one_line
from gdas.randomness import generator

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""images_NCHW and labels_N."""

IMAGES = "gdas-images/1"
UNREADABLE = (
    *(pa.ArrowException, OSError, KeyError, ValueError, IndexError, TypeError, OverflowError),
    *(MemoryError, NotImplementedError, AttributeError),
)
"""What Arrow raises if a file is damaged or is not an Arrow file."""


@dataclass(frozen=True)
class Split:
    """A file that was read and found valid.

    Attributes:
        columns: views of the mapped file by column name; one-dimensional, images as bytes.
        rows: the number of rows.
        about: the metadata.
    """

    columns: dict[str, NDArray[Any]]
    rows: int
    about: dict[str, str]


def write_split(path: Path, columns: dict[str, pa.Array], about: dict[str, str]) -> None:
    """Write a temporary file, then rename it, since another process may be doing the same.

    Args:
        columns: columns of fixed width, without nulls.
        about: the metadata, with at least "format" and "identity".

    Raises:
        InputError: the folder cannot be written to.
    """
    table = pa.table(columns)
    about = about | {"sha256": _digest([_bytes_of(column) for column in columns.values()])}
    table = table.replace_schema_metadata(about)
    beside = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pa.OSFile(str(beside), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        beside.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot write the converted data ({error.strerror or error}); "
            f"{own_folder(path.parent.parent)}"
        ) from None
    finally:
        with suppress(OSError):  # a read-only file system refuses even this
            beside.unlink(missing_ok=True)


def own_folder(data: Path) -> str:
    """The way round a data folder that cannot be written to, as the end of an error."""
    there = shlex.quote(str(data))
    return (
        f"if {data} is read only, make a folder of links and name it with --data: "
        f"mkdir -p mine && ln -sf {there}/* mine && rm -f mine/arrow"
    )


def read_split(path: Path, *, form: str, identity: str, verify: bool) -> Split:
    """Memory-map a file.

    Args:
        form: the format that it must have.
        identity: the source that it must come from.
        verify: whether to compare the content with its SHA-256 too, which reads the whole file.

    Raises:
        InputError: it is another kind of file, comes from another source, or is damaged.
    """
    fix = f"delete {path} and run again to convert it anew"
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        about = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        if about.get("format") != form:
            raise InputError(f"{path}: of another version or another program; {fix}")
        found, written_sha = about["identity"], about["sha256"]
        if any(column.num_chunks != 1 or column.null_count for column in table.columns):
            raise InputError(f"{path}: damaged, its columns are not in one piece; {fix}")
        parts = {name: _bytes_of(table[name].chunk(0)) for name in table.column_names}
        columns = {
            name: np.frombuffer(part, _numpy_type(table[name].type)) for name, part in parts.items()
        }
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"{path}: damaged ({one_line(error, 200)}); {fix}") from None
    if found != identity:
        raise InputError(f"{path}: made from other data than these; {fix}")
    if verify and _digest(list(parts.values())) != written_sha:
        raise InputError(f"{path}: damaged, its content is not what was written; {fix}")
    return Split(columns, len(table), about)


def check_whole(path: Path) -> None:
    """Check that a file is complete and has the content that was written, whatever its format.

    Raises:
        InputError: it is damaged, or no file of this project.
    """
    try:
        metadata = pa.ipc.open_file(pa.memory_map(str(path))).schema.metadata or {}
        form, identity = metadata[b"format"].decode(), metadata[b"identity"].decode()
    except UNREADABLE as error:
        raise InputError(f"{path}: damaged ({one_line(error, 200)})") from None
    read_split(path, form=form, identity=identity, verify=True)


def made_from(path: Path) -> str | None:
    """The identity that a file says it has; None if there is no file."""
    try:
        metadata = pa.ipc.open_file(pa.memory_map(str(path))).schema.metadata or {}
        return str(metadata[b"identity"].decode())
    except FileNotFoundError:
        return None
    except UNREADABLE:
        return "unknown"


def convert_once(path: Path, identity: str, convert: Callable[[], None]) -> None:
    """Call `convert` unless `path` exists and was made from the same source.

    If the source has changed (with another version of a library, say), it is converted again. A
    damaged file is left, so that `read_split` reports it.
    """
    if made_from(path) not in (identity, "unknown"):
        convert()


def mapped(array: NDArray[Any]) -> Tensor:
    """A tensor that is a view of a mapped, read-only array, to which nothing here writes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(array)


NUMBERS = {"halffloat": "float16", "float": "float32", "double": "float64"}
"""NumPy's names of numbers, where they are not Arrow's."""


def _numpy_type(kind: pa.DataType) -> Any:
    # Not `to_pandas_dtype`: it imports pandas, which takes as long as a short job.
    return (
        np.uint8
        if pa.types.is_fixed_size_binary(kind)
        else np.dtype(NUMBERS.get(str(kind), str(kind)))
    )


def _bytes_of(column: pa.Array) -> memoryview:
    """The values' bytes, without Arrow's padding."""
    width = column.type.bit_width // 8
    return memoryview(column.buffers()[1])[: len(column) * width]


def _digest(parts: list[memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


@dataclass(frozen=True)
class Images:
    """A split of a data set in memory; implements gdas.data.source.ImageSource.

    Attributes:
        images_NCHW: uint8 from 0 to 255, three channels, H = W; if it was read from a file, a view
            of the mapped file.
        labels_N: int64 from 0 to `classes` - 1.
        classes: the number of classes.

    Raises:
        InputError: images or labels have another form; the error says how to correct them.
    """

    images_NCHW: Tensor
    labels_N: Tensor
    classes: int

    def __post_init__(self) -> None:
        check_images(self.images_NCHW, self.labels_N, self.classes)

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def size(self) -> int:
        """The side of the images in pixels."""
        return int(self.images_NCHW.shape[-1])

    def to(self, device: torch.device) -> Images:
        """The same images on `device`; nothing is copied if they are there already."""
        images_NCHW = self.images_NCHW.to(device)
        if images_NCHW is self.images_NCHW:
            return self
        return Images(images_NCHW, self.labels_N.to(device), self.classes)

    def order(self, rows_N: Tensor, seed: int, stream: str, *position: int) -> Tensor:
        """The rows in random order."""
        draw = generator(seed, stream, *position)
        return rows_N[torch.randperm(len(rows_N), generator=draw)]

    def reading_order(self, rows_N: Tensor) -> Tensor:
        """The rows as they are: in memory, no order is faster than another."""
        return rows_N

    def take(self, wanted: Wanted, then: Callable[[], Wanted] | None = None) -> Batch:
        """Select images; they are in memory, so `then` has no effect."""
        rows_B = wanted.rows_B.to(self.images_NCHW.device, non_blocking=True)
        return Batch(self.images_NCHW[rows_B], self.labels_N[rows_B])


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
    """Write a split of images; see `write_split`."""
    n, *shape = images_NCHW.shape
    width = int(np.prod(shape))
    image = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), n, [None, pa.py_buffer(np.ascontiguousarray(images_NCHW))]
    )
    about = {
        "format": IMAGES,
        "identity": identity,
        "shape": ",".join(map(str, shape)),
        "classes": str(classes),
    }
    write_split(path, {"image": image, "label": pa.array(labels_N)}, about)


def read_images(path: Path, *, identity: str, verify: bool) -> Images:
    """Memory-map a split of images; see `read_split`.

    Raises:
        InputError: it is another kind of file, comes from another source, or is damaged.
    """
    split = read_split(path, form=IMAGES, identity=identity, verify=verify)
    try:
        shape = tuple(int(side) for side in split.about["shape"].split(","))
        images = split.columns["image"].reshape(split.rows, *shape)
        labels, classes = split.columns["label"], int(split.about["classes"])
        if split.rows == 0 or labels.dtype != np.int64:
            raise ValueError("no images, or labels of another type")
        return Images(mapped(images), mapped(labels), classes)
    except (KeyError, ValueError) as error:  # also InputError, for images no conversion wrote
        raise InputError(
            f"{path}: damaged ({error}); delete it and run again to convert it anew"
        ) from None
