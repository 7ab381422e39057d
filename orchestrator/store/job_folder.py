"""One job's folder: its records, checkpoints and result, local or on an object store.

A job is done once its result.json is there. If the folder is on an object store, the job works in a
folder on its own node and uploads it segment by segment.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast, overload

from gdas.files import write_json, write_text
from orchestrator.store.failure import FAILURE, clear_failure
from orchestrator.store.place import MANIFEST, Place, open_place
from orchestrator.store.results import JobSettings, Record, Result, Sample

NO_SPACE = "No space left on device: make room, it goes on from its last checkpoint"
R = TypeVar("R", bound=Result)
DAMAGE = "damage.json"
SAMPLES = "system.jsonl"
SMALL = (
    *("settings.json", "provenance.json", "records.jsonl", "result.json", FAILURE),
    "distribution.json",  # lookups only
    DAMAGE,
    SAMPLES,
)
"""The files of a job folder outside its checkpoints; the driver keeps a copy of them."""
LOG = "log.txt"
"""The job's own output; it is not among the small files, but read when somebody asks for it."""
COMMITS = ("result.json", MANIFEST)
NAME = re.compile(r"[a-z0-9_]{1,100}")
"""How what is measured of a machine is called."""


class Tail:
    """The records of a file that is appended to, or replaced by another.

    Each call reads only the bytes that are new since the last one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inode, self.offset = 0, 0
        self.found: list[Record] = []

    def records(self) -> list[Record]:
        """All records up to the first line that is damaged or incomplete; none without a file."""
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
        place: where it is.
        token: identifies this start of the job.
    """

    place: Place
    token: str = field(default_factory=lambda: uuid.uuid4().hex, compare=False)

    @classmethod
    def open(cls, address: str | Path) -> JobFolder:
        """Open the folder at `address` to work in; if it is on an object store, a copy is made."""
        name = str(address).partition("?")[0].rpartition("/")[2]
        folder = cls(open_place(address, copy=f"jobs/{name}"))
        folder.refresh()
        return folder

    @property
    def path(self) -> Path:
        """Where this process reads and writes the job's files."""
        return self.place.path

    @property
    def address(self) -> str:
        """What `open` takes, on any node."""
        return self.place.address

    def beside(self, name: str) -> JobFolder:
        """The folder of another job of the study."""
        return JobFolder.open(self.place.beside(name))

    def refresh(self) -> None:
        """Bring the local copy up to date, except checkpoints."""
        self.place.pull(SMALL.__contains__)

    def publish(self, name: str) -> None:
        """Make the file or subfolder `name`, written in `path`, visible to all."""
        self.place.publish(name)

    def claim(self) -> None:
        """Make this start of the job the only one that can commit.

        An earlier one may still be alive, on a node that was given up.
        """
        self.place.claim(self.token)

    def commit_checkpoint(self, position: int) -> None:
        """Commit the checkpoint at `position`; delete the positions that the copy no longer has.

        Raises:
            TakenOver: a later start of this job has claimed it.
        """
        self.place.commit_checkpoint(position, self.token)

    def fetch_checkpoint(self, below: int | None = None) -> int | None:
        """Copy the newest committed checkpoint with a position lower than `below` into `path`.

        Returns:
            Its position; None if there is nothing to copy.
        """
        return self.place.fetch_checkpoint(below)

    @property
    def checkpoints(self) -> Path:
        """The folder that `gdas.checkpoint` reads and writes, one subfolder per position."""
        return self.path / "checkpoints"

    def settings(self) -> JobSettings:
        """The job's settings, as `Store.prepare` wrote them."""
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
        """Replace all records by those in a checkpoint's history, which win when a job resumes."""
        lines = [json.dumps(record, allow_nan=False) + "\n" for record in records]
        write_text(self.path / "records.jsonl", "".join(lines))
        self.publish("records.jsonl")

    def append_record(self, record: Record) -> None:
        """Add the record of a segment and publish the file."""
        with (self.path / "records.jsonl").open("a") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
        self.publish("records.jsonl")

    def samples(self) -> list[Sample]:
        """What was measured of the job's machine; lines that are torn or damaged are skipped."""
        try:
            lines = (self.path / SAMPLES).read_bytes().split(b"\n")
        except OSError:
            return []
        return [sample for line in lines if (sample := _sample(line)) is not None]

    def samples_size(self) -> int:
        """Bytes of what was measured of the job's machine."""
        try:
            return (self.path / SAMPLES).stat().st_size
        except OSError:
            return 0

    def append_sample(self, sample: Sample) -> None:
        """Add what was measured of the job's machine; `publish_samples` shows it to all."""
        with (self.path / SAMPLES).open("a") as file:
            file.write(json.dumps(sample, allow_nan=False) + "\n")

    def publish_samples(self) -> None:
        """Make what was measured of the job's machine visible to all."""
        if (self.path / SAMPLES).exists():
            self.publish(SAMPLES)

    def log_end(self, most: int) -> str:
        """The last bytes of what the job printed, at most so many; empty if there is no log."""
        try:
            with (self.path / LOG).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - most))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def damage(self) -> list[str]:
        """A line for every damaged checkpoint that was passed over, oldest first."""
        try:
            found = json.loads((self.path / DAMAGE).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return []
        return [str(line) for line in found] if isinstance(found, list) else []

    def note_damage(self, lines: Sequence[str]) -> None:
        """Record damaged checkpoints that were passed over, so that the driver can say so."""
        write_json(self.path / DAMAGE, [*self.damage(), *lines])
        self.publish(DAMAGE)

    @overload
    def result(self) -> Result | None: ...

    @overload
    def result(self, kind: type[R]) -> R | None: ...

    def result(self, kind: type[Any] = Result) -> Any:
        """The result, or None if the job is not done.

        Args:
            kind: the type of the result, for mypy only; it is not checked.
        """
        try:
            result = json.loads((self.path / "result.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError, RecursionError):
            return None  # if damaged, the job resumes from its last checkpoint
        return result if isinstance(result, dict) else None

    def write_result(self, result: Result) -> None:
        """Write result.json, which marks the job done, and delete its error record."""
        write_json(self.path / "result.json", result)
        self.publish("result.json")
        clear_failure(self.place)


def _record(line: bytes) -> Record | None:
    """A line's record; None if it is torn or not a record."""
    record = _with_metrics(line, ("position", "of", "time", "seconds"))
    return cast(Record, record) if record and type(record["position"]) is int else None


def _sample(line: bytes) -> Sample | None:
    """A line's sample; None if it is torn or not a sample."""
    sample = _with_metrics(line, ("time",))
    if sample is None or not all(NAME.fullmatch(name) for name in sample["metrics"]):
        return None
    return cast(Sample, sample)


def _with_metrics(line: bytes, keys: Sequence[str]) -> dict[str, Any] | None:
    """A line that has finite numbers as metrics and at these keys; None if it is another."""
    try:
        found: Any = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("metrics"), dict):
        return None
    numbers = [*(found.get(key) for key in keys), *found["metrics"].values()]
    whole = all(type(n) in (int, float) and abs(n) < float("inf") for n in numbers)
    return found if whole else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
