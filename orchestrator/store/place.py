"""A place is an output folder or a job folder: a local folder or one on an object store. Pure.

The rest of the store asks a `Place` and never which of the two it is. In a folder that all machines
share, a file counts as soon as it is written. On an object store, a process works in a copy on its
own machine, and a file counts once it is uploaded (`publish`).
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
"""Holds the token of the only start of a job that may commit checkpoints (object stores only)."""
MANIFEST = "manifest.json"
"""A checkpoint's last file, whose presence commits it (`gdas.checkpoint`)."""


class TakenOver(RuntimeError):
    """A later start of the same job, on another node, has taken the job over."""


def everything(name: str) -> bool:
    """Accept every file name."""
    return True


class Place(Protocol):
    """A folder as this process and all other machines of a study see it.

    File names are relative to it, with slashes. Every method that sends requests to an object store
    raises OSError if the store does not answer; `patience` is how many seconds it is retried.
    """

    @property
    def path(self) -> Path:
        """Where this process reads and writes: the folder itself, or its local copy."""

    @property
    def address(self) -> str:
        """The folder's path or address, valid on any machine and readable for people."""

    def address_of(self, name: str) -> str:
        """The address of a file or subfolder."""

    def beside(self, name: str) -> str:
        """The address of a sibling folder."""

    def under(self, name: str) -> Place:
        """A subfolder."""

    def kept_here(self, name: str) -> Path:
        """A folder on this machine for files that can be made again, the same at every start."""

    def listing(self) -> dict[str, Stamp]:
        """List every file below, whichever process wrote it."""

    def read(self, name: str, *, patience: float | None = None) -> bytes:
        """Read a file's content as all machines see it; FileNotFoundError if there is none."""

    def pull(
        self,
        wanted: Callable[[str], bool] = everything,
        *,
        below: str = "",
        patience: float | None = None,
    ) -> None:
        """Bring those files in `path` up to date whose names `wanted` accepts.

        Args:
            below: a subfolder, with a slash at its end; files outside it are left as they are.
        """

    def publish(self, name: str) -> None:
        """Make a file or a whole subfolder that this process wrote in `path` visible to all."""

    def remove(self, name: str) -> None:
        """Remove a file for all; it is no error if there is none."""

    def claim(self, token: str) -> None:
        """Make `token` the only one that can commit checkpoints of this job from now on."""

    def commit_checkpoint(self, position: int, token: str) -> None:
        """Commit the checkpoint at `position`, and delete the positions that `path` no longer has.

        Raises:
            TakenOver: a later start of this job has claimed it.
        """

    def fetch_checkpoint(self, below: int | None) -> int | None:
        """Copy the newest committed checkpoint with a position lower than `below` into `path`.

        Returns:
            Its position; None if there is nothing to copy.
        """


def open_place(address: str | Path, copy: str = "") -> Place:
    """Open a folder, which need not exist yet; no request is sent to an object store.

    Args:
        copy: for an object store, the subfolder of a new temporary folder that the copy goes into.

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
    """A folder that all machines of the study share; a file in it counts as soon as it is written.

    Its jobs need no claim: the lease admits one driver, which starts no job twice.
    """

    path: Path

    @property
    def address(self) -> str:
        """The path, as text."""
        return str(self.path)

    def address_of(self, name: str) -> str:
        """The path of a file or subfolder."""
        return str(self.path / name)

    def beside(self, name: str) -> str:
        """The path of a sibling folder."""
        return str(self.path.parent / name)

    def under(self, name: str) -> LocalFolder:
        """A subfolder, which need not exist."""
        return LocalFolder(self.path / name)

    def kept_here(self, name: str) -> Path:
        """The folder itself: it is there at every start."""
        return self.path

    def listing(self) -> dict[str, Stamp]:
        """Size and modification time of every file below."""
        return {name: _stamp(self.path / name) for name in files_below(self.path)}

    def read(self, name: str, *, patience: float | None = None) -> bytes:
        """Read the file; there is nothing to wait for, so `patience` has no effect."""
        return (self.path / name).read_bytes()

    def pull(
        self,
        wanted: Callable[[str], bool] = everything,
        *,
        below: str = "",
        patience: float | None = None,
    ) -> None:
        """Do nothing: `path` is the folder itself."""
        return

    def publish(self, name: str) -> None:
        """Do nothing: a written file counts already."""
        return

    def remove(self, name: str) -> None:
        """Delete a file, if there is one."""
        (self.path / name).unlink(missing_ok=True)

    def claim(self, token: str) -> None:
        """Do nothing: the lease keeps a second start away."""
        return

    def commit_checkpoint(self, position: int, token: str) -> None:
        """Do nothing: the checkpoint's manifest has committed it."""
        return

    def fetch_checkpoint(self, below: int | None) -> int | None:
        """Return None: `path` has every checkpoint already."""
        return None


