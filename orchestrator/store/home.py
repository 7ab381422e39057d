"""Where an output folder is, and whether it is the same one as before, was moved, or is a copy.

study.json has the study's key, by which its runs in MLflow are found, and its home: the folder's
path, inode and machine when it was last driven. A folder that was moved keeps its key. A copy takes
a key of its own, since otherwise both would write the same runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import socket
from pathlib import Path

from orchestrator.store.place import Place
from orchestrator.store.results import HomeJson, StudyFile
from orchestrator.store.storage import is_address, open_storage


def home_of(place: Place) -> HomeJson:
    """Where the folder is now; an object store's address has no machine and no inode."""
    if is_address(place.address):
        return {"path": place.address.partition("?")[0]}
    inode = place.path.stat().st_ino
    return {"path": place.address, "inode": inode, "host": socket.gethostname()}


def key_of(study: StudyFile, now: HomeJson) -> str:
    """The study's key: the recorded one, or, in a copy, another that depends on it and the place.

    The copy's key is computed, so that it is the same at every call even if it cannot be written.
    """
    key = str(study.get("key") or "")
    if not key:
        return os.urandom(8).hex()
    if not is_copy(study, now):
        return key
    text = f"{key} {now.get('host')} {now['path']} {now.get('inode')}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_copy(study: StudyFile, now: HomeJson) -> bool:
    """Whether the folder is a copy of the one that study.json was written in.

    A folder that came from another machine counts as a copy, because nobody can see from here
    whether the original is still there. Folders of older builds, which recorded no home, do not.
    """
    was = study.get("home")
    if not isinstance(was, dict) or not isinstance(was.get("path"), str):
        return False
    same_inode = "inode" in now and was.get("inode") == now["inode"]
    same_host = was.get("host") == now.get("host")
    if was["path"] == now["path"]:
        return not (same_inode or same_host)
    if _is_still_there(was["path"], str(study.get("key")), now["path"]):
        return True
    return not (same_inode or same_host)


def _is_still_there(path: str, key: str, now: str) -> bool:
    """Whether the folder at the old path has this study and is not the present one."""
    try:
        if is_address(path):
            content = open_storage(path).read("study.json", patience=0.0)
        else:
            content = (Path(path) / "study.json").read_bytes()
            if not is_address(now) and Path(path).samefile(now):
                return False
        found = json.loads(content)
    except (OSError, ValueError, RecursionError):  # a refused address is a ValueError, too
        return False
    return isinstance(found, dict) and found.get("key") == key


def present_command(study: StudyFile, address: str) -> str:
    """The command that last drove the study, with the folder's present place in `--out`.

    Args:
        address: the folder's path or address.
    """
    command, was = str(study.get("command") or ""), study.get("home")
    if not command or was is None or was.get("path") == address.partition("?")[0]:
        return command
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    kept: list[str] = []
    skip = False
    for word in words:
        if skip or word.startswith("--out="):
            skip = False
        elif word == "--out":
            skip = True
        else:
            kept.append(word)
    return shlex.join([*kept, "--out", address])
