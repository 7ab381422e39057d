"""Convert an ImageFolder to Parquet shards, once:

    python -m gdas.data.shards SOURCE TARGET [--damaged-limit N] [--workers N] [--rows N]

SOURCE holds train/CLASS/... and val/CLASS/...; TARGET is a folder under the data folder, named as
the data set (DATA/imagenet). Files are taken over as they are, after each has been decoded once.
It may be stopped and goes on with the same command; a finished TARGET is verified and mended. The
result is the same bytes however often it was stopped, and for any number of workers.

Decision: training photos are shuffled once, here, so that a few row groups are a random sample of
the whole; a class is spread over all shards.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from gdas.data.decode import decode
from gdas.data.shard_index import (
    FOLDERS,
    INDEX,
    PHOTOS,
    Shard,
    ShardIndex,
    Shards,
    read_index,
    shard_path,
)
from gdas.data.source import Split
from gdas.errors import InputError
from gdas.files import sha256_of, write_json
from gdas.randomness import generator

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""torchvision's IMG_EXTENSIONS, in any case."""

SCHEMA = pa.schema([("image", pa.binary()), ("label", pa.int32()), ("name", pa.string())])


class Photo(NamedTuple):
    """A file of the source.

    Attributes:
        path: as text; there may be millions.
        name: class and path below it; for the index and the shards only.
    """

    path: str
    name: str
    label: int
    bytes: int


class Part(NamedTuple):
    """What goes into one shard, and a digest of that."""

    path: Path
    photos: list[Photo]
    plan: str


class Written(NamedTuple):
    """What a shard holds, and whom it does without."""

    photos: int
    damaged: list[str]


# Source


def find_classes(source: Path) -> list[str]:
    """Names of the folders in SOURCE/train, sorted; a photo's label is its folder's place."""
    for folder in FOLDERS.values():
        if not (source / folder).is_dir():
            raise InputError(
                f"{source}: no folder {folder}; an ImageFolder has train/CLASS/ and val/CLASS/"
            )
    classes = _folders(source / "train")
    if not classes:
        raise InputError(f"{source / 'train'}: no classes; expected one folder for each")
    unknown = sorted(set(_folders(source / "val")) - set(classes))
    if unknown:
        raise InputError(
            f"{source / 'val' / unknown[0]}: train has no such class"
            + (f" (and {len(unknown) - 1} others)" if len(unknown) > 1 else "")
        )
    return classes


def _folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def find_photos(source: Path, split: Split, classes: Sequence[str]) -> list[Photo]:
    """Every photo of a split, by class and name; training photos then shuffled, always the same."""
    photos = []
    for label, name in enumerate(classes):
        folder = source / FOLDERS[split] / name
        found = sorted(_files(folder)) if folder.is_dir() else []
        if not found and split == "train":
            raise InputError(f"{folder}: no photos ({', '.join(EXTENSIONS)})")
        photos += [_photo(path, f"{name}{path[len(str(folder)) :]}", label) for path in found]
    if not photos:
        raise InputError(f"{source / FOLDERS[split]}: no photos")
    if split == "train":
        order = torch.randperm(len(photos), generator=generator(0, "shards"))
        photos = [photos[i] for i in order.tolist()]
    return photos


def _files(folder: Path) -> Iterator[str]:
    """Photos at any depth, through links too, but not in circles."""
    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (f"{here}/{file}" for file in files if file.lower().endswith(EXTENSIONS))


def _photo(path: str, name: str, label: int) -> Photo:
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot read ({error.strerror})") from None
    # Not every file name is text.
    text = os.fsencode(name).decode(errors="backslashreplace")
    return Photo(path, text, label, size)


# Conversion


