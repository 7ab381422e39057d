"""One job's folder: its records, checkpoints and result, here or on an object store.

A job is done when its result.json is there. On an object store a job works in a folder of its own
node, which it copies up segment by segment.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast, overload

from gdas.files import write_json, write_text
from orchestrator.store.results import Cause, Failure, JobSettings, Record, Result
from orchestrator.store.storage import Storage, is_address, join, open_storage, work_folder

NO_SPACE = "No space left on device: make room, it goes on from its last checkpoint"
R = TypeVar("R", bound=Result)
SMALL = (
    *("settings.json", "provenance.json", "records.jsonl", "result.json", "failure.json"),
    "distribution.json",  # of a lookup
)
"""What a job folder has beside checkpoints, and what the driver keeps a copy of."""
OWNER = "owner.json"
COMMITS = ("result.json", "manifest.json")


class TakenOver(RuntimeError):
    """A later start of the same job, on another node, has taken it over."""


class Tail:
    """The records of a file that grows at its end, or is replaced by another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inode, self.offset = 0, 0
        self.found: list[Record] = []

    def records(self) -> list[Record]:
        try:
            with self.path.open("rb") as file:
                now = os.fstat(file.fileno())
                if now.st_ino != self.inode or now.st_size < self.offset:
                    self.inode, self.offset, self.found = now.st_ino, 0, []
                file.seek(self.offset)
                lines = file.read().splitlines(keepends=True)
        except FileNotFoundError:
            self.inode, self.offset, self.found = 0, 0, []
            return []
        fresh = list(self.found)
        for line in lines:
            record = _record(line)
            if record is None or not line.endswith(b"\n"):
                break  # damaged, torn, or still being written
            fresh.append(record)
            self.offset += len(line)
        self.found = fresh
        return fresh


