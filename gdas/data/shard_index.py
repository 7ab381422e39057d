"""Photos on disk: Parquet shards, and an index whose presence says that a conversion is complete.

A folder has `train/00000.parquet` ..., `val/00000.parquet` ... and `index.json`. A shard has the
columns image (the file's own bytes), label and name, in row groups that are small enough to be read
alone. The index has the classes (in the order of the labels), the numbers of photos, and the
SHA-256 of every shard. It names no paths: shards are numbered.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from gdas.data.photo_places import refuse_odd_path
from gdas.data.settings import PhotoData
from gdas.data.source import Split
from gdas.errors import InputError
from gdas.files import sha256_of

PHOTOS = "gdas-photos/1"
INDEX = "index.json"
FOLDERS: dict[Split, str] = {"train": "train", "test": "val"}
"""The folder of a split; the paper's test set of ImageNet is the data set's validation folder."""


@dataclass(frozen=True)
class Shard:
    """One Parquet file."""

    path: Path
    photos: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Shards:
    """The shards of a split.

    Attributes:
        shards: the files, in order.
        group_rows: how many photos a row group has; the last one of a shard may have fewer.
        damaged: names of photos that were left out.
        one_colour: names of photos of one colour, which may be damaged although they decode.
    """

    shards: tuple[Shard, ...]
    group_rows: int
    damaged: tuple[str, ...]
    one_colour: tuple[str, ...] = ()

    @property
    def photos(self) -> int:
        """How many photos the split has."""
        return sum(shard.photos for shard in self.shards)


@dataclass(frozen=True)
class ShardIndex:
    """A complete conversion.

    Attributes:
        folder: the folder of the index.
        plan: a digest of the photos to convert and of the format.
        classes: the names of the classes, in the order of the labels.
        splits: the shards of each split.
    """

    folder: Path
    plan: str
    classes: tuple[str, ...]
    splits: dict[Split, Shards]

    def identity(self, split: Split) -> str:
        """A split's checksum, with the number of photos, which `photos_in` reads."""
        shards = self.splits[split]
        parts = [PHOTOS, self.classes, shards.group_rows, [s.sha256 for s in shards.shards]]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return f"photos-{shards.photos}-{digest[:16]}"

    def check(self, split: Split, *, verify: bool, threads: int = 1) -> None:
        """Check that every shard of a split is there and, if `verify`, compare its SHA-256.

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
        """The content of index.json."""
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
    """The path of a shard, by its number in the split."""
    return folder / FOLDERS[split] / f"{number:05d}.parquet"


def conversion_command(folder: Path) -> str:
    """The command that converts photos to `folder`."""
    return f"python -m gdas.data.shards SOURCE {quote(str(folder))}"


def mend(folder: Path) -> str:
    """The end of an error about a damaged conversion: the command that makes it again."""
    return f"to make it anew, run again: {conversion_command(folder)}"


def read_index(folder: Path) -> ShardIndex:
    """Read the index of a complete conversion.

    Raises:
        InputError: there is none (the error says how to convert), or it is damaged.
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
        folder: the folder of the data sets.

    Raises:
        InputError: `read_index` raises it, or the number of classes differs.
    """
    refuse_odd_path(folder / data.name)
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
