"""Where an output folder, or one job's, lies: in a folder, or on an object store. Pure.

The rest of the store asks a `Place` and never which of the two it is. In a folder that all machines
see, a file that is written is there. On an object store a process works in a copy on its own
machine, and what it wrote counts once it is published.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from orchestrator.store.storage import (
    Stamp,
    Storage,
    cache_folder,
    is_address,
    open_storage,
    work_folder,
)

OWNER = "owner.json"
"""Which start of a job may commit; on an object store only."""
MANIFEST = "manifest.json"
"""Commits a checkpoint (`gdas.checkpoint`)."""


class TakenOver(RuntimeError):
    """A later start of the same job, on another node, has taken it over."""


def everything(name: str) -> bool:
    """Wants every file."""
    return True


class Place(Protocol):
    """A folder as this process and all other machines of a study see it.

    Names of files are relative to it, with slashes. Every method that asks an object store raises
    OSError if the store does not answer; `patience` is how many seconds that is waited for.
    """

    @property
    def path(self) -> Path:
        """Where this process reads and writes: the folder itself, or its copy."""

    @property
    def address(self) -> str:
        """The folder's name on any machine, for people too."""

    def address_of(self, name: str) -> str:
        """The same of a file or folder in it."""

    def beside(self, name: str) -> str:
        """The address of another folder in the folder that this one is in."""

    def under(self, name: str) -> Place:
        """A folder in it."""

    def kept_here(self, name: str) -> Path:
        """A folder of this machine for files that can be made again, the same at every start."""

    def listing(self) -> dict[str, Stamp]:
        """Every file below, whoever wrote it."""

    def read(self, name: str, *, patience: float | None = None) -> bytes:
        """A file's content as it is now for all; FileNotFoundError if there is none."""

    def pull(
        self, wanted: Callable[[str], bool] = everything, *, patience: float | None = None
    ) -> None:
        """Bring the files of the wanted names in `path` up to date."""

    def publish(self, name: str) -> None:
        """A file, or all of a folder, that this process wrote in `path` counts from here on."""

    def remove(self, name: str) -> None:
        """Remove a file for all; it may be gone already."""

    def claim(self, token: str) -> None:
        """From here on no start of the job that claimed it earlier can commit a checkpoint."""

    def commit_checkpoint(self, position: int, token: str) -> None:
        """The checkpoint counts from here on; positions that are not in `path` go.

        Raises:
            TakenOver: by a later start of this job.
        """

    def fetch_checkpoint(self, below: int | None) -> int | None:
        """Bring the newest committed checkpoint of a position lower than `below` into `path`.

        Returns:
            Its position; None if there is nothing to bring.
        """


def open_place(address: str | Path, copy: str = "") -> Place:
    """The folder of that name, which need not exist yet; nothing is asked of an object store.

    Args:
        copy: where below a fresh folder of this machine the copy of an object store's is made.

    Raises:
        InputError: the address cannot be opened.
    """
    if not is_address(address):
        return LocalFolder(Path(address))
    path = work_folder() / copy
    path.mkdir(parents=True, exist_ok=True)
    return ObjectFolder(open_storage(str(address)), path)


@dataclass(frozen=True)
class LocalFolder:
    """A folder that all machines of the study see; what is written in it counts at once.

    A job in it needs no claim: the lease leaves one driver, which starts no job twice.
    """

    path: Path

    @property
    def address(self) -> str:
        return str(self.path)

    def address_of(self, name: str) -> str:
        return str(self.path / name)

    def beside(self, name: str) -> str:
        return str(self.path.parent / name)

    def under(self, name: str) -> LocalFolder:
        return LocalFolder(self.path / name)

    def kept_here(self, name: str) -> Path:
        return self.path

    def listing(self) -> dict[str, Stamp]:
        return {name: _stamp(self.path / name) for name in files_below(self.path)}

    def read(self, name: str, *, patience: float | None = None) -> bytes:
        return (self.path / name).read_bytes()

    def pull(
        self, wanted: Callable[[str], bool] = everything, *, patience: float | None = None
    ) -> None:
        return

    def publish(self, name: str) -> None:
        return

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def claim(self, token: str) -> None:
        return

    def commit_checkpoint(self, position: int, token: str) -> None:
        return

    def fetch_checkpoint(self, below: int | None) -> int | None:
        return None