@dataclass(frozen=True)
class ObjectFolder:
    """A folder on an object store, and its copy on this machine.

    Attributes:
        storage: the folder on the store.
        path: the copy, which need not be complete.
        stamps: size and time of the objects when they were copied.
        pulling: lets one thread at a time update the copy.
    """

    storage: Storage
    path: Path
    stamps: dict[str, Stamp] = field(default_factory=dict, compare=False)
    pulling: threading.Lock = field(default_factory=threading.Lock, compare=False)

    @property
    def address(self) -> str:
        """The address with its options, as `open_place` takes it."""
        return self.storage.address

    def address_of(self, name: str) -> str:
        """The address of a file or subfolder, with the same options."""
        return self.storage.under(name).address

    def beside(self, name: str) -> str:
        """The address of a sibling folder, with the same options."""
        path, mark, options = self.address.partition("?")
        return f"{path.rpartition('/')[0]}/{name}{mark}{options}"

    def under(self, name: str) -> ObjectFolder:
        """A subfolder on the store; its copy lies in this folder's copy."""
        return ObjectFolder(self.storage.under(name), self.path / name)

    def kept_here(self, name: str) -> Path:
        """A folder in this node's cache, named after the address."""
        own = "".join(c if c.isalnum() else "-" for c in self.address)
        folder = cache_folder() / name / own
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def listing(self) -> dict[str, Stamp]:
        """List the objects, with one request for every thousand."""
        return self.storage.listing()

    def read(self, name: str, *, patience: float | None = None) -> bytes:
        """Read the object itself, not its copy."""
        return self.storage.read(name, patience=patience)

    def pull(
        self,
        wanted: Callable[[str], bool] = everything,
        *,
        below: str = "",
        patience: float | None = None,
    ) -> None:
        """Download the wanted objects that have changed; delete copies of removed ones."""
        with self.pulling:
            folder = self.storage.under(below.rstrip("/")) if below else self.storage
            found = {f"{below}{n}": s for n, s in folder.listing(patience=patience).items()}
            there = {name: stamp for name, stamp in found.items() if wanted(name)}
            known = {name for name in self.stamps if name.startswith(below) and wanted(name)}
            for name in known - set(there):
                (self.path / name).unlink(missing_ok=True)
                del self.stamps[name]
            changed = [name for name, stamp in there.items() if self.stamps.get(name) != stamp]
            self.storage.fetch_all(changed, self.path)
            for name in changed:  # readers order events by these times
                os.utime(self.path / name, ns=(there[name][1], there[name][1]))
            self.stamps.update({name: there[name] for name in changed})

    def publish(self, name: str) -> None:
        """Upload the file, or every file of the subfolder in the order of their names."""
        inside = files_below(self.path / name) if (self.path / name).is_dir() else None
        for file in [name] if inside is None else sorted(f"{name}/{each}" for each in inside):
            self.storage.put(self.path / file, file)

    def remove(self, name: str) -> None:
        """Delete the object and its copy."""
        (self.path / name).unlink(missing_ok=True)
        self.storage.remove(name)

    def claim(self, token: str) -> None:
        """Write `token` to owner.json, which every later commit checks."""
        self.storage.write(OWNER, json.dumps({"token": token}).encode())

    def commit_checkpoint(self, position: int, token: str) -> None:
        """Upload state.pt, then the manifest that commits it; delete old positions.

        Raises:
            TakenOver: owner.json holds another token.
        """
        if json.loads(self.storage.read(OWNER)).get("token") != token:
            raise TakenOver("another start of this job has taken over; this one ends")
        there = self.storage.under("checkpoints")
        own, here, names = f"{position:06d}", self.path / "checkpoints", there.listing()
        if f"{own}/{MANIFEST}" in names:
            there.remove(f"{own}/{MANIFEST}")
        for file in ("state.pt", MANIFEST):
            there.put(here / own / file, f"{own}/{file}")
        for old in sorted(names):  # a manifest sorts before its state and goes first
            if not (here / old).parent.is_dir():
                there.remove(old)

    def fetch_checkpoint(self, below: int | None) -> int | None:
        """Download the newest position below `below` that has both its state and its manifest."""
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
    """Yield the relative names of all files below a folder; links to folders are not followed."""
    for root, _, names in os.walk(folder):
        for name in names:
            if (file := Path(root) / name).is_file():
                yield file.relative_to(folder).as_posix()


def _stamp(file: Path) -> Stamp:
    status = file.stat()
    return status.st_size, status.st_mtime_ns
