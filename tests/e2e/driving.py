"""Start the command line as a user would, watch its output folder, and kill things."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.drill.processes import descendants

__all__ = ["descendants"]

TINY = Path(__file__).with_name("tiny.yaml")
COMMAND = [sys.executable, "-m", "orchestrator.reproduce_paper"]


def start(out: Path, data: Path, *words: str) -> subprocess.Popen[str]:
    """The command in a process group of its own."""
    return subprocess.Popen(
        [*COMMAND, str(TINY), "--out", str(out), "--data", str(data), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 600) -> tuple[int, str]:
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def run(out: Path, data: Path, *words: str) -> tuple[int, str]:
    return finish(start(out, data, *words))


def folders(out: Path) -> dict[str, Path]:
    """Label to job folder."""
    return {path.name.rpartition("-")[0]: path for path in sorted(out.glob("jobs/*"))}


def records(folder: Path) -> list[dict[str, Any]]:
    try:
        lines = (folder / "records.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def result(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return loaded


def digests(out: Path) -> dict[str, str]:
    return {label: result(path)["digest"] for label, path in folders(out).items()}


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 180) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"waited {timeout} s for {what}"
        time.sleep(0.05)


def wait_for_records(out: Path, label: str, count: int) -> None:
    wait_for(
        lambda: label in folders(out) and len(records(folders(out)[label])) >= count,
        f"{count} records of {label}",
    )


def wait_for_search_records(out: Path, count: int) -> None:
    """Until the searches have left `count` records between them."""

    def left() -> int:
        return sum(
            len(records(path))
            for label, path in folders(out).items()
            if label.startswith("search-")
        )

    wait_for(lambda: left() >= count, f"{count} records of the searches")


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL the driver alone; Ray's processes notice and end."""
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    time.sleep(3)


def two_with_records(out: Path) -> tuple[Path, Path]:
    """The job folders with the most records; one and the same where only one has any."""
    found = sorted(folders(out).values(), key=lambda path: -len(records(path)))
    return found[0], found[1] if records(found[1]) else found[0]


def newest_checkpoint(folder: Path) -> Path:
    return max(folder.glob("checkpoints/*/manifest.json")).parent


def flip_a_bit(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def tear_the_last_line(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    last = content.rindex(b"\n", 0, -1) + 1 if content.count(b"\n") > 1 else 0
    path.write_bytes(content[: rng.randint(last + 1, len(content) - 2)])
