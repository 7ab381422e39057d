"""Checksums of a data set's files: of those on the store, and of their copies here. Pure.

`sums/NAME.json` on the store has the SHA-256 of every file of a data set. It is uploaded after the
files, so its presence says that all of them are there. A folder that a person uploaded, or an
earlier build, has none; a file from there must be whole by what is in it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gdas.data.arrow import check_whole
from gdas.errors import InputError, one_line
from gdas.files import sha256_of, write_json
from orchestrator.store.storage import Stamp, Storage, cache_folder

FORMAT = "gdas-sums/1"


def sums_object(name: str) -> str:
    """The object with the checksums of a data set."""
    return f"sums/{name}.json"


def read_sums(storage: Storage, name: str) -> dict[str, str]:
    """The SHA-256 of every file of a data set on the store; empty if it has no checksums.

    Raises:
        InputError: the checksums are damaged.
        OSError: the store does not answer.
    """
    try:
        found = json.loads(storage.read(sums_object(name)))
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r} and not {FORMAT}")
        return {str(key): str(sha) for key, sha in found["files"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        where = storage.under(sums_object(name)).address
        raise InputError(
            f"{where}: damaged ({one_line(error, 100)}); delete it there: the files are then "
            "compared by what is in them"
        ) from None


def write_sums(storage: Storage, name: str, sums: dict[str, str]) -> None:
    """Commit the upload of a data set's files."""
    content = json.dumps({"format": FORMAT, "files": sums}, indent=1, sort_keys=True)
    storage.write(sums_object(name), content.encode())


class Remembered:
    """Checksums that this machine has computed, by a file's size and modification time.

    Args:
        place: the folder or address that the files are in.
        name: the data set.
    """

    def __init__(self, place: str, name: str) -> None:
        own = hashlib.sha256(f"{place}\n{name}".encode()).hexdigest()[:24]
        self.path = cache_folder() / "sums" / f"{own}.json"
        try:
            self.known: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            self.known = {}

    def of_file(self, path: Path, key: str) -> str | None:
        """A file's SHA-256; None if there is no file."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        stamp = [status.st_size, status.st_mtime_ns]
        return self._found(key, stamp) or self._computed(key, stamp, sha256_of(path))

    def of_object(self, storage: Storage, key: str, stamp: Stamp) -> str:
        """An object's SHA-256, for which it is read once."""
        return self._found(key, list(stamp)) or self._computed(
            key, list(stamp), storage.sha256(key)
        )

    def _found(self, key: str, stamp: list[int]) -> str | None:
        known = self.known.get(key) if isinstance(self.known, dict) else None
        match known:
            case [size, time, str(sha)] if [size, time] == stamp:
                return str(sha)
        return None

    def _computed(self, key: str, stamp: list[int], sha: str) -> str:
        self.known = {**(self.known if isinstance(self.known, dict) else {}), key: [*stamp, sha]}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.known)
        return sha


def check_copy(path: Path, key: str, sums: dict[str, str], address: str) -> None:
    """Check a downloaded file before it takes its place.

    Args:
        path: the file.
        key: its name on the store.
        sums: the data set's checksums; empty if the store has none.
        address: the object, for the error.

    Raises:
        InputError: it is not what was uploaded or, without checksums, not whole.
    """
    try:
        if key in sums:
            if (found := sha256_of(path)) != sums[key]:
                raise ValueError(f"SHA-256 {found}, expected {sums[key]}")
        elif key.endswith(".arrow"):
            check_whole(path)
        elif key.endswith(".parquet"):
            pq.read_metadata(path)
        elif key.endswith(".json"):
            json.loads(path.read_bytes())
        elif key.endswith(".csv") and not path.read_bytes().endswith(b"\n"):
            raise ValueError("its last line has no end")
    except (pa.ArrowException, OSError, ValueError, RecursionError, InputError) as error:
        text = one_line(error, 200).removeprefix(f"{path}: ").partition("; delete ")[0]
        raise InputError(
            f"{address}: torn or damaged on the store ({text}); the copy on this machine, if there "
            "is one, was left as it is; delete the object there, and run the command once with "
            "--data FOLDER that has the data: it is uploaded again"
        ) from None
