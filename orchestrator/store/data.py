"""Data sets of a study whose output folder or `--data` is on an object store. Pure.

The driver converts and verifies a data set once and uploads the converted files. Every node
downloads a data set once, however many trials run on it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gdas.data.settings import TableData
from gdas.data.shard_index import INDEX
from gdas.errors import InputError, one_line
from orchestrator.experiment.study import Study
from orchestrator.store.results import JobSettings
from orchestrator.store.storage import Storage, cache_folder, is_address, open_storage


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
        InputError: the store does not answer.
    """
    storage, folder = open_storage(address, option="--data"), node_folder(address)
    try:
        there = storage.listing(patience=0.0)
        storage.fetch_all([key for key in there if key.endswith((f"/{INDEX}", ".csv"))], folder)
    except OSError as problem:
        raise InputError(f"{address}: does not answer ({one_line(problem, 200)})") from None
    return folder


def node_folder(address: str) -> Path:
    """Where this node keeps what it downloaded from an address."""
    return cache_folder() / "data" / hashlib.sha256(address.encode()).hexdigest()[:12]


def fetched(address: str, names: list[str]) -> Path:
    """Download the files of data sets that this node lacks; one process does, others wait for it.

    Raises:
        OSError: the store does not answer.
    """
    storage, folder = open_storage(address, option="--data"), node_folder(address)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        with _alone(folder / f".{name}.lock"):
            there = storage.listing()
            wanted = [
                key
                for key, (size, _) in there.items()
                if of_data_set(name, key) and not _same_size(folder / key, size)
            ]
            storage.fetch_all(wanted, folder)
    return folder


def publish(folder: Path, storage: Storage, names: list[str]) -> None:
    """Upload the converted files of data sets, except those that are on the store already."""
    there = storage.listing()
    for name in names:
        for path in sorted(folder.glob(f"arrow/{name}-*")) + sorted((folder / name).rglob("*")):
            key = path.relative_to(folder).as_posix()
            if path.is_file() and of_data_set(name, key):
                size = path.stat().st_size
                if there.get(key, (-1, 0))[0] != size:
                    storage.put_large(path, key)


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
