"""Start the command line as a user would, watch its output folder, and harm it.

What the end-to-end tests and the fault drill (`tests.drill`) share. Nothing is found by its name
alone: a process is a driver that was started here, a descendant of it, or one whose number a record
on disk holds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

TINY = Path(__file__).with_name("tiny.yaml")
COMMAND = [sys.executable, "-m", "orchestrator.reproduce_paper"]
ENDS_WITHIN_S = 900.0
STALLS_AFTER_S = 400.0
"""A study that has written nothing for so long does not go on."""
NOT_NICE = {"RAY_worker_niceness": "0"}
"""Ray's workers give way to all other processes, so that beside busy ones a study stands still."""

Point = tuple[str, str, int, int, float]
"""Job, key, step, milliseconds, value."""


# Processes


def process(pid: int) -> psutil.Process | None:
    """A living process, told apart from a later one of the same number by its start."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid)
    return None


def family_of(pid: int) -> list[psutil.Process]:
    """A process, all that it started, and what those started; nothing if it is gone."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def alive(member: psutil.Process) -> bool:
    """Whether it still runs; one that ended and was not waited for does not."""
    try:
        return member.is_running() and member.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def title(member: psutil.Process) -> str:
    """Its command line, or nothing if it is gone."""
    try:
        return " ".join(member.cmdline()).strip()
    except psutil.Error:
        return ""


def end(members: list[psutil.Process]) -> None:
    """SIGKILL those that are still there."""
    for member in members:
        with suppress(psutil.NoSuchProcess):
            member.kill()


# The command


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

    def ended(self) -> bool:
        return self.process.poll() is not None

    def family(self) -> list[psutil.Process]:
        """The driver and all that it started."""
        return family_of(self.pid)

    def end(self) -> None:
        """SIGKILL all of its family that still runs."""
        if not self.ended():
            end(self.family())
            self.process.wait()

    def wait(self, timeout: float = ENDS_WITHIN_S) -> int:
        """Its exit code.

        Raises:
            TimeoutError: it still ran; it and its family are killed.
        """
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.end()
            raise TimeoutError(f"the command had not ended after {timeout:g} s") from None


def launch(log: Path, arguments: list[str], environment: Mapping[str, str] = {}) -> Running:
    """Start the command in a process group of its own, as a shell does.

    Args:
        log: what it prints is added there.
        environment: what differs from this process's.
    """
    before = log.stat().st_size if log.exists() else 0
    with log.open("ab") as file:
        started = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            process_group=0,
            env={**os.environ, **NOT_NICE, **environment},
        )
    return Running(started, log, before)


def start(out: Path, data: Path, *words: str, experiment: Path = TINY) -> Running:
    """The command on the tiny study, or another; its log lies beside the output folder."""
    log = out.with_name(f"{out.name}.log")
    return launch(log, [str(experiment), "--out", str(out), "--data", str(data), *words])


def finish(running: Running, timeout: float = 600) -> tuple[int, str]:
    """Its exit code and what it printed."""
    return running.wait(timeout), running.output()


def running_trials(running: Running) -> int:
    """How many of a driver's trials run now, by the names that Ray gives its processes."""
    return sum("ImplicitFunc.train" in title(member) for member in family_of(running.pid))


def at_once(out: Path) -> Path:
    """Where the interrupted study notes how many trials ran at one moment at the most."""
    return out.with_name(f"{out.name}-at-once")


def harmed(out: Path) -> Path:
    """Where the interrupted study notes whose checkpoint and whose record were harmed."""
    return out.with_name(f"{out.name}-harmed")


def run(
    out: Path, data: Path, *words: str, watch: Callable[[Running], None] | None = None
) -> tuple[int, str]:
    """Its exit code and what it printed; however long it takes, as long as it goes on."""
    running = start(out, data, *words)

    def ended() -> bool:
        if watch is not None:
            watch(running)
        return running.ended()

    try:
        wait_for(ended, "the command's end", timeout=STALLS_AFTER_S, out=out, pause_s=0.25)
    finally:
        running.end()
    return finish(running)


def kill(running: Running) -> None:
    """SIGKILL the driver alone; Ray's processes notice and end."""
    os.kill(running.pid, signal.SIGKILL)
    running.process.wait(60)
    time.sleep(3)


def wait_for(
    condition: Callable[[], bool],
    what: str,
    running: Running | None = None,
    *,
    timeout: float = ENDS_WITHIN_S,
    out: Path | None = None,
    pause_s: float = 0.02,
) -> None:
    """Wait until `condition` holds, which is asked again and again with a pause between.

    Args:
        out: an output folder. The time counts from the last change in it, so that a busy machine,
            on which everything is slow, is told from a study that does not go on.

    Raises:
        TimeoutError: it never did.
        RuntimeError: the command that should bring it about ended first.
    """
    began, seen = time.monotonic(), None
    while not condition():
        if running is not None and running.ended() and not condition():
            tail = "\n".join(running.output().splitlines()[-15:])
            raise RuntimeError(f"the command ended before {what}:\n{tail}")
        if out is not None and (now := progress(out)) != seen:
            began, seen = time.monotonic(), now
        if time.monotonic() > began + timeout:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(pause_s)


