"""Data sets of a study whose output folder or `--data` is on an object store. Pure.

The driver converts and verifies a data set once and uploads the converted files, their checksums
last. Every node downloads a data set once, however many trials run on it. Checksums decide which
files are alike, and a copy on a node is replaced only by a file that was found whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gdas.data.settings import TableData
from gdas.data.shard_index import INDEX
from gdas.errors import InputError, one_line
from orchestrator.experiment.study import Study
from orchestrator.store.results import JobSettings
from orchestrator.store.storage import (
    THREADS,
    Stamp,
    Storage,
    cache_folder,
    is_address,
    open_storage,
)
from orchestrator.store.sums import (
    Remembered,
    check_copy,
    read_sums,
    sums_object,
    write_sums,
)

DESCRIBES = (f"/{INDEX}", ".csv")
"""How the names of small files end that say what a data set is."""


def of_data_set(name: str, object_name: str) -> bool:
    """Whether an object below a data folder is one of the data set's Arrow files or shards."""
    return object_name.startswith((f"arrow/{name}-", f"{name}/")) and not object_name.endswith(
        ".partial"
    )


def data_on_this_node(settings: JobSettings) -> Path:
    """The path of a job's data folder; if it is on an object store, the data set is downloaded."""
    address = settings["environment"]["data"]
    if not is_address(address):
        return Path(address)
    return fetched(address, data_sets(settings["recipe"]))


def data_sets(recipe: dict[str, Any]) -> list[str]:
    """The names of the data sets that a job reads; a lookup reads the table too."""
    table = [TableData().name] if "lookup" in recipe else []
    return [str(recipe["config"]["data"]["name"]), *table]


def described(address: str) -> Path:
    """Download what identifies the data sets, without the data: photo indexes and tables.

    Raises:
        InputError: the store does not answer, or a file there is damaged.
    """
    storage, folder = open_storage(address, option="--data"), node_folder(address)
    try:
        there = storage.listing(patience=0.0)
        for key in there:
            if key.endswith(DESCRIBES):
                _fetch_wanted(storage, folder, key.partition("/")[0], {key: there[key]})
    except OSError as problem:
        raise InputError(f"{address}: does not answer ({one_line(problem, 200)})") from None
    return folder


def node_folder(address: str) -> Path:
    """Where this node keeps what it downloaded from an address."""
    return cache_folder() / "data" / hashlib.sha256(address.encode()).hexdigest()[:12]


def fetched(address: str, names: list[str]) -> Path:
    """Download the files of data sets that this node lacks; one process does, others wait for it.

    Raises:
        InputError: a file on the store is torn or damaged; an earlier copy here is unchanged.
        OSError: the store does not answer.
    """
    storage, folder = open_storage(address, option="--data"), node_folder(address)
    for name in names:
        there = storage.listing()
        _fetch_wanted(
            storage, folder, name, {key: there[key] for key in there if of_data_set(name, key)}
        )
    return folder


def _fetch_wanted(storage: Storage, folder: Path, name: str, there: dict[str, Stamp]) -> None:
    """Download those of a data set's objects whose copies here are missing or of other content."""
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / f".{name}.lock"):
        sums, remembered = read_sums(storage, name), Remembered(str(folder), name)

        def wanted(key: str) -> bool:
            if key in sums:
                return remembered.of_file(folder / key, key) != sums[key]
            if key.endswith(DESCRIBES):  # small, and of one size whatever they say
                return True
            return not _same_size(folder / key, there[key][0])

        def fetch(key: str) -> None:
            where = storage.under(key).address
            storage.fetch(key, folder / key, lambda path: check_copy(path, key, sums, where))

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(fetch, [key for key in there if wanted(key)]))


def publish(folder: Path, storage: Storage, names: list[str]) -> None:
    """Upload the converted files of data sets, except those that are on the store already.

    Raises:
        OSError: the store does not answer.
    """
    there = storage.listing()
    for name in names:
        paths = sorted(folder.glob(f"arrow/{name}-*")) + sorted((folder / name).rglob("*"))
        keys = {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
        remembered = Remembered(str(folder), name)
        own = {
            key: remembered.of_file(path, key) or ""
            for key, path in keys.items()
            if of_data_set(name, key)
        }
        sums = read_sums(storage, name)
        same = _same_there(folder, storage, name, own, sums, there)
        if same == set(own):
            continue
        if sums:
            storage.remove(sums_object(name))  # they hold for no mixture of old and new files
        for key in own:
            if key not in same:
                storage.put(keys[key], key)
        write_sums(storage, name, own)


def _same_there(
    folder: Path,
    storage: Storage,
    name: str,
    own: dict[str, str],
    sums: dict[str, str],
    there: dict[str, Stamp],
) -> set[str]:
    """Which of this folder's files are on the store with the same content."""
    same = {key for key in own if key in there and _same_size(folder / key, there[key][0])}
    if sums:
        return {key for key in same if sums.get(key) == own[key]}
    if folder == node_folder(storage.address):  # this folder's files came from there
        return same
    read = Remembered(storage.address, name)
    return {key for key in same if read.of_object(storage, key, there[key]) == own[key]}


def refuse_unchecked(study: Study) -> None:
    """Refuse jobs that read files of unknown content.

    Such files are identified by their bytes, and not every node has them if the folder is on an
    object store.

    Raises:
        InputError: a job reads a data set with checksum=any, or own text.
    """
    for job in study.in_cluster:
        data = job.recipe["config"]["data"]
        if data.get("checksum") == "any" or data.get("format") == "text":
            key = "checksum=any" if data.get("checksum") == "any" else "format=text"
            raise InputError(
                f"{job.label}: data.{key} is for --out and --data in folders that all machines "
                "share; on an object store use the published files, or name a shared folder"
            )


def _same_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process of this node in at a time; the lock ends with the process."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
