"""Who drives a study: what lease.json says, and whether that process still lives. Pure.

On the machine of the process itself, the system knows. From elsewhere only a heartbeat that changes
shows life, and this machine's own clock measures how long it has not changed: the clocks of two
machines may differ by hours. Host names do not tell machines apart, but the id of a boot does; and
a process number means nothing in another container, which its process namespace tells.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

LEASE = "lease.json"
"""The file that names the study's driver: host, process and heartbeat."""
DEAD_AFTER_S = 60.0
"""A driver whose heartbeat has not changed for so many seconds is taken for dead."""
LEASE_BYTES = 512
"""The length of every lease's content. A reader that asks for an object's size before it reads the
object would get a part of one that has grown in between."""
NO_LIFE_AFTER_S = 86400.0
"""Clocks do not differ by more than this, for commands that only look."""
Holder = dict[str, Any]
"""What a lease says; empty if nobody holds it, or it is damaged."""


def this_process(token: str) -> bytes:
    """The content of this process's lease now.

    Args:
        token: identifies this hold of the lease.
    """
    me = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "heartbeat": time.time(),
        "token": token,
        "kernel": _kernel(),
        "begun": _begun(os.getpid()),
    }
    return json.dumps(me).ljust(LEASE_BYTES).encode()


def holder_of(content: bytes) -> Holder:
    """The driver that a lease names."""
    try:
        holder = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(holder, dict) or type(holder.get("heartbeat", 0)) not in (int, float):
        return {}
    return holder


def lives(holder: Holder) -> bool | None:
    """Whether the driver lives; None if that cannot be told from this machine."""
    pid, kernel = holder.get("pid"), holder.get("kernel")
    if type(pid) is not int or not 0 < pid < 2**31:
        return False
    if kernel is None and holder.get("host") == socket.gethostname():  # an older build's lease
        return (
            _begun(pid) is not None and abs(time.time() - holder.get("heartbeat", 0)) < DEAD_AFTER_S
        )
    if kernel != _kernel():
        return None
    return _begun(pid) is not None and _begun(pid) == holder.get("begun")


def changes(read: Callable[[], bytes], first: bytes, seconds: float, every_s: float) -> bool:
    """Whether a lease's content changes within some seconds of this machine's own clock.

    Args:
        read: reads the content; an OSError is taken for no change.
        first: the content that was read before.
        every_s: how often to read it.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(every_s, max(0.0, end - time.monotonic())))
        try:
            if read() != first:
                return True
        except OSError:
            continue
    return False


@cache
def _kernel() -> str:
    """This machine since it was started, and the processes that can be seen here."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()} {os.getpid()}"  # nobody else's: only its heartbeat counts


def _begun(pid: int) -> int | None:
    """When a process began, in the kernel's ticks; None if there is none."""
    try:
        state, *_, begun = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:20]
    except (OSError, ValueError):
        return None
    return None if state == "Z" else int(begun)
