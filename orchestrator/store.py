"""The output folder: the contract between all parts, and the only memory of a study.

    OUT/study.json  lease.json  selections/  report/
    OUT/jobs/<kind>-<name>-<id>/  settings.json  records.jsonl  checkpoints/  result.json

A job is done when its result.json is there. Pure: no Ray, no MLflow, no PyTorch.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from gdas.errors import InputError
from gdas.files import write_json, write_text
from orchestrator.process import repeatedly
from orchestrator.study import Job, Study

FORMAT = "gdas-study/1"
HEARTBEAT_S = 5.0
DEAD_AFTER_S = 60.0
NO_SPACE = "No space left on device: make room, it goes on from its last checkpoint"
LEASE_BYTES = 512

Record = dict[str, Any]
"""One segment: position, of, metrics, details, started, time, seconds, host, pid."""


@dataclass(frozen=True)
class JobFolder:
    """One job's folder."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def settings(self) -> dict[str, Any]:
        """What `Store.prepare` wrote."""
        settings: dict[str, Any] = json.loads((self.path / "settings.json").read_text())
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

    def append_record(self, record: Record) -> None:
        with (self.path / "records.jsonl").open("a") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def result(self) -> dict[str, Any] | None:
        """The result, or None where the job is not done."""
        try:
            result = json.loads((self.path / "result.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError, RecursionError):
            return None  # damaged: the job goes on from its last checkpoint
        return result if isinstance(result, dict) else None

    def write_result(self, result: dict[str, Any]) -> None:
        """Mark the job done."""
        write_json(self.path / "result.json", result)
        (self.path / "failure.json").unlink(missing_ok=True)

    def failure(self) -> str | None:
        """The last error's text, where a job body left one."""
        try:
            return str(json.loads((self.path / "failure.json").read_text())["error"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def forget_failure(self) -> None:
        """Before another try: a process that dies without a word has no earlier one's excuse."""
        (self.path / "failure.json").unlink(missing_ok=True)

    def write_failure(self, error: str, trace: str) -> None:
        write_json(
            self.path / "failure.json", {"error": error, "traceback": trace, "time": time.time()}
        )


def _record(line: bytes) -> Record | None:
    """A line's record; None where it is torn or none."""
    try:
        record = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("metrics"), dict):
        return None
    numbers = [record.get(key) for key in ("position", "of", "time", "seconds")]
    numbers += record["metrics"].values()
    whole = all(type(n) in (int, float) and abs(n) < float("inf") for n in numbers)  # type: ignore[arg-type]
    return record if whole and type(record["position"]) is int else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


class Store:
    """A study's output folder.

    Args:
        out: made where it is missing.

    Raises:
        InputError: the folder cannot be made, or an incompatible version wrote it.
    """

    def __init__(self, out: Path) -> None:
        self.out = out.resolve()
        try:
            (self.out / "jobs").mkdir(parents=True, exist_ok=True)
            (self.out / "selections").mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--out {out}: cannot make the folder ({error.strerror}); name another"
            ) from None
        found = self.study().get("format", FORMAT)
        if found != FORMAT:
            raise InputError(
                f"--out {out}: written by an incompatible version ({found}, this one writes "
                f"{FORMAT}); name another folder"
            )

    def study(self) -> dict[str, Any]:
        """study.json, or nothing where there is none yet."""
        try:
            study = json.loads((self.out / "study.json").read_text())
        except FileNotFoundError:
            return {}
        except (ValueError, OSError, RecursionError) as error:
            raise InputError(
                f"{self.out / 'study.json'}: damaged ({error}); delete it: it is written anew, "
                "finished jobs are kept"
            ) from None
        return study if isinstance(study, dict) else {"format": "unknown"}

    def write_study(
        self, study: Study, settings: dict[str, Any], versions: dict[str, str], command: str = ""
    ) -> None:
        """Write the resolved settings, every job's id and needs, the versions and the command."""
        key = self.study().get("key") or os.urandom(8).hex()
        write_json(
            self.out / "study.json",
            {
                "format": FORMAT,
                "key": key,
                "settings": settings,
                "versions": versions,
                "command": command,
                "jobs": [
                    {"label": job.label, "id": job.id, "needs": list(job.needs)} for job in study
                ],
            },
        )

    def folder(self, job: Job) -> JobFolder:
        """The job's folder, whether it exists or not; found by its id, whatever its name was."""
        existing = sorted((self.out / "jobs").glob(f"*-{job.id}"))
        return JobFolder(existing[0] if existing else self.out / "jobs" / f"{job.label}-{job.id}")

    def other_versions(self, job: Job) -> list[JobFolder]:
        """Folders of jobs of the same kind and name but other settings."""
        return [
            JobFolder(path)
            for path in sorted((self.out / "jobs").glob(f"{job.label}-*"))
            if path.name != f"{job.label}-{job.id}"
            and path.name.removeprefix(f"{job.label}-").isalnum()
            and (path / "settings.json").exists()
        ]

    def prepare(self, job: Job, environment: dict[str, Any]) -> JobFolder:
        """Make the job's folder with its settings.

        Args:
            environment: what else a trial needs to know, such as the data folder; not hashed.
        """
        folder = self.folder(job)
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        write_json(
            folder.path / "settings.json",
            {
                "kind": job.kind,
                "name": job.name,
                "id": job.id,
                "needs": [self.folder_name(need) for need in job.needs],
                "recipe": job.recipe,
                "resources": job.resources,
                "environment": environment,
            },
        )
        return folder

    def folder_name(self, job_id: str) -> str:
        """The name of an existing job folder (a selection has none: its record is its folder)."""
        existing = sorted((self.out / "jobs").glob(f"*-{job_id}"))
        return existing[0].name if existing else job_id

    def selection_path(self, job: Job) -> Path:
        return self.out / "selections" / f"{job.name}.json"

    def selection_is_whole(self, job: Job) -> bool:
        """Whether the selection's file can be read, for whatever settings it was written."""
        try:
            return isinstance(json.loads(self.selection_path(job).read_text())["id"], str)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False

    def selection(self, job: Job) -> dict[str, Any] | None:
        """The selection's record, or None where there is none for these very settings."""
        try:
            record: dict[str, Any] = json.loads(self.selection_path(job).read_text())
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        return record if isinstance(record, dict) and record.get("id") == job.id else None

    def done(self, job: Job) -> bool:
        if job.kind == "select":
            return self.selection(job) is not None
        return self.folder(job).result() is not None


@contextmanager
def lease(store: Store) -> Iterator[None]:
    """Hold the output folder: one driver at a time.

    A lock on lease.json, freed by the system when the holder dies, and a heartbeat in it for
    hosts that do not share locks.

    Raises:
        InputError: another living process holds it; names host and process.
    """
    path = store.out / "lease.json"
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


def _holder(file: TextIO) -> dict[str, Any]:
    """Who wrote the lease; nothing where it is empty or damaged."""
    try:
        holder = json.loads(file.read(LEASE_BYTES) or "{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(holder, dict) or type(holder.get("heartbeat", 0)) not in (int, float):
        return {}
    return holder


def where_and_who() -> dict[str, Any]:
    """This process, as records name it, and the GPUs that it was given."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return {"host": platform.node(), "pid": os.getpid()} | ({"gpu": gpus} if gpus else {})