@dataclass(frozen=True)
class JobFolder:
    """One job's folder.

    Attributes:
        path: where it is, or the copy of it that this process works in.
        remote: where it is, on an object store.
    """

    path: Path
    remote: Storage | None = None
    token: str = field(default_factory=lambda: uuid.uuid4().hex, compare=False)

    @classmethod
    def open(cls, address: str) -> JobFolder:
        """The folder at `address`, to work in; of one on an object store a copy is made."""
        if not is_address(address):
            return cls(Path(address))
        name = address.partition("?")[0].rpartition("/")[2]
        folder = cls(work_folder() / "jobs" / name, open_storage(address))
        folder.checkpoints.mkdir(parents=True)
        folder.refresh()
        return folder

    @property
    def address(self) -> str:
        """What `open` takes, on any node."""
        return self.remote.address if self.remote else str(self.path)

    def place(self, name: str) -> str:
        """Where one of its files is, for people, wherever they are."""
        return join(self.remote.address, name) if self.remote else str(self.path / name)

    def beside(self, name: str) -> JobFolder:
        """The folder of another job of the study."""
        if self.remote is None:
            return JobFolder(self.path.parent / name)
        address = self.remote.address.partition("?")
        parent = address[0].rpartition("/")[0] + address[1] + address[2]
        return JobFolder.open(join(parent, name))

    def refresh(self) -> None:
        """Bring the copy up to date, checkpoints left out."""
        if self.remote is None:
            return
        there = self.remote.listing()
        for name in SMALL:
            if name not in there:
                (self.path / name).unlink(missing_ok=True)
        self.remote.fetch_all([name for name in SMALL if name in there], self.path)

    def publish(self, name: str) -> None:
        """What was written under `name` counts from here on."""
        if self.remote is not None:
            self.remote.put(self.path / name, name)

    def claim(self) -> None:
        """From here on no process that claimed the job earlier can commit: it may still live, on a
        node that was given up."""
        if self.remote is not None:
            self.remote.write(OWNER, json.dumps({"token": self.token}).encode())

    def commit_checkpoint(self, position: int) -> None:
        """The checkpoint at `position` counts from here on; positions not in the copy go.

        Raises:
            TakenOver: by a later start of this job.
        """
        if self.remote is None:
            return
        if json.loads(self.remote.read(OWNER)).get("token") != self.token:
            raise TakenOver("another start of this job has taken over; this one ends")
        there = self.remote.under("checkpoints")
        name, names = f"{position:06d}", there.listing()
        if f"{name}/manifest.json" in names:
            there.remove(f"{name}/manifest.json")
        for file in ("state.pt", "manifest.json"):
            there.put(self.checkpoints / name / file, f"{name}/{file}")
        for old in sorted(names):  # each manifest before its state
            if not (self.checkpoints / old).parent.is_dir():
                there.remove(old)

    def fetch_checkpoint(self, below: int | None = None) -> int | None:
        """Copy the newest committed checkpoint, of a lower position than `below`.

        Returns:
            Its position; None where there is none.
        """
        assert self.remote is not None
        there = self.remote.under("checkpoints")
        names = there.listing()
        committed = {name.partition("/")[0] for name in names if name.endswith("/manifest.json")}
        positions = [int(n) for n in committed if n.isdigit() and f"{n}/state.pt" in names]
        older = [position for position in positions if below is None or position < below]
        if not older:
            return None
        name = f"{max(older):06d}"
        there.fetch_all([f"{name}/state.pt", f"{name}/manifest.json"], self.checkpoints)
        return max(older)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def settings(self) -> JobSettings:
        """What `Store.prepare` wrote."""
        settings: JobSettings = json.loads((self.path / "settings.json").read_text())
        return settings

    def records(self) -> list[Record]:
        """The records so far, up to the first line that is torn or damaged."""
        try:
            lines = (self.path / "records.jsonl").read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        records = []
        for line in lines:
            record = _record(line)
            if record is None:
                break
            records.append(record)
        return records

    def rewrite_records(self, records: list[Record]) -> None:
        """Replace all records: on resume the checkpoint's history wins."""
        lines = [json.dumps(record, allow_nan=False) + "\n" for record in records]
        write_text(self.path / "records.jsonl", "".join(lines))
        self.publish("records.jsonl")

    def append_record(self, record: Record) -> None:
        with (self.path / "records.jsonl").open("a") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
        self.publish("records.jsonl")

    @overload
    def result(self) -> Result | None: ...

    @overload
    def result(self, kind: type[R]) -> R | None: ...

    def result(self, kind: type[Any] = Result) -> Any:
        """The result, or None if the job is not done.

        Args:
            kind: what the job's kind leaves, for the type checker.
        """
        try:
            result = json.loads((self.path / "result.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError, RecursionError):
            return None  # damaged: the job goes on from its last checkpoint
        return result if isinstance(result, dict) else None

    def write_result(self, result: Result) -> None:
        """Mark the job done."""
        write_json(self.path / "result.json", result)
        self.publish("result.json")
        self.clear_failure()

    def failure(self) -> str | None:
        """The last error's text, where a job body left one."""
        try:
            return str(json.loads((self.path / "failure.json").read_text())["error"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def failure_cause(self) -> Cause | None:
        """Whose fault that was; None where nobody left a word."""
        try:
            cause: Cause = json.loads((self.path / "failure.json").read_text()).get("cause", "own")
        except (OSError, ValueError, AttributeError, RecursionError):
            return None
        return cause

    def write_failure(self, error: str, trace: str, cause: Cause = "own") -> None:
        found: Failure = {
            "error": error,
            "traceback": trace,
            "time": time.time(),
            "cause": cause,
        }
        write_json(self.path / "failure.json", found)
        try:
            self.publish("failure.json")
        except OSError as problem:  # what failed is raised, not this
            print(f"{self.address}: failure.json cannot be written ({problem})", file=sys.stderr)

    def note_failure(self, why: str, cause: Cause, times: int, *, again: bool) -> None:
        """The driver's word on a failure, beside what the job left of it.

        Args:
            times: failures in this command.
            again: the job will be tried again.
        """
        path = self.path / "failure.json"
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            found = {"error": why, "traceback": "", "time": time.time(), "cause": cause}
        try:
            write_json(path, found | {"times": times, "again": again})
            self.publish("failure.json")
        except OSError:
            return  # a full disk, or a store that is away: the driver knows it still

    def failed_times(self) -> tuple[int, bool]:
        """How often the job failed in the command that last ran it, and whether it was given up."""
        try:
            found = json.loads((self.path / "failure.json").read_text())
            return int(found.get("times", 1)), not found.get("again", True)
        except (OSError, ValueError, OverflowError, TypeError, AttributeError, RecursionError):
            return 0, False

    def clear_failure(self) -> None:
        (self.path / "failure.json").unlink(missing_ok=True)
        if self.remote is not None:
            self.remote.remove("failure.json")


def _record(line: bytes) -> Record | None:
    """A line's record; None where it is torn or none."""
    try:
        record: Any = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("metrics"), dict):
        return None
    numbers = [record.get(key) for key in ("position", "of", "time", "seconds")]
    numbers += record["metrics"].values()
    whole = all(type(n) in (int, float) and abs(n) < float("inf") for n in numbers)  # type: ignore[arg-type]
    return cast(Record, record) if whole and type(record["position"]) is int else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
