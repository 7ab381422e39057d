"""One driver at a time for an output folder."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from gdas.errors import InputError
from orchestrator.run.process import repeatedly
from orchestrator.run.remote_lease import hold
from orchestrator.store.storage import is_address, open_storage
from orchestrator.store.store import DEAD_AFTER_S, LEASE, Store

HEARTBEAT_S = 5.0
LEASE_BYTES = 512


@contextmanager
def lease(store: Store) -> Iterator[None]:
    """Hold the output folder: one driver at a time.

    A lock on lease.json, freed by the system when the holder dies, and a heartbeat in it for
    hosts that do not share locks.

    Raises:
        InputError: another living process holds it; names host and process.
    """
    if is_address(store.address):
        with hold(open_storage(store.address), _lease_lost):
            store.refresh(manifests=True)
            yield
        return
    path = store.out / LEASE
    path.touch()
    file = path.open("r+")
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except OSError:
            locked = False
        holder = _holder(file)
        elsewhere = holder.get("host", socket.gethostname()) != socket.gethostname()
        beating = time.time() - holder.get("heartbeat", 0) < DEAD_AFTER_S
        if not locked or (elsewhere and beating):
            raise InputError(
                f"--out {store.out}: driven by another living process "
                f"({holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown host')}); "
                "wait for it, stop it, or name another folder"
            )

        def write() -> None:
            holder = {"host": socket.gethostname(), "pid": os.getpid(), "heartbeat": time.time()}
            try:
                # Over what is there, so that a full disk leaves the heartbeat before it at worst.
                os.pwrite(file.fileno(), json.dumps(holder).ljust(LEASE_BYTES).encode(), 0)
            except OSError:
                return  # a full disk must not stop the study

        write()
        try:
            with repeatedly(write, HEARTBEAT_S, "lease"):
                yield
        finally:
            file.truncate(0)
    finally:
        file.close()


def _lease_lost() -> None:
    print("another driver has taken this study over; this one ends", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def _holder(file: TextIO) -> dict[str, Any]:
    """Who wrote the lease; nothing where it is empty or damaged."""
    try:
        holder = json.loads(file.read(LEASE_BYTES) or "{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(holder, dict) or type(holder.get("heartbeat", 0)) not in (int, float):
        return {}
    return holder