def convert(
    source: Path,
    target: Path,
    *,
    damaged_limit: int = 0,
    workers: int = 1,
    shard_rows: int = 2048,
    group_rows: int = 64,
    say: Callable[[str], None] = lambda line: None,
) -> ShardIndex:
    """Convert, or go on with it; where it is finished, verify every shard and mend it.

    Args:
        damaged_limit: photos that may be left out because they cannot be decoded.
        workers: threads that read and decode.
        shard_rows, group_rows: photos in a shard and in a row group.
        say: told a line for every shard.

    Raises:
        InputError: the source cannot be used, too many photos are damaged, TARGET holds something
            else or cannot be written to.
    """
    classes = find_classes(source)
    parts = {
        split: _parts(target, split, find_photos(source, split, classes), shard_rows, group_rows)
        for split in FOLDERS
    }
    plan = _digest([PHOTOS, classes, [part.plan for split in FOLDERS for part in parts[split]]])
    with _locked(target), ThreadPoolExecutor(workers) as pool:
        finished = _finished(target, plan)
        damaged = 0
        splits: dict[Split, Shards] = {}
        for split, of_split in parts.items():
            (target / FOLDERS[split]).mkdir(exist_ok=True)
            shards, missing = list[Shard](), list[str]()
            for number, part in enumerate(of_split):
                expected = finished.splits[split].shards[number].sha256 if finished else None
                started, written = time.monotonic(), _kept(part)
                sha = sha256_of(part.path) if written else ""
                kept = written is not None and expected in (None, sha)
                if written is None or not kept:
                    written = _write(part, group_rows, pool, damaged, damaged_limit)
                    sha = sha256_of(part.path)
                if expected not in (None, sha):
                    raise InputError(
                        f"{part.path}: made anew it has SHA-256 {sha}, expected {expected}: the "
                        "photos changed, or another version of Arrow wrote it; delete "
                        f"{target} to convert everything anew"
                    )
                missing += [f"{FOLDERS[split]}/{name}" for name in written.damaged]
                damaged += len(written.damaged)
                if damaged > damaged_limit:
                    raise _too_many(missing[-1], damaged_limit)
                size = part.path.stat().st_size
                shards.append(Shard(part.path, written.photos, size, sha))
                rate = len(part.photos) / (time.monotonic() - started)
                how = "there already" if kept else f"{rate:.0f} photos/s"
                say(
                    f"{FOLDERS[split]}: shard {number + 1} of {len(of_split)}, {how}"
                    + (f", {damaged} damaged so far" if damaged else "")
                )
            splits[split] = Shards(tuple(shards), group_rows, tuple(missing))
            if splits[split].photos == 0:
                raise InputError(f"{source / FOLDERS[split]}: every photo is damaged")
        index = ShardIndex(target, plan, tuple(classes), splits)
        if finished is None:
            _remove_others(target, index)
            with writing(target / INDEX):
                write_json(target / INDEX, index.to_json())
        return index


def _too_many(name: str, limit: int) -> InputError:
    return InputError(
        f"{name}: cannot be decoded, and {limit} others cannot either; mend them, or go on without "
        "them: --damaged-limit N"
        if limit
        else f"{name}: cannot be decoded; mend it, or go on without it: --damaged-limit N"
    )


def _parts(
    target: Path, split: Split, photos: list[Photo], shard_rows: int, group_rows: int
) -> list[Part]:
    parts = []
    for number, start in enumerate(range(0, len(photos), shard_rows)):
        some = photos[start : start + shard_rows]
        listed = [[photo.name, photo.label, photo.bytes] for photo in some]
        plan = _digest([PHOTOS, group_rows, listed])
        parts.append(Part(shard_path(target, split, number), some, plan))
    return parts


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what to do where the disk is full or the folder not ours."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: cannot write ({error.strerror or error}); make room or choose another folder "
            "and run the same command again, finished shards are kept"
        ) from None


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """One conversion at a time; the lock ends with the process."""
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
        lock = os.open(target, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"{target}: another conversion is writing to it") from None
    finally:
        os.close(lock)


def _finished(target: Path, plan: str) -> ShardIndex | None:
    """The index of the same conversion, where it is done."""
    try:
        index = read_index(target)
    except InputError:  # none, or damaged: the shards tell
        return None
    if index.plan != plan:
        raise InputError(
            f"{target}: holds other photos, or the same in other shards; name another folder, or "
            "delete it to convert anew"
        )
    return index


def _kept(part: Part) -> Written | None:
    """What an earlier start left in a part's place, where that is what belongs there."""
    try:
        metadata = pq.read_metadata(part.path)
        about = json.loads(metadata.metadata[b"gdas"])
        if about["plan"] != part.plan:
            return None
        return Written(metadata.num_rows, [str(name) for name in about["damaged"]])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        return None