@dataclass(frozen=True)
class ObjectFolder:
    """A folder on an object store, and its copy on this machine.

    Attributes:
        storage: the folder on the store.
        path: the copy, which need not have all.
        stamps: what the copied objects were like.
    """

    storage: Storage
    path: Path
    stamps: dict[str, Stamp] = field(default_factory=dict, compare=False)
    pulling: threading.Lock = field(default_factory=threading.Lock, compare=False)

    @property
    def address(self) -> str:
        return self.storage.address

    def address_of(self, name: str) -> str:
        return self.storage.under(name).address

    def beside(self, name: str) -> str:
        path, mark, options = self.address.partition("?")
        return f"{path.rpartition('/')[0]}/{name}{mark}{options}"

    def under(self, name: str) -> ObjectFolder:
        return ObjectFolder(self.storage.under(name), self.path / name)

    def kept_here(self, name: str) -> Path:
        own = "".join(c if c.isalnum() else "-" for c in self.address)
        folder = cache_folder() / name / own
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def listing(self) -> dict[str, Stamp]:
        return self.storage.listing()

    def read(self, name: str, *, patience: float | None = None) -> bytes:
        return self.storage.read(name, patience=patience)

    def pull(
        self, wanted: Callable[[str], bool] = everything, *, patience: float | None = None
    ) -> None:
        with self.pulling:
            found = self.storage.listing(patience=patience)
            there = {name: stamp for name, stamp in found.items() if wanted(name)}
            for name in {name for name in self.stamps if wanted(name)} - set(there):
                (self.path / name).unlink(missing_ok=True)
                del self.stamps[name]
            changed = [name for name, stamp in there.items() if self.stamps.get(name) != stamp]
            self.storage.fetch_all(changed, self.path)
            for name in changed:  # what happened first is told by their times
                os.utime(self.path / name, ns=(there[name][1], there[name][1]))
            self.stamps.update({name: there[name] for name in changed})

    def publish(self, name: str) -> None:
        inside = files_below(self.path / name) if (self.path / name).is_dir() else None
        for file in [name] if inside is None else sorted(f"{name}/{each}" for each in inside):
            self.storage.put(self.path / file, file)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)
        self.storage.remove(name)

    def claim(self, token: str) -> None:
        self.storage.write(OWNER, json.dumps({"token": token}).encode())

    def commit_checkpoint(self, position: int, token: str) -> None:
        if json.loads(self.storage.read(OWNER)).get("token") != token:
            raise TakenOver("another start of this job has taken over; this one ends")
        there = self.storage.under("checkpoints")
        own, here, names = f"{position:06d}", self.path / "checkpoints", there.listing()
        if f"{own}/{MANIFEST}" in names:
            there.remove(f"{own}/{MANIFEST}")
        for file in ("state.pt", MANIFEST):
            there.put(here / own / file, f"{own}/{file}")
        for old in sorted(names):  # each manifest before its state
            if not (here / old).parent.is_dir():
                there.remove(old)

    def fetch_checkpoint(self, below: int | None) -> int | None:
        there = self.storage.under("checkpoints")
        names = there.listing()
        committed = {name.partition("/")[0] for name in names if name.endswith(f"/{MANIFEST}")}
        positions = [int(n) for n in committed if n.isdigit() and f"{n}/state.pt" in names]
        older = [position for position in positions if below is None or position < below]
        if not older:
            return None
        own = f"{max(older):06d}"
        there.fetch_all([f"{own}/state.pt", f"{own}/{MANIFEST}"], self.path / "checkpoints")
        return max(older)


def files_below(folder: Path) -> Iterator[str]:
    """The names of all files below a folder; links to folders are not followed."""
    for root, _, names in os.walk(folder):
        for name in names:
            if (file := Path(root) / name).is_file():
                yield file.relative_to(folder).as_posix()


def _stamp(file: Path) -> Stamp:
    status = file.stat()
    return status.st_size, status.st_mtime_ns
