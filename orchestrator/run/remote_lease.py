"""One driver at a time for a study on an object store. Pure.

pyarrow.fs has no conditional write, so the lease is written and read back: who finds its own token
after a pause holds it, and of two that wrote at once only the later does. A driver that slept
between its look and its write for longer than that pause could still take a held lease; the
holder's next heartbeat sees the strange token and its driver ends, and no job it started can commit
over a newer one's (`JobFolder.claim`). Hosts' clocks must agree to within half of `DEAD_AFTER_S`.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gdas.errors import InputError, one_line
from orchestrator.run.process import repeatedly
from orchestrator.store.storage import Storage
from orchestrator.store.store import DEAD_AFTER_S, LEASE

HEARTBEAT_S = 10.0
PAUSE_S = 2.0
SHORT_S = 20.0  # how long an answer is waited for


@contextmanager
def hold(storage: Storage, lost: Callable[[], None]) -> Iterator[None]:
    """Hold the lease of a study.

    Args:
        lost: called once, in the background, if another driver took it.

    Raises:
        InputError: another living driver holds it, or the store does not answer.
    """
    token = uuid.uuid4().hex
    try:
        _refuse(storage, _read(storage), token)
        _write(storage, token)
        time.sleep(PAUSE_S)
        _refuse(storage, _read(storage), token)
    except OSError as error:
        text = one_line(error, 200)
        raise InputError(f"--out {storage.address}: cannot be written to ({text})") from None
    told = False

    def beat() -> None:
        nonlocal told
        try:
            if _read(storage).get("token", token) != token:
                if not told:
                    told = True
                    lost()
                return
            _write(storage, token)
        except OSError:
            return  # a store that is away must not stop the study

    try:
        with repeatedly(beat, HEARTBEAT_S, "lease"):
            yield
    finally:
        try:
            if _read(storage).get("token") == token:
                storage.write(LEASE, b"{}", patience=SHORT_S)
        except OSError:
            pass  # it runs out by itself


def _read(storage: Storage) -> dict[str, Any]:
    try:
        holder = json.loads(storage.read(LEASE, patience=SHORT_S))
    except (FileNotFoundError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _write(storage: Storage, token: str) -> None:
    holder = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "heartbeat": time.time(),
        "token": token,
    }
    storage.write(LEASE, json.dumps(holder).encode(), patience=SHORT_S)


def _refuse(storage: Storage, holder: dict[str, Any], token: str) -> None:
    if holder.get("token", token) == token:
        return
    age = time.time() - float(holder.get("heartbeat", 0))
    if age < DEAD_AFTER_S:
        raise InputError(
            f"--out {storage.address}: driven by another living process "
            f"({holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown host')}, "
            f"{max(age, 0):.0f} s ago); wait {DEAD_AFTER_S:.0f} s if it is dead, stop it, or name "
            "another folder"
        )