def _write(
    part: Part, group_rows: int, pool: ThreadPoolExecutor, before: int, limit: int
) -> Written:
    """Write a shard beside, then rename.

    Args:
        before: damaged photos so far; with more than `limit` in all this stops.
    """
    beside = part.path.with_name(f"{part.path.name}.partial")
    damaged, count = list[str](), 0
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
            for photo, encoded in zip(part.photos, pool.map(_read, part.photos), strict=True):
                if encoded is None:
                    damaged.append(photo.name)
                    if before + len(damaged) > limit:
                        raise _too_many(photo.path, limit)
                else:
                    group.append((encoded, photo))
                    count += 1
                if len(group) == group_rows:
                    writer.write_table(_table(group))
                    group = []
            if group:
                writer.write_table(_table(group))
            writer.add_key_value_metadata(
                {"gdas": json.dumps({"plan": part.plan, "damaged": damaged})}
            )
        with writing(part.path):
            with beside.open("rb") as whole:
                os.fsync(whole.fileno())
            beside.replace(part.path)
    finally:
        beside.unlink(missing_ok=True)
    return Written(count, damaged)


def _read(photo: Photo) -> bytes | None:
    """The file's bytes; None where they cannot be decoded."""
    try:
        encoded = Path(photo.path).read_bytes()
    except OSError as error:
        raise InputError(f"{photo.path}: cannot read ({error.strerror})") from None
    try:
        decode(encoded)
    except ValueError:
        return None
    return encoded


def _table(group: Iterable[tuple[bytes, Photo]]) -> pa.Table:
    images, photos = zip(*group, strict=True)
    columns = [
        pa.array(images, pa.binary()),
        pa.array([photo.label for photo in photos], pa.int32()),
        pa.array([photo.name for photo in photos], pa.string()),
    ]
    return pa.table(columns, SCHEMA)


def _remove_others(target: Path, index: ShardIndex) -> None:
    """What a conversion that was given up left behind."""
    ours = {shard.path for shards in index.splits.values() for shard in shards.shards}
    for folder in FOLDERS.values():
        for path in (target / folder).glob("*.parquet*"):
            if path not in ours:
                path.unlink()


# Command line

EPILOG = """examples:
  python -m gdas.data.shards ILSVRC2012 data/imagenet
  python -m gdas.data.shards ~/flowers data/flowers --damaged-limit 10

Stop it and give the same command again: whole shards are kept. Then an experiment with
data: {name: flowers, format: photos, classes: 102} finds it in --data data.

Exit code: 0 all is converted, 2 bad input, 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m gdas.data.shards",
        description="Convert an ImageFolder (train/CLASS/, val/CLASS/) to Parquet shards, once.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="IMAGEFOLDER", help="with train/ and val/")
    parser.add_argument(
        "target", type=Path, metavar="DATA/NAME", help="NAME is the data set's (data.name)"
    )
    parser.add_argument(
        "--damaged-limit",
        type=int,
        default=0,
        metavar="N",
        help="photos that may be left out because they cannot be decoded (default: 0)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="threads (default: one a core)",
    )
    parser.add_argument(
        "--rows", type=int, default=2048, metavar="N", help="photos in a shard (default: 2048)"
    )
    parser.add_argument(
        "--group-rows",
        type=int,
        default=64,
        metavar="N",
        help="photos in a row group, the unit of shuffling (default: 64)",
    )
    options = parser.parse_args(arguments)
    for key in ("workers", "rows", "group_rows"):
        if getattr(options, key) < 1:
            parser.error(f"--{key.replace('_', '-')}: must be 1 or more")
    try:
        index = convert(
            options.source,
            options.target,
            damaged_limit=options.damaged_limit,
            workers=options.workers,
            shard_rows=options.rows,
            group_rows=options.group_rows,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    counts = ", ".join(
        f"{shards.photos} in {FOLDERS[split]} ({len(shards.damaged)} damaged left out)"
        for split, shards in index.splits.items()
    )
    print(f"{options.target}: {len(index.classes)} classes; {counts}", file=sys.stderr)
    data, name = options.target.parent, options.target.name
    setting = "" if name == "imagenet" else f"  (data: {{name: {name}, format: photos, ...}})"
    print(f"next: python -m orchestrator.reproduce_paper EXPERIMENT --data {data}{setting}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
