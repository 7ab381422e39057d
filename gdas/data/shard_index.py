"""Photos on disk: Parquet shards, and the index whose presence says that a conversion is done.

A folder holds `train/00000.parquet` ..., `val/00000.parquet` ... and `index.json`. A shard has the
columns image (the file's own bytes), label and name, in row groups small enough to be read alone.
The index has the classes (their order is the labels'), how many photos are where, and the SHA-256
of every shard. It names no path: shards are numbered.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdas.data.settings import PhotoData
from gdas.data.source import Split
from gdas.errors import InputError
from gdas.files import sha256_of

PHOTOS = "gdas-photos/1"
INDEX = "index.json"
FOLDERS: dict[Split, str] = {"train": "train", "test": "val"}
"""The paper's test set of ImageNet is the data set's validation folder."""


@dataclass(frozen=True)
class Shard:
    """One Parquet file."""

    path: Path
    photos: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Shards:
    """A split.

    Attributes:
        group_rows: photos in a row group; the last one of a shard may have fewer.
        damaged: names of photos that were left out.
        one_colour: names of photos of one colour, which may be damaged in a way that decodes.
    """

    shards: tuple[Shard, ...]
    group_rows: int
    damaged: tuple[str, ...]
    one_colour: tuple[str, ...] = ()

    @property
    def photos(self) -> int:
        return sum(shard.photos for shard in self.shards)


@dataclass(frozen=True)
class ShardIndex:
    """A finished conversion.

    Attributes:
        plan: digest of what was to be converted, and how.
    """

    folder: Path
    plan: str
    classes: tuple[str, ...]
    splits: dict[Split, Shards]

    def identity(self, split: Split) -> str:
        """What a split's content is; `photos_in` reads the number of photos from it."""
        shards = self.splits[split]
        parts = [PHOTOS, self.classes, shards.group_rows, [s.sha256 for s in shards.shards]]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return f"photos-{shards.photos}-{digest[:16]}"

    def check(self, split: Split, *, verify: bool, threads: int = 1) -> None:
        """Look for every shard of a split, and compare its SHA-256 where `verify`.

        Raises:
            InputError: one is missing or damaged.
        """
        for shard in self.splits[split].shards:
            try:
                found = shard.path.stat().st_size
            except OSError as error:
                raise InputError(
                    f"{shard.path}: missing ({error.strerror}); {mend(self.folder)}"
                ) from None
            if found != shard.bytes:
                raise InputError(
                    f"{shard.path}: damaged, it has {found} bytes and not the {shard.bytes} that "
                    f"were written; {mend(self.folder)}"
                )
        if verify:
            with ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(self._verify, self.splits[split].shards):
                    pass

    def _verify(self, shard: Shard) -> None:
        if sha256_of(shard.path) != shard.sha256:
            raise InputError(
                f"{shard.path}: damaged, its content is not what was written; {mend(self.folder)}"
            )

    def to_json(self) -> dict[str, Any]:
        return {
            "format": PHOTOS,
            "plan": self.plan,
            "classes": list(self.classes),
            "splits": {
                FOLDERS[split]: {
                    "photos": shards.photos,
                    "group_rows": shards.group_rows,
                    "damaged": list(shards.damaged),
                    "one_colour": list(shards.one_colour),
                    "shards": [
                        {"photos": s.photos, "bytes": s.bytes, "sha256": s.sha256}
                        for s in shards.shards
                    ],
                }
                for split, shards in self.splits.items()
            },
        }


def photos_in(identity: str) -> int:
    """The number of photos of a split, from its identity."""
    return int(identity.split("-")[1])


def shard_path(folder: Path, split: Split, number: int) -> Path:
    return folder / FOLDERS[split] / f"{number:05d}.parquet"


def conversion_command(folder: Path) -> str:
    return f"python -m gdas.data.shards SOURCE {folder}"


def mend(folder: Path) -> str:
    return f"to make it anew, run again: {conversion_command(folder)}"


def read_index(folder: Path) -> ShardIndex:
    """Read a finished conversion's index.

    Raises:
        InputError: there is none (says how to convert), or it is damaged.
    """
    path = folder / INDEX
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder}: no converted photos (no {INDEX}); convert them once, from a folder with "
            f"train/CLASS/ and val/CLASS/: {conversion_command(folder)}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}); {mend(folder)}") from None
    try:
        if found["format"] != PHOTOS:
            raise ValueError(f"format {found['format']!r} and not {PHOTOS}")
        splits = {
            split: _shards(found["splits"][FOLDERS[split]], folder, split) for split in FOLDERS
        }
        classes = tuple(str(name) for name in found["classes"])
        return ShardIndex(folder, str(found["plan"]), classes, splits)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: damaged ({type(error).__name__}: {error}); {mend(folder)}"
        ) from None


def open_index(data: PhotoData, folder: Path) -> ShardIndex:
    """The index of DATA/NAME, which must have as many classes as the settings say.

    Args:
        folder: where data sets lie.

    Raises:
        InputError: as `read_index`, or other classes.
    """
    index = read_index(folder / data.name)
    if len(index.classes) != data.classes:
        raise InputError(
            f"data.classes={data.classes}: {index.folder} has {len(index.classes)} classes; use "
            f"data.classes={len(index.classes)}"
        )
    return index


def _shards(found: dict[str, Any], folder: Path, split: Split) -> Shards:
    shards = tuple(
        Shard(
            shard_path(folder, split, number),
            _count(shard["photos"]),
            _count(shard["bytes"]),
            str(shard["sha256"]),
        )
        for number, shard in enumerate(found["shards"])
    )
    group_rows = _count(found["group_rows"])
    if group_rows < 1:
        raise ValueError(f"group_rows {group_rows}")
    damaged, flat = found["damaged"], found.get("one_colour", [])
    return Shards(shards, group_rows, tuple(map(str, damaged)), tuple(map(str, flat)))


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
