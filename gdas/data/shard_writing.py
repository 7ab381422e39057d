"""Write one shard: its content, the check of its photos, and its file.

A shard is written to a temporary file that is renamed when it is complete. Its metadata record what
it has and what was left out, so that an interrupted conversion can go on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from gdas.data.decode import decode
from gdas.data.photo_places import Photo, PhotoReader
from gdas.data.shard_index import PHOTOS, shard_path
from gdas.data.source import Split
from gdas.errors import InputError
from gdas.files import write_json

LONGEST = 100
"""The largest ratio of a photo's sides, since it is resized by its shorter side."""
ONE_COLOUR = 16
"""A photo whose pixels span fewer levels of 256 than this is reported as of one colour.

The limit is above 1 because compression makes noise, and 12 bits in a file of 16 bits become
fifteen levels of black.
"""
SCHEMA = pa.schema([("image", pa.binary()), ("label", pa.int32()), ("name", pa.string())])


class Part(NamedTuple):
    """The content of one shard.

    Attributes:
        path: the shard's file.
        photos: its photos, in order.
        plan: a digest of the content and its format.
    """

    path: Path
    photos: list[Photo]
    plan: str


class Written(NamedTuple):
    """What was written to a shard.

    Attributes:
        photos: how many photos it has.
        damaged: names of photos that were left out.
        one_colour: names of photos to look at, because they have nearly one colour.
    """

    photos: int
    damaged: list[str]
    one_colour: list[str]


class Looked(NamedTuple):
    """The file of a photo after a check.

    Attributes:
        encoded: its bytes; None if they are not a photo.
        why: what is wrong with them.
        one_colour: whether all pixels have nearly one colour.
    """

    encoded: bytes | None
    why: str = ""
    one_colour: bool = False


def parts_of(
    target: Path, split: Split, photos: list[Photo], shard_rows: int, group_rows: int
) -> list[Part]:
    """Divide a split's photos into shards of `shard_rows`."""
    parts = []
    for number, start in enumerate(range(0, len(photos), shard_rows)):
        some = photos[start : start + shard_rows]
        listed = [[photo.name, photo.label, photo.bytes] for photo in some]
        plan = digest_of([PHOTOS, group_rows, listed])
        parts.append(Part(shard_path(target, split, number), some, plan))
    return parts


def digest_of(value: object) -> str:
    """SHA-256 of a value's JSON, in hexadecimal."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into an InputError that says what to do about a full or read-only disk."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: cannot write ({error.strerror or error}); make room or choose another folder "
            "and run the same command again, finished shards are kept"
        ) from None


def kept(part: Part) -> Written | None:
    """What an earlier start wrote at a part's path; None if it is not what belongs there."""
    try:
        metadata = pq.read_metadata(part.path)
        about = json.loads(metadata.metadata[b"gdas"])
        if about["plan"] != part.plan:
            return None
        damaged = list(map(str, about["damaged"]))
        return Written(metadata.num_rows, damaged, _one_colour(part.path))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        return None


def side_file(path: Path) -> Path:
    """The file that lists a shard's photos of one colour, if there are any.

    They are not listed in the shard itself, because its bytes enter the ids of jobs.
    """
    return path.with_name(f"{path.name}.one-colour.json")


def _one_colour(path: Path) -> list[str]:
    try:
        return list(map(str, json.loads(side_file(path).read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError):
        return []


def write_part(
    part: Part,
    group_rows: int,
    pool: ThreadPoolExecutor,
    reader: PhotoReader,
    before: int,
    limit: int,
) -> Written:
    """Write a shard to a temporary file, then rename it.

    Args:
        before: how many photos were damaged so far.
        limit: how many damaged photos are allowed in all.
    """
    beside = part.path.with_name(f"{part.path.name}.partial")
    damaged, flat, count = list[str](), list[str](), 0
    try:
        with (
            writing(part.path),
            beside.open("wb") as file,
            pq.ParquetWriter(
                file,
                SCHEMA,
                compression="none",  # photos are compressed
                use_dictionary=False,
                write_statistics=False,
                write_page_checksum=True,
                store_schema=False,
            ) as writer,
        ):
            group: list[tuple[bytes, Photo]] = []
            looked = pool.map(partial(_read, reader), part.photos)
            for photo, (encoded, why, one_colour) in zip(part.photos, looked, strict=True):
                if encoded is None:
                    damaged.append(photo.name)
                    if before + len(damaged) > limit:
                        raise too_many(photo.where, why, limit)
                else:
                    group.append((encoded, photo))
                    flat += [photo.name] * one_colour
                    count += 1
                if len(group) == group_rows:
                    writer.write_table(_table(group))
                    group = []
            if group:
                writer.write_table(_table(group))
            about = {"plan": part.plan, "damaged": damaged}
            writer.add_key_value_metadata({"gdas": json.dumps(about)})
        with writing(part.path):
            side_file(part.path).unlink(missing_ok=True)
            if flat:
                write_json(side_file(part.path), flat)
            with beside.open("rb") as whole:
                os.fsync(whole.fileno())
            beside.replace(part.path)
    finally:
        beside.unlink(missing_ok=True)
    return Written(count, damaged, flat)


def _read(reader: PhotoReader, photo: Photo) -> Looked:
    """Read a photo's file and decode it as a training will."""
    encoded = reader.read(photo)
    try:
        pixels_CHW = decode(encoded)
    except ValueError as error:
        return Looked(None, str(error)[:200])
    shorter, longer = sorted(pixels_CHW.shape[1:])
    if longer > LONGEST * shorter:
        return Looked(None, f"its sides are {shorter} and {longer}: more than {LONGEST} times")
    span_C = pixels_CHW.amax((1, 2)).int() - pixels_CHW.amin((1, 2)).int()
    return Looked(encoded, one_colour=bool((span_C < ONE_COLOUR).all()))


def _table(group: Iterable[tuple[bytes, Photo]]) -> pa.Table:
    images, photos = zip(*group, strict=True)
    columns = [
        pa.array(images, pa.binary()),
        pa.array([photo.label for photo in photos], pa.int32()),
        pa.array([photo.name for photo in photos], pa.string()),
    ]
    return pa.table(columns, SCHEMA)


def too_many(name: str, why: str, limit: int) -> InputError:
    """The error for more damaged photos than the limit."""
    because = f"{name}: cannot be decoded" + (f" ({why})" if why else "")
    if limit:
        because += f", and {limit} other{'s' if limit > 1 else ''} cannot either"
    return InputError(
        f"{because}; mend {'them' if limit else 'it'}, or go on without "
        f"{'them' if limit else 'it'}: --damaged-limit N"
    )
