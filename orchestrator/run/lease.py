"""The lease of an output folder: one driver at a time.

`OUT/lease.json` names the driver and is rewritten every few seconds as a heartbeat. In a folder,
the driver also holds a file lock on it, which the system frees when the driver dies. The heartbeat
is for machines that do not share locks, and for file systems that have none: there, of drivers that
start at one moment, the last one to write goes on.

On an object store every write is a compare-and-swap (orchestrator.store.conditional): a driver can
take the lease only by replacing the version that it has read. So if several drivers try at once,
exactly one gets it. A driver that was slow, asleep or cut off learns at its next heartbeat that it
was replaced, and ends instead of overwriting its successor's lease.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from gdas.errors import InputError, one_line
from orchestrator.run.process import repeatedly
from orchestrator.store.conditional import Changed, ConditionalObject, Version, conditional_object
from orchestrator.store.holder import (
    DEAD_AFTER_S,
    LEASE,
    LEASE_BYTES,
    Holder,
    changes,
    holder_of,
    lives,
    this_process,
)
from orchestrator.store.storage import is_address, open_storage
from orchestrator.store.store import Store

HEARTBEAT_S = 5.0
REMOTE_HEARTBEAT_S = 10.0
SETTLED_S = 1.0  # without locks: how long another's write may take to be seen
FREE = b"{}".ljust(LEASE_BYTES)
"""The content of an object store's lease after its driver has ended."""
TRIES = 10  # if others write between each of our reads and writes, several drivers compete
HELD = (errno.EAGAIN, errno.EACCES)
"""What `flock` says of a lock that another process holds; anything else means: no locks here."""


@contextmanager
def lease(store: Store) -> Iterator[None]:
    """Hold the lease of the output folder, so that there is one driver at a time.

    Raises:
        InputError: another living process holds it (the error names host and process), the folder
            cannot be written to, or the object store does not answer.
    """
    if not is_address(store.address):
        with _held_folder(store.out):
            yield
        return
    there = conditional_object(open_storage(store.address), LEASE)
    with held_object(there, store.address, _lost):
        store.refresh(whole=True)
        yield


@contextmanager
def _held_folder(out: Path) -> Iterator[None]:
    path, token = out / LEASE, uuid.uuid4().hex
    try:
        path.touch()
        file = path.open("r+b")
    except OSError as error:
        raise InputError(
            f"--out {out}: cannot be written to ({error.strerror}); name a folder of your own"
        ) from None
    with file:
        lock = _lock(file.fileno())
        found = file.read(LEASE_BYTES)
        holder = holder_of(found)
        if lock == "held" or (holder and _drives(path, holder, found, lock)):
            raise _driven(str(out), holder, "wait for it, stop it, or name another folder")
        _write(path, token)
        if lock == "none":
            time.sleep(SETTLED_S)
            if holder_of(path.read_bytes()).get("token") != token:
                raise _driven(str(out), {}, "several want it at this moment; try again")
        lost = False

        def beat() -> None:
            nonlocal lost
            if not lost:
                lost = not _beaten(path, token)

        try:
            with repeatedly(beat, HEARTBEAT_S, "lease"):
                yield
        finally:
            if not lost:
                with suppress(OSError):
                    os.truncate(path, 0)


