"""The lease of an output folder: one driver at a time.

`OUT/lease.json` names the driver and is rewritten every few seconds as a heartbeat. In a folder,
the driver also holds a file lock on it, which the system frees when the driver dies; the heartbeat
is for machines that do not share locks.

On an object store every write is a compare-and-swap (orchestrator.store.conditional): a driver can
take the lease only by replacing the version that it has read. So if several drivers try at once,
exactly one gets it. A driver that was slow, asleep or cut off learns at its next heartbeat that it
was replaced, and ends instead of overwriting its successor's lease.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gdas.errors import InputError, one_line
from orchestrator.run.process import repeatedly
from orchestrator.store.conditional import Changed, ConditionalObject, Version, conditional_object
from orchestrator.store.storage import is_address, open_storage
from orchestrator.store.store import DEAD_AFTER_S, LEASE, Store

HEARTBEAT_S = 5.0
REMOTE_HEARTBEAT_S = 10.0
LEASE_BYTES = 512
"""The length of every lease's content. A reader that asks for an object's size before it reads the
object would get a part of one that has grown in between."""
FREE = b"{}".ljust(LEASE_BYTES)
"""The content of an object store's lease after its driver has ended."""
TRIES = 10  # if others write between each of our reads and writes, several drivers compete


@contextmanager
def lease(store: Store) -> Iterator[None]:
    """Hold the lease of the output folder, so that there is one driver at a time.

    Raises:
        InputError: another living process holds it (the error names host and process), or the
            object store does not answer.
    """
    if not is_address(store.address):
        with _held_folder(store.out):
            yield
        return
    there = conditional_object(open_storage(store.address), LEASE)
    with held_object(there, store.address, _lost):
        store.refresh(manifests=True)
        yield


@contextmanager
def _held_folder(out: Path) -> Iterator[None]:
    path = out / LEASE
    path.touch()
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except OSError:
            locked = False
        holder = _holder(file.read(LEASE_BYTES))
        elsewhere = holder.get("host", socket.gethostname()) != socket.gethostname()
        if not locked or (elsewhere and _beating(holder)):
            raise _driven(str(out), holder, "wait for it, stop it, or name another folder")

        def beat() -> None:
            # Overwrites in place, so that on a full disk the previous heartbeat remains.
            with suppress(OSError):  # a full disk must not stop the study
                os.pwrite(file.fileno(), _me(), 0)

        beat()
        try:
            with repeatedly(beat, HEARTBEAT_S, "lease"):
                yield
        finally:
            file.truncate(0)


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
            mine = _replaced(there, _me(token), mine, token)
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
        holder = _holder(found[0]) if found else {}
        if holder.get("token") != token and _beating(holder):
            age = max(time.time() - holder["heartbeat"], 0)
            advice = f"its heartbeat is {age:.0f} s old; wait {DEAD_AFTER_S:.0f} s if it is dead"
            raise _driven(address, holder, f"{advice}, stop it, or name another folder")
        with suppress(Changed):  # another driver was quicker; read again who it is
            mine = there.write(_me(token), found[1] if found else None)
            return _tried(there, address, token, mine)
    raise _driven(address, {}, "several want it at this moment; try again")


def _tried(there: ConditionalObject, address: str, token: str, mine: Version) -> Version:
    """Attempt a write that must be refused, since some stores ignore the condition."""
    with suppress(Changed):
        mine = there.write(_me(token), None)
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
    if found is not None and _holder(found[0]).get("token") != token:
        return None
    with suppress(Changed):
        return there.write(content, found[1] if found else None)
    return None


def _lost() -> None:
    print("another driver has taken this study over; this one ends", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def _me(token: str | None = None) -> bytes:
    """The content of this process's lease now."""
    me = {"host": socket.gethostname(), "pid": os.getpid(), "heartbeat": time.time()}
    return json.dumps(me if token is None else me | {"token": token}).ljust(LEASE_BYTES).encode()


def _holder(content: bytes) -> dict[str, Any]:
    """The driver that the lease names; an empty dictionary if it is empty or damaged."""
    try:
        holder = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(holder, dict) or type(holder.get("heartbeat", 0)) not in (int, float):
        return {}
    return holder


def _beating(holder: dict[str, Any]) -> bool:
    return bool(time.time() - holder.get("heartbeat", 0) < DEAD_AFTER_S)


def _driven(out: str, holder: dict[str, Any], advice: str) -> InputError:
    who = f"{holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown host')}"
    return InputError(f"--out {out}: driven by another living process ({who}); {advice}")
