"""What keeps Ray from starting on this machine, found before it is tried. No Ray.

Ray ends such starts after half a minute, with errors that do not name their cause.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from orchestrator.run.address import MODE, token_here

SOCKET_BYTES = 107
"""The longest path of a socket on Linux."""
SOCKET = "/ray/session_2026-11-27_16-23-00_123456_1234567/sockets/plasma_store"
"""The longest socket that Ray makes below its temporary folder."""
ROOM_BYTES = 100 << 20
"""Ray's logs and sockets need some room, and more for objects where /dev/shm is small."""


def temporary_folder() -> Path:
    """The folder in which Ray makes its own."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")


def faults() -> list[tuple[str, str]]:
    """What keeps a private Ray from starting here, each with its fix; empty if nothing is known."""
    return [fault for fault in (_sockets(), _temporary(), _token()) if fault is not None]


def _sockets() -> tuple[str, str] | None:
    folder = temporary_folder()
    length = len(f"{folder}{SOCKET}".encode())
    if length <= SOCKET_BYTES:
        return None
    most = SOCKET_BYTES - len(SOCKET)
    return (
        f"Ray's sockets in {folder} would have paths of {length} bytes, and {SOCKET_BYTES} is the "
        "most",
        f"set RAY_TMPDIR to a folder whose path has at most {most} letters, such as /tmp",
    )


def _temporary() -> tuple[str, str] | None:
    folder = temporary_folder()
    fix = "set RAY_TMPDIR to another folder with a short path"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"{folder}: Ray's temporary folder cannot be written to ({error.strerror})", fix
    if free >= ROOM_BYTES:
        return None
    left = f"{free / 2**20:.0f} MiB"
    return f"{folder}: Ray's temporary folder has only {left} left", f"make room there, or {fix}"


def _token() -> tuple[str, str] | None:
    """Ray makes a token for its cluster if the account has none."""
    if os.environ.get(MODE, "token") != "token" or token_here()[0]:
        return None
    home = Path(os.environ.get("HOME") or Path.home())
    there = next(path for path in (home / ".ray", home, *home.parents) if path.exists())
    if os.access(there, os.W_OK | os.X_OK):
        return None
    return (
        f"{home}: Ray keeps its token in ~/.ray, and this home cannot be written to",
        "set HOME to a folder that can be, or RAY_AUTH_TOKEN to a secret of your own",
    )
