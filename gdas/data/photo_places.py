"""Where a photo's bytes are before the conversion, and how they are read.

A photo is a file, a span of a tar, or a row of a Parquet or Arrow file. Nothing is unpacked: the
names inside an archive are only texts in the index and never become paths.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from gdas.errors import InputError, one_line
from gdas.files import without_surrogates

GROUPS = 32
"""How many row groups stay in memory while photos are read from tables."""
WINDOW_BYTES = 2**30
"""About how many bytes of row groups are shuffled together; twice as many stay in memory."""


class Span(NamedTuple):
    """A part of an uncompressed file: a member of a tar, or of a tar in a tar."""

    path: str
    start: int
    bytes: int


class Row(NamedTuple):
    """A row of a Parquet or Arrow file.

    Attributes:
        path: the file.
        group: the row group of a Parquet file, or the record batch of an Arrow file.
        row: the row's index in it.
        column: a column of binary values, or of a struct that has them as `bytes`.
    """

    path: str
    group: int
    row: int
    column: str


class Photo(NamedTuple):
    """A photo before the conversion.

    Attributes:
        place: a file's path as text (there may be millions), or its place in an archive or table.
        name: its class and the path below it, for the index and the shards only.
        label: the index of its class.
        bytes: its size, or another number that differs if the content does.
    """

    place: str | Span | Row
    name: str
    label: int
    bytes: int

    @property
    def where(self) -> str:
        """The photo's place, for errors."""
        return self.place if isinstance(self.place, str) else f"{self.place.path}: {self.name}"


class PhotoReader:
    """Reads photos' bytes, from several threads, and caches the last row groups of tables."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: OrderedDict[tuple[str, int], pa.Array] = OrderedDict()
        self._bytes = 0

    def read(self, photo: Photo) -> bytes:
        """The bytes of the photo's file, unchanged.

        Raises:
            InputError: it cannot be read; the error names it.
        """
        place = photo.place
        try:
            if isinstance(place, str):
                return Path(place).read_bytes()
            if isinstance(place, Span):
                with Path(place.path).open("rb") as file:
                    file.seek(place.start)
                    found = file.read(place.bytes)
                if len(found) != place.bytes:
                    raise InputError(f"{photo.where}: the file ends within it; fetch it again")
                return found
            with self._lock:
                value = self._group(place)[place.row].as_py()
        except OSError as error:
            raise InputError(
                f"{photo.where}: cannot read ({error.strerror or one_line(error)}); make it "
                "readable, or remove it"
            ) from None
        except (pa.ArrowException, KeyError, IndexError, ValueError, TypeError) as error:
            raise InputError(
                f"{photo.where}: damaged ({one_line(error, 200)}); fetch its file again"
            ) from None
        return value if isinstance(value, bytes) else b""  # nothing: damaged, as an empty file

    def _group(self, place: Row) -> pa.Array:
        key = (place.path, place.group)
        if key in self._groups:
            self._groups.move_to_end(key)
            return self._groups[key]
        images = _images(place)
        while self._groups and (len(self._groups) >= GROUPS or self._bytes > 2 * WINDOW_BYTES):
            self._bytes -= self._groups.popitem(last=False)[1].nbytes
        self._bytes += images.nbytes
        self._groups[key] = images
        return images


def refuse_odd_path(path: Path) -> None:
    """Refuse the path of a table or shard that Arrow cannot open, which would call it damaged.

    Raises:
        InputError: it is not UTF-8.
    """
    if str(path) != without_surrogates(str(path)):
        raise InputError(
            f"{path}: the path is not UTF-8, and Arrow opens no such files; rename the folder or "
            "file, or name another one"
        )


END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""The last bytes of an Arrow stream."""


def _images(place: Row) -> pa.Array:
    if place.path.endswith(".parquet"):
        with pq.ParquetFile(place.path, memory_map=True) as file:
            column = file.read_row_group(place.group, columns=[place.column])[place.column]
        images = column.combine_chunks()
    else:
        images = arrow_batches(place.path)[place.group].column(place.column)
    images.validate(full=True)  # a damaged file may have any offsets
    return images.field("bytes") if pa.types.is_struct(images.type) else images


def arrow_batches(path: str) -> list[pa.RecordBatch]:
    """The record batches of an Arrow file, in the stream format or the random-access format.

    Raises:
        pa.ArrowInvalid: it is damaged, or a stream without the mark of its end. Arrow reads such a
            stream as a whole one (seen in pyarrow 25.0.1), so one that was cut loses photos.
    """
    mapped = pa.memory_map(path)
    try:
        reader = pa.ipc.open_file(mapped)
        return [reader.get_batch(i) for i in range(reader.num_record_batches)]
    except pa.ArrowInvalid:
        mapped.seek(0)
        batches = list(pa.ipc.open_stream(mapped))
        mapped.seek(max(0, mapped.size() - len(END)))
        if mapped.read() != END:
            raise pa.ArrowInvalid(
                "a stream that ends without the mark of its end: torn, or its writer was not closed"
            ) from None
        return batches
