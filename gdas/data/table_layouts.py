"""Photos in tables, as data hubs publish them: Parquet files, or the Arrow files of `datasets`.

One column has the photos, as bytes or as a struct with the bytes in `bytes` (its `path` is never
opened); another has their labels. The classes' names are in the metadata that `datasets` writes; if
they are missing, classes are named by their labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gdas.data.arrow import UNREADABLE
from gdas.data.layouts import Found, class_names, unknown_class
from gdas.data.photo_places import Photo, Row, arrow_batches, refuse_odd_path
from gdas.data.source import Split
from gdas.data.tar_layouts import split_files
from gdas.errors import InputError, one_line
from gdas.files import as_text

UNLABELLED = ("-1", "")
PHOTO_COLUMNS, LABEL_COLUMNS = ("image", "img", "jpg"), ("label", "labels", "cls", "fine_label")


class Columns(NamedTuple):
    """The columns of the photos and the labels, and the names of the classes, if known."""

    photo: str
    label: str
    names: tuple[str, ...]


class Entry(NamedTuple):
    """A row of a table."""

    place: Row
    name: str
    word: str
    bytes: int


def tables(source: Path, names: Sequence[str]) -> Found | None:
    """Parquet or Arrow files, whose names tell their split.

    Raises:
        InputError: a file is damaged or has other columns, or no photo of a split has a label.
    """
    found = split_files(source, (".parquet", ".arrow"), names)
    if found is None:
        return None
    left_out, entries = found.left_out, dict[Split, list[Entry]]()
    columns = None
    for split, paths in found.files.items():
        entries[split] = []
        for path in paths:
            columns, rows = _read(path, source, columns)
            entries[split] += rows
        labelled = [one for one in entries[split] if one.word not in UNLABELLED]
        left_out["photos without a label"] += len(entries[split]) - len(labelled)
        if not labelled:
            raise InputError(
                f"{paths[0]}: no row with a photo and a label; labels must be whole numbers from 0 "
                "or text, such as 7 or cat, so name a split that has them with --scored"
            )
        entries[split] = labelled
    assert columns is not None
    classes = list(columns.names) or class_names(one.word for one in entries["train"])
    places = {str(i) if columns.names else name: i for i, name in enumerate(classes)}
    photos: dict[Split, list[Photo]] = {}
    for split, of_split in entries.items():
        if unknown := sorted({one.word for one in of_split} - set(places)):
            raise unknown_class(f"{found.files[split][0]}: label {unknown[0]}", unknown)
        photos[split] = [
            Photo(
                one.place,
                as_text(f"{classes[places[one.word]]}/{one.name}"),
                places[one.word],
                one.bytes,
            )
            for one in of_split
        ]
    count = sum(map(len, found.files.values()))
    kind = "Parquet" if found.files["train"][0].suffix == ".parquet" else "Arrow"
    layout = (
        f"{kind}, {count} files (train, {found.held_out}; columns {columns.photo}, {columns.label})"
    )
    return Found(layout, classes, photos, +left_out, blocks=True)


def _read(path: Path, source: Path, known: Columns | None) -> tuple[Columns, list[Entry]]:
    """A file's rows without the photos, and its columns, which must be those of earlier files."""
    refuse_odd_path(path)
    try:
        if path.suffix.lower() == ".parquet":
            with pq.ParquetFile(path, memory_map=True) as file:
                columns = _columns(file.schema_arrow, path)
                groups = [
                    (g, file.read_row_group(g, [columns.label])[columns.label], _size(file, g))
                    for g in range(file.num_row_groups)
                ]
        else:
            batches = arrow_batches(str(path))
            for batch in batches:
                batch.validate(full=True)  # a damaged file may have any offsets
            if not batches:
                return known or Columns("", "", ()), []
            columns = _columns(batches[0].schema, path)
            groups = [
                (g, batch.column(columns.label), batch.nbytes) for g, batch in enumerate(batches)
            ]
        if known is not None and known.photo and columns != known:
            raise InputError(
                f"{path}: has columns {columns.photo} and {columns.label} or class names unlike "
                "the files before it; give files of one data set"
            )
        return columns, list(_entries(path, source, columns.photo, groups))
    except OSError as error:
        raise InputError(f"{path}: cannot read ({error.strerror or one_line(error)})") from None
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"{path}: damaged ({one_line(error, 200)}); fetch it again") from None


def _size(file: pq.ParquetFile, group: int) -> int:
    return int(file.metadata.row_group(group).total_byte_size)


def _entries(
    path: Path, source: Path, column: str, groups: Sequence[tuple[int, Any, int]]
) -> Iterator[Entry]:
    below = path.relative_to(source).as_posix()
    number = 0
    for group, labels, size in groups:
        for row, label in enumerate(labels.to_pylist()):
            word = "" if label is None else str(label)
            yield Entry(Row(str(path), group, row, column), f"{below}/{number}", word, size)
            number += 1


def _columns(schema: pa.Schema, path: Path) -> Columns:
    """Find the columns by type and name.

    Raises:
        InputError: it is not clear which columns they are.
    """
    photo = _one(schema, PHOTO_NEEDS, path)
    label = _one(schema, LABEL_NEEDS, path)
    return Columns(photo, label, _class_names(schema, label))


def _holds_photos(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _holds_photos(kind.field(place).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _holds_labels(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    )


class Needs(NamedTuple):
    """What a column must be.

    Attributes:
        what: what it holds, for errors.
        names: what it is usually called, the preferred name first.
        fits: whether a type will do.
        alone: whether the only column that fits is taken, if another one has a usual name.
        fix: what to do about a column of a usual name and another type, behind its type's name.
    """

    what: str
    names: Sequence[str]
    fits: Callable[[pa.DataType], bool]
    alone: bool
    fix: str


PHOTO_NEEDS = Needs(
    "photos, of binary or of a struct",
    PHOTO_COLUMNS,
    _holds_photos,
    True,
    ", not bytes; put each photo's file there, such as open(file, 'rb').read()",
)
LABEL_NEEDS = Needs(
    "labels, of whole numbers or text",
    LABEL_COLUMNS,
    _holds_labels,
    False,  # numbers and text are in columns of many kinds
    "; save it as whole numbers from 0, or as text",
)


def _one(schema: pa.Schema, needs: Needs, path: Path) -> str:
    what, preferred, fits, alone, fix = needs
    fitting = [field.name for field in schema if fits(field.type)]
    if len(set(fitting)) != len(fitting):
        raise InputError(f"{path}: has two columns of one name; rename one")
    for name in preferred:
        if name in fitting:
            return name
    misfit = next((schema.field(name) for name in preferred if name in schema.names), None)
    if misfit is not None and not (alone and len(fitting) == 1):
        raise InputError(f"{path}: column {misfit.name} {_kind(misfit.type)}{fix}")
    if len(fitting) != 1:
        raise InputError(
            f"{path}: not clear which column holds {what}: it has "
            f"{', '.join(schema.names) or 'none'}; call it {preferred[0]}"
        )
    return str(fitting[0])


def _kind(kind: pa.DataType) -> str:
    """What a column holds, in words."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "holds text"
    if pa.types.is_floating(kind):
        return f"is {np.dtype(kind.to_pandas_dtype()).name}"
    return f"is {one_line(kind, 80)}"


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """The classes' names in the metadata of `datasets`; empty if there are none."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = about["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names) if len(set(names)) == len(names) else ()