def _lock(file: int) -> Literal["ours", "held", "none"]:
    """Lock the lease: ours now, held by another process, or there are no locks here."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return "held" if error.errno in HELD else "none"
    return "ours"


def _drives(path: Path, holder: Holder, found: bytes, lock: str) -> bool:
    """Whether the driver that a lease names still drives the study."""
    known = lives(holder)
    if known is not None:
        return known and lock == "none"  # with locks here, ours shows that it holds none
    _say_wait(str(path.parent), holder)
    return changes(path.read_bytes, found, DEAD_AFTER_S, 1.0)


def _beaten(path: Path, token: str) -> bool:
    """Write the heartbeat; False if another driver has taken the lease.

    The file is opened each time, since a network file system shows others what was closed.
    """
    with suppress(OSError):
        if path.exists() and holder_of(path.read_bytes()).get("token", token) != token:
            _lost()
            return False
    _write(path, token)
    return True


def _write(path: Path, token: str) -> None:
    """Write the heartbeat: in place, so that on a full disk the previous one remains."""
    how = "r+b" if path.exists() else "wb"
    with suppress(OSError), path.open(how) as file:  # a full disk must not stop the study
        file.write(this_process(token))


def _say_wait(address: str, holder: Holder) -> None:
    print(
        f"note: {address}: process {holder.get('pid')} on {holder.get('host')} drove it last; up "
        f"to {DEAD_AFTER_S:.0f} s to see whether its heart still beats",
        file=sys.stderr,
        flush=True,
    )


@contextmanager
def held_object(there: ConditionalObject, address: str, lost: Callable[[], None]) -> Iterator[None]:
    """Hold a lease that is an object on an object store.

    Args:
        there: the lease.
        address: the address of the output folder, for the error.
        lost: called once, from the background thread, if another driver has taken the lease.

    Raises:
        InputError: another living driver holds it, or the store does not answer.
    """
    token = uuid.uuid4().hex
    try:
        mine: Version | None = _taken(there, address, token)
    except OSError as error:
        text = one_line(error, 200)
        raise InputError(f"--out {address}: cannot be written to ({text}); name another") from None

    def beat() -> None:
        nonlocal mine
        if mine is None:
            return
        with suppress(OSError):  # a store that does not answer must not stop the study
            mine = _replaced(there, this_process(token), mine, token)
            if mine is None:
                lost()

    try:
        with repeatedly(beat, REMOTE_HEARTBEAT_S, "lease"):
            yield
    finally:
        if mine is not None:
            with suppress(OSError):  # if it is not freed here, it expires
                _replaced(there, FREE, mine, token)


def _taken(there: ConditionalObject, address: str, token: str) -> Version:
    """Take the lease unless a living driver holds it; returns the version that was written."""
    for _ in range(TRIES):
        found = there.read()
        holder = holder_of(found[0]) if found else {}
        if found and holder and holder.get("token") != token:
            known = lives(holder)
            if known is None:
                _say_wait(address, holder)
                known = changes(lambda: (there.read() or (b"", {}))[0], found[0], DEAD_AFTER_S, 2.0)
            if known:
                raise _driven(address, holder, "wait for it, stop it, or name another folder")
        with suppress(Changed):  # another driver was quicker; read again who it is
            mine = there.write(this_process(token), found[1] if found else None)
            return _tried(there, address, token, mine)
    raise _driven(address, {}, "several want it at this moment; try again")


def _tried(there: ConditionalObject, address: str, token: str, mine: Version) -> Version:
    """Attempt a write that must be refused, since some stores ignore the condition."""
    with suppress(Changed):
        mine = there.write(this_process(token), None)
        print(
            f"note: {address}: this store ignores conditional writes, so two commands that start "
            "at one moment may both go on; start one at a time, or use a newer store",
            file=sys.stderr,
        )
    return mine


def _replaced(
    there: ConditionalObject, content: bytes, mine: Version, token: str
) -> Version | None:
    """Replace the version that this driver wrote.

    Returns:
        The new version; None if the lease is another driver's by now.
    """
    with suppress(Changed):
        return there.write(content, mine)
    # If the answer to an earlier write was lost, the current version may be this driver's own.
    found = there.read()
    if found is not None and holder_of(found[0]).get("token") != token:
        return None
    with suppress(Changed):
        return there.write(content, found[1] if found else None)
    return None


def _lost() -> None:
    print("another driver has taken this study over; this one ends", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def _driven(out: str, holder: Holder, advice: str) -> InputError:
    who = f"{holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown host')}"
    return InputError(f"--out {out}: driven by another living process ({who}); {advice}")
