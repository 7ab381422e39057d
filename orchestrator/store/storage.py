"""An output folder on an object store (`--out s3://bucket/prefix`), through pyarrow.fs. Pure.

An object store has no rename and no lock, but an object appears as a whole or not at all. So jobs
work in folders on their own node and upload the files that others need, in an order that makes the
last object the commit: a checkpoint's state before its manifest, a job's result after all its other
files. If the node is lost, only what was not committed is lost with it.

Objects are read through pyarrow and written through `Uploads`, so that an interrupted upload leaves
nothing.

If the store does not serve an operation, it is retried (orchestrator.store.patience). The
exceptions are the start of a command, when a person waits for an answer, and background work, which
comes round again anyway.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyarrow import ArrowException, fs

from gdas.errors import InputError, one_line
from orchestrator.experiment.credentials import refuse_credentials
from orchestrator.store.bucket import BucketUploads, Uploads
from orchestrator.store.patience import Patience

THREADS = 8

Stamp = tuple[int, int]
"""An object's size in bytes and modification time in ns; if either differs, it has changed."""


def is_address(out: str | Path) -> bool:
    """Whether `out` is the address of an object store, not the path of a folder."""
    return "://" in str(out)


def join(address: str, name: str) -> str:
    """Append `name` to an address's path, before its options.

    `join("s3://b/p?region=x", "jobs")` is `"s3://b/p/jobs?region=x"`.
    """
    path, mark, options = address.partition("?")
    return f"{path.rstrip('/')}/{name}{mark}{options}"


def open_storage(address: str, *, option: str = "--out") -> Storage:
    """Open the folder at an address, which need not exist yet; no request is sent to the store.

    Args:
        option: the command line option that gave the address, for the error.

    Raises:
        InputError: the address is malformed, or of a kind that pyarrow does not know.
    """
    refuse_credentials(option, address)
    scheme, _, path = address.partition("?")[0].partition("://")
    if "//" in path:
        fix = f"{scheme}://{re.sub('/+', '/', path)}"
        raise InputError(f"{option} {address}: has an empty part; must be such as {fix}")
    files = Files(address)
    try:
        root = files.open()
    except (ArrowException, OSError, ValueError) as error:
        text = one_line(error, 200)
        raise InputError(f"{option} {address}: cannot be opened ({text})") from None
    bucket = root.strip("/").partition("/")[0]
    uploads = BucketUploads(address, bucket, getattr(files.now, "region", None))

    def renew() -> None:
        files.open()
        uploads.renew()

    patience = Patience(f"{scheme}://{bucket}", renew)
    return Storage(files, root.rstrip("/"), address, uploads, patience)


class Files:
    """An address's pyarrow file system, which can be opened again with newer credentials.

    Attributes:
        address: what is opened.
        now: the file system, once it was opened.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.now: Any = None

    def open(self) -> str:
        """Open the file system; returns the path of the address in it."""
        self.now, root = fs.FileSystem.from_uri(self.address)
        return str(root)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.now, name)


@dataclass(frozen=True)
class Storage:
    """A folder on an object store.

    Attributes:
        files: the pyarrow file system, which reads, lists and deletes.
        root: the folder's path in it, starting with the bucket.
        address: what `open_storage` takes, on this node and on others.
        uploads: what writes.
        patience: how operations are retried.
    """

    files: Any
    root: str
    address: str
    uploads: Uploads
    patience: Patience = field(default_factory=Patience, compare=False)

    def under(self, name: str) -> Storage:
        """The subfolder `name`, which need not exist; no request is sent."""
        folder, address = f"{self.root}/{name}", join(self.address, name)
        return Storage(self.files, folder, address, self.uploads, self.patience)

    def listing(self, *, patience: float | None = None) -> dict[str, Stamp]:
        """List every object below this folder, by its name relative to the folder.

        Args:
            patience: seconds to retry if the store does not answer; the usual ones if None.

        Raises:
            OSError: the store does not answer.
        """
        selector = fs.FileSelector(self.root, recursive=True, allow_not_found=True)
        found = self.patience.tried("read", lambda: self.files.get_file_info(selector), patience)
        cut = len(self.root) + 1
        return {
            info.path[cut:]: (info.size, info.mtime_ns or 0)
            for info in found
            if info.type == fs.FileType.File and not info.path.endswith("/")
        }

    def read(self, name: str, *, patience: float | None = None) -> bytes:
        """Read an object's bytes.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: the store does not answer.
        """

        def get() -> bytes:
            with self.files.open_input_stream(f"{self.root}/{name}") as stream:
                content: bytes = stream.read()
            return content

        return self.patience.tried("read", get, patience)

    def write(self, name: str, content: bytes, *, patience: float | None = None) -> None:
        """Create or replace an object, atomically.

        Raises:
            OSError: the store does not answer; an earlier object of that name is unchanged.
        """
        key = f"{self.root}/{name}"
        self.patience.tried("write", lambda: self.uploads.put(key, content), patience)

    def sha256(self, name: str) -> str:
        """SHA-256 of an object's content, which is read for it."""

        def digest() -> str:
            sha = hashlib.sha256()
            with self.files.open_input_stream(f"{self.root}/{name}") as stream:
                while piece := stream.read(1 << 22):
                    sha.update(piece)
            return sha.hexdigest()

        return self.patience.tried("read", digest)

    def fetch(
        self, name: str, path: Path, check: Callable[[Path], None] = lambda path: None
    ) -> None:
        """Download an object to a file, which never exists half-written.

        Args:
            name: the object.
            path: the file; an earlier one is replaced only by a whole one that `check` accepts.
            check: is called with the downloaded file before it gets its name.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}.partial")

        def get() -> None:
            with (
                self.files.open_input_stream(f"{self.root}/{name}") as stream,
                beside.open("wb") as file,
            ):
                shutil.copyfileobj(stream, file, 1 << 22)

        try:
            self.patience.tried("read", get)
            check(beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def put(self, path: Path, name: str, *, patience: float | None = None) -> None:
        """Upload a file, which may not fit in memory; the object appears as a whole.

        Raises:
            OSError: the file cannot be read, or the store does not answer; an earlier object of
                that name is unchanged.
        """
        key = f"{self.root}/{name}"
        self.patience.tried("write", lambda: self.uploads.put_file(key, path), patience)

    def remove(self, name: str, *, patience: float | None = None) -> None:
        """Delete an object; it is no error if there is none."""

        def delete() -> None:
            try:
                self.files.delete_file(f"{self.root}/{name}")
            except FileNotFoundError:
                return

        self.patience.tried("write", delete, patience)

    def fetch_all(self, names: Iterable[str], folder: Path) -> None:
        """Download objects to files of the same names below a folder."""
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda name: self.fetch(name, folder / name), names))


def work_folder() -> Path:
    """Make a temporary folder for this process, and remove those of processes that have ended."""
    root = Path(tempfile.gettempdir()) / f"gdas-work-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    for old in root.iterdir():
        pid = old.name.partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))


def cache_folder() -> Path:
    """The folder that this node keeps between commands: GDAS_CACHE, or ~/.cache/gdas."""
    return Path(os.environ.get("GDAS_CACHE") or Path.home() / ".cache" / "gdas")
