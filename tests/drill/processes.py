"""Start the command as a user would, and find and end what it started. Linux only (/proc).

Nothing is found by its name alone: a process is a driver that was started here, a descendant of
it, or one whose number a record on disk holds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

COMMAND = (sys.executable, "-m", "orchestrator.reproduce_paper")
QUIET = {"RAY_AUTH_MODE": "disabled"}
ENDS_WITHIN_S = 900.0


class Process(NamedTuple):
    """A process, told apart from a later one of the same number by its start."""

    pid: int
    started: str

    def alive(self) -> bool:
        found = _stat(self.pid)
        return found is not None and found[1] == self.started and found[2] != "Z"

    def title(self) -> str:
        """Its command line, or nothing where it is gone."""
        try:
            raw = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return ""
        return raw.replace(b"\0", b" ").decode(errors="replace").strip()

    def kill(self) -> None:
        if self.alive():
            os.kill(self.pid, signal.SIGKILL)


def process(pid: int) -> Process | None:
    found = _stat(pid)
    return Process(pid, found[1]) if found else None


def _stat(pid: int) -> tuple[int, str, str] | None:
    """Parent, start and state."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return int(fields[1]), fields[19], fields[0]


def descendants(root: int) -> list[Process]:
    """All that `root` started, and what those started."""
    children: dict[int, list[Process]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (found := _stat(int(entry.name))):
            children.setdefault(found[0], []).append(Process(int(entry.name), found[1]))
    out: list[Process] = []
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), []):
            out.append(child)
            waiting.append(child.pid)
    return out


@dataclass
class Running:
    """A command that was started.

    Attributes:
        log: what it prints.
        before: bytes in the log when it was started.
    """

    process: subprocess.Popen[bytes]
    log: Path
    before: int

    @property
    def pid(self) -> int:
        return self.process.pid

    def output(self) -> str:
        return self.log.read_bytes()[self.before :].decode(errors="replace")

    def family(self) -> list[Process]:
        """The driver and all that it started."""
        own = process(self.pid)
        return [*([own] if own else []), *descendants(self.pid)]

    def wait(self, timeout: float = ENDS_WITHIN_S) -> int:
        """Its exit code.

        Raises:
            TimeoutError: it still ran; it and its family are killed.
        """
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            family = self.family()
            for member in family:
                member.kill()
            self.process.wait()
            raise TimeoutError(f"the command had not ended after {timeout:g} s") from None


def start(log: Path, arguments: list[str], environment: dict[str, str]) -> Running:
    """Start the command in a process group of its own, as a shell does."""
    before = log.stat().st_size if log.exists() else 0
    with log.open("ab") as file:
        started = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            process_group=0,
            env=os.environ | QUIET | environment,
        )
    return Running(started, log, before)


def wait_for(condition: Callable[[], bool], what: str, running: Running | None = None) -> None:
    """Until `condition` holds.

    Raises:
        TimeoutError: it never did.
        RuntimeError: the command that should bring it about ended first.
    """
    end = time.monotonic() + ENDS_WITHIN_S
    while not condition():
        if running is not None and running.process.poll() is not None and not condition():
            tail = "\n".join(running.output().splitlines()[-15:])
            raise RuntimeError(f"the command ended before {what}:\n{tail}")
        if time.monotonic() > end:
            raise TimeoutError(f"waited {ENDS_WITHIN_S:g} s for {what}")
        time.sleep(0.02)
