"""An output folder on an object store (`--out s3://bucket/prefix`), through pyarrow.fs. Pure.

An object store has no rename and no lock; an object appears whole or not at all. So work happens in
folders of the node, and what counts is copied up, in an order that makes its last object the
commit: a checkpoint's state before its manifest, a job's result after all else. What was not
committed is lost with the node, and no more.

A store that is away for a while is waited for (`PATIENCE_S`), except where somebody waits for an
answer: at the start of a command, and in what runs in the background anyway.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pyarrow import ArrowException, fs

from gdas.errors import InputError, one_line

PATIENCE_S = 300.0
"""How long an operation is tried again while the store does not answer."""
THREADS = 8
FINAL = re.compile("ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH")
"""Answers that waiting does not change."""

Stamp = tuple[int, int]
"""An object's size and time of change: what tells that it is another one."""
T = TypeVar("T")


def is_address(out: str | Path) -> bool:
    """Whether this names an object store and not a folder."""
    return "://" in str(out)


def join(address: str, name: str) -> str:
    """The address of what lies under another: s3://b/p?region=x and jobs: s3://b/p/jobs?region=x."""
    path, mark, options = address.partition("?")
    return f"{path.rstrip('/')}/{name}{mark}{options}"


def open_storage(address: str, *, option: str = "--out") -> Storage:
    """The folder at an address, which need not exist yet; nothing is asked of the store.

    Raises:
        InputError: the address is not one, or of a kind that pyarrow does not know.
    """
    try:
        files, root = fs.FileSystem.from_uri(address)
    except (ArrowException, OSError, ValueError) as error:
        text = one_line(error, 200)
        raise InputError(f"{option} {address}: cannot be opened ({text})") from None
    return Storage(files, root.rstrip("/"), address)


@dataclass(frozen=True)
class Storage:
    """A folder on an object store.

    Attributes:
        files: the file system.
        root: the folder's path in it, bucket first.
        address: as `open_storage` takes it, on this node and on others.
    """

    files: Any
    root: str
    address: str

    def under(self, name: str) -> Storage:
        return Storage(self.files, f"{self.root}/{name}", join(self.address, name))

    def listing(self, *, patience: float | None = None) -> dict[str, Stamp]:
        """Every object below, by its name relative to here."""
        selector = fs.FileSelector(self.root, recursive=True, allow_not_found=True)
        found = self._tried(lambda: self.files.get_file_info(selector), patience)
        cut = len(self.root) + 1
        return {
            info.path[cut:]: (info.size, info.mtime_ns or 0)
            for info in found
            if info.type == fs.FileType.File and not info.path.endswith("/")
        }

    def read(self, name: str, *, patience: float | None = None) -> bytes:
        """An object's bytes.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: the store does not answer.
        """

        def get() -> bytes:
            with self.files.open_input_stream(f"{self.root}/{name}") as stream:
                content: bytes = stream.read()
            return content

        return self._tried(get, patience)

    def write(self, name: str, content: bytes, *, patience: float | None = None) -> None:
        """Make or replace an object, as a whole.

        Raises:
            OSError: the store does not answer; what was there before still is.
        """

        def put() -> None:
            with self.files.open_output_stream(f"{self.root}/{name}") as stream:
                stream.write(content)

        self._tried(put, patience)

    def fetch(self, name: str, path: Path) -> None:
        """Copy an object to a file, which is never seen half-written."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}.partial")

        def get() -> None:
            with (
                self.files.open_input_stream(f"{self.root}/{name}") as stream,
                beside.open("wb") as file,
            ):
                shutil.copyfileobj(stream, file, 1 << 22)

        try:
            self._tried(get, None)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def put(self, path: Path, name: str) -> None:
        """Copy a file to an object."""
        self.write(name, path.read_bytes())

    def put_large(self, path: Path, name: str) -> None:
        """The same in parts, for a file that may not fit in memory."""

        def send() -> None:
            with path.open("rb") as file:
                stream = self.files.open_output_stream(f"{self.root}/{name}")
                shutil.copyfileobj(file, stream, 1 << 23)
                stream.close()  # commits: only once all of it was sent

        self._tried(send, None)

    def remove(self, name: str) -> None:
        """Delete an object; it may be gone already."""

        def delete() -> None:
            try:
                self.files.delete_file(f"{self.root}/{name}")
            except FileNotFoundError:
                return

        self._tried(delete, None)

    def fetch_all(self, names: Iterable[str], folder: Path) -> None:
        """Copy objects to files of the same names below a folder."""
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda name: self.fetch(name, folder / name), names))

    def _tried(self, action: Callable[[], T], patience: float | None) -> T:
        """What `action` returns, tried again while the store does not answer."""
        end = time.monotonic() + (PATIENCE_S if patience is None else patience)
        wait = 0.5
        while True:
            try:
                return action()
            except FileNotFoundError:
                raise
            except OSError as error:
                if FINAL.search(str(error)) or time.monotonic() + wait > end:
                    raise
            time.sleep(wait)
            wait = min(2 * wait, 10.0)


def work_folder() -> Path:
    """A fresh folder of this process on this node; those of processes that ended are removed."""
    root = Path(tempfile.gettempdir()) / f"gdas-work-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    for old in root.iterdir():
        pid = old.name.partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))


def cache_folder() -> Path:
    """What this node keeps between commands: GDAS_CACHE, or ~/.cache/gdas."""
    return Path(os.environ.get("GDAS_CACHE") or Path.home() / ".cache" / "gdas")
