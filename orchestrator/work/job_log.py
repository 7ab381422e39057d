"""A job's own output, kept in its folder: what it prints, a line per segment, and its errors.

The file is kept to its last MiB. What the job prints goes on to where it went before, too.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import TextIOBase
from typing import TextIO

from gdas.distributed import workers
from orchestrator.store.failure import read_failure
from orchestrator.store.job_folder import LOG, JobFolder
from orchestrator.store.results import Record

MOST = 1 << 20
"""Bytes of a log; when it has twice as many, the older half is dropped."""


class Both(TextIOBase):
    """Writes to a stream and to a job's log."""

    def __init__(self, stream: TextIO, folder: JobFolder) -> None:
        self.stream, self.folder = stream, folder

    def write(self, text: str) -> int:
        """Write the text to both."""
        append(self.folder, text)
        return self.stream.write(text)

    def flush(self) -> None:
        """Flush the stream; the log needs none."""
        self.stream.flush()

    def fileno(self) -> int:
        """The stream's."""
        return self.stream.fileno()


def append(folder: JobFolder, text: str) -> None:
    """Add text to a job's log; a log that cannot be written is nobody's failure."""
    path = folder.path / LOG
    with suppress(OSError):
        with path.open("ab") as file:
            file.write(text.encode(errors="replace"))
            long = file.tell() > 2 * MOST
        if long:
            _, _, kept = path.read_bytes()[-MOST:].partition(b"\n")
            path.write_bytes(kept)


def say(folder: JobFolder, line: str) -> None:
    """Add a line with the time to a job's log."""
    append(folder, f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")


def say_segment(folder: JobFolder, record: Record) -> None:
    """Add a segment's line, and publish the log."""
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in record["metrics"].items())
    say(folder, f"segment {record['position']} of {record['of']}: {metrics}")
    publish(folder)


def publish(folder: JobFolder) -> None:
    """Make the log visible to all."""
    with suppress(OSError):
        if (folder.path / LOG).exists():
            folder.publish(LOG)


@contextmanager
def logged(folder: JobFolder, where: str) -> Iterator[None]:
    """Keep what the block prints in the job's log, and the traceback of an error.

    Only the first of several workers writes.

    Args:
        where: the process and device, for the first line, which also says how the process before
            died if it could not say so itself.
    """
    if workers().rank > 0:
        yield
        return
    failure = read_failure(folder.place)  # of a process that died, which could not write it here
    before = f" (before: {failure.error})" if failure and not failure.traceback else ""
    say(folder, f"starts: {where}{before}")
    try:
        with (
            redirect_stdout(Both(sys.stdout, folder)),
            redirect_stderr(Both(sys.stderr, folder)),
        ):
            yield
    except Exception:
        append(folder, traceback.format_exc())
        raise
    finally:
        say(folder, "ends")
        publish(folder)