def progress(out: Path) -> list[int]:
    """What grows as long as a study goes on: its log, its job folders, their records."""
    log = out.with_name(f"{out.name}.log")
    every = [*out.glob("*"), *out.glob("jobs/*/*"), *([log] if log.exists() else [])]
    sizes = []
    for path in every:
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sizes


def wait_for_records(out: Path, label: str, count: int, running: Running | None = None) -> None:
    wait_for(
        lambda: label in folders(out) and len(records(folders(out)[label])) >= count,
        f"{count} records of {label}",
        running,
        timeout=STALLS_AFTER_S,
        out=out,
    )


def wait_for_search_records(out: Path, count: int, running: Running | None = None) -> None:
    """Until the searches have left `count` records between them."""

    def left() -> int:
        return sum(
            len(records(path))
            for label, path in folders(out).items()
            if label.startswith("search-")
        )

    what = f"{count} records of the searches"
    wait_for(lambda: left() >= count, what, running, timeout=STALLS_AFTER_S, out=out)


# The output folder, read without the code that wrote it


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


def two_with_records(out: Path) -> tuple[Path, Path]:
    """The job folders with the most records; one and the same where only one has any."""
    found = sorted(folders(out).values(), key=lambda path: -len(records(path)))
    return found[0], found[1] if records(found[1]) else found[0]


def newest_checkpoint(folder: Path) -> Path:
    """The folder of a job's newest committed checkpoint."""
    return max(folder.glob("checkpoints/*/manifest.json")).parent


def points(database: Path) -> Counter[Point]:
    """Every metric point of every living run of a job, as often as MLflow has it."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        rows = connection.execute(
            "select t.value, m.key, m.step, m.timestamp, m.value from metrics m "
            "join tags t on t.run_uuid = m.run_uuid and t.key = 'job' "
            "join runs r on r.run_uuid = m.run_uuid where r.lifecycle_stage = 'active'"
        ).fetchall()
    return Counter((job, key, step, when, value) for job, key, step, when, value in rows)


def expected_points(out: Path) -> Counter[Point]:
    """What the records, and what was measured of machines, say that MLflow must have."""
    found: Counter[Point] = Counter()
    for path in folders(out).values():
        job = path.name.rpartition("-")[2]
        for record in records(path):
            values, when = record["metrics"] | {"seconds": record["seconds"]}, record["time"]
            found.update(
                (job, k, record["position"], int(when * 1000), v) for k, v in values.items()
            )
        for step, sample in enumerate(samples(path)):
            values, when = sample["metrics"], sample["time"]
            found.update((job, f"system/{k}", step, int(when * 1000), v) for k, v in values.items())
    return found


def samples(folder: Path) -> list[dict[str, Any]]:
    """What was measured of a job's machine; a line that a kill has torn is nothing."""
    found = []
    with suppress(FileNotFoundError):
        for line in (folder / "system.jsonl").read_text().splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
    return found


# Harm


def flip_a_bit(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut_short(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def tear_the_last_line(path: Path, rng: random.Random) -> None:
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + last[: rng.randint(1, len(last) - 2)])


def assert_it_goes_on(
    out: Path, data: Path, *words: str, watch: Callable[[Running], None] | None = None
) -> None:
    """The same command ends the study; what was done stays untouched, and MLflow has all of it.

    Args:
        words: what else the command was started with; some select only a part of the study.
    """
    finished = {
        label: path.stat().st_mtime_ns
        for label, folder in folders(out).items()
        if (path := folder / "result.json").exists()
    }
    code, output = run(out, data, *words, watch=watch)
    assert code == 0, output
    for label, when in finished.items():
        assert (folders(out)[label] / "result.json").stat().st_mtime_ns == when
    assert len(digests(out)) >= 4, "the searches at least"
    sent = points(out / "mlflow.db")
    assert sent == expected_points(out), "no doubled and no missing point"
    for path in folders(out).values():
        positions = [record["position"] for record in records(path)]
        assert positions == list(range(1, len(positions) + 1))


def assert_it_goes_on_to_the_same_end(out: Path, undisturbed: Path, data: Path) -> None:
    """The same command ends with the undisturbed study's bits; what was done stays untouched."""
    assert_it_goes_on(out, data)
    assert digests(out) == digests(undisturbed)
