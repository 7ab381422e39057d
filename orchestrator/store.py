"""The output folder: the contract between all parts, and the only memory of a study.

    OUT/study.json  lease.json  selections/  report/
    OUT/jobs/<kind>-<name>-<id>/  settings.json  records.jsonl  checkpoints/  result.json

A job is done when its result.json is there. Pure: no Ray, no MLflow, no PyTorch.

On an object store (`storage`), the same layout: `Store.out` is then a copy of its small files on
the driver's node, kept up by `Store.refresh`, and a job works in a folder of its own node that it
copies up segment by segment.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from gdas.errors import InputError, one_line
from gdas.files import write_json, write_text
from orchestrator.process import repeatedly
from orchestrator.remote_lease import LEASE, hold
from orchestrator.storage import (
    Stamp,
    Storage,
    cache_folder,
    is_address,
    join,
    open_storage,
    work_folder,
)
from orchestrator.study import Job, Study

FORMAT = "gdas-study/1"
HEARTBEAT_S = 5.0
DEAD_AFTER_S = 60.0
NO_SPACE = "No space left on device: make room, it goes on from its last checkpoint"
LEASE_BYTES = 512
SETTLED_NS = 50_000_000

Record = dict[str, Any]
"""One segment: position, of, metrics, details, started, time, seconds, host, pid."""


Cause = Literal["own", "process", "node"]
"""An exception of the job's own; a process that died without a word; a machine that was lost."""

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
        self.publish("records.jsonl")

    def append_record(self, record: Record) -> None:
        with (self.path / "records.jsonl").open("a") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
        self.publish("records.jsonl")

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
        write_json(
            self.path / "failure.json",
            {"error": error, "traceback": trace, "time": time.time(), "cause": cause},
        )
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
        out: a folder, made where it is missing, or the address of one on an object store.

    Attributes:
        out: the folder; of one on an object store the copy of its small files.
        address: the same for people, and for other nodes.

    Raises:
        InputError: the folder cannot be made or reached, or an incompatible version wrote it.
    """

    def __init__(self, out: Path | str) -> None:
        self.remote = open_storage(str(out)) if is_address(out) else None
        self.stamps: dict[str, Stamp] = {}
        self.refreshing = threading.Lock()
        self.listed: tuple[int, dict[str, Path]] = (-1, {})  # job folders by id; when jobs/ changed
        self.tails: dict[Path, Tail] = {}
        self.reading = threading.Lock()
        self.out = work_folder() if self.remote else Path(out).resolve()
        self.address = str(out) if self.remote else str(self.out)
        try:
            (self.out / "jobs").mkdir(parents=True, exist_ok=True)
            (self.out / "selections").mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--out {out}: cannot make the folder ({error.strerror}); name another"
            ) from None
        try:
            self.refresh(manifests=True, patience=0.0)
        except OSError as error:
            text = one_line(error, 300)
            raise InputError(f"--out {out}: does not answer ({text})") from None
        found = self.study().get("format", FORMAT)
        if found != FORMAT:
            raise InputError(
                f"--out {out}: written by an incompatible version ({found}, this one writes "
                f"{FORMAT}); name another folder"
            )

    @property
    def tracking_folder(self) -> Path:
        """Where MLflow's own files are: in the output folder, or kept on this node beside none.

        They are made from the job folders and can be made again.
        """
        if self.remote is None:
            return self.out
        folder = (
            cache_folder() / "mlflow" / "".join(c if c.isalnum() else "-" for c in self.address)
        )
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def refresh(self, *, manifests: bool = False, patience: float | None = None) -> None:
        """Bring the copy of an object store's small files up to date; a folder needs none.

        Args:
            manifests: those of checkpoints too.

        Raises:
            OSError: the store does not answer.
        """
        if self.remote is None:
            return
        with self.refreshing:
            there = {
                name: stamp
                for name, stamp in self.remote.listing(patience=patience).items()
                if _kept(name, manifests)
            }
            changed = [name for name, stamp in there.items() if self.stamps.get(name) != stamp]
            for name in set(self.stamps) - set(there):
                if manifests or not name.endswith("manifest.json"):
                    (self.out / name).unlink(missing_ok=True)
                    del self.stamps[name]
            self.remote.fetch_all(changed, self.out)
            for name in changed:  # what happened first is told by their times
                os.utime(self.out / name, ns=(there[name][1], there[name][1]))
            self.stamps.update({name: there[name] for name in changed})

    def refresh_quietly(self) -> None:
        """The same in the background: a store that is away is asked again next time."""
        try:
            self.refresh(patience=0.0)
        except OSError:
            return

    def fetch_report(self) -> None:
        """Copy the report of an object store's study, which a refresh leaves where it is."""
        if self.remote is not None:
            there = self.remote.under("report")
            there.fetch_all(list(there.listing()), self.out / "report")

    def job_files(self) -> dict[str, dict[str, Stamp]]:
        """Every job folder by its name, whosever it is, and its files by theirs."""
        found: dict[str, dict[str, Stamp]] = {}
        if self.remote is not None:
            for name, stamp in sorted(self.remote.under("jobs").listing().items()):
                folder, _, inside = name.partition("/")
                found.setdefault(folder, {})[inside] = stamp
            return found
        for path in sorted((self.out / "jobs").iterdir()):
            if path.is_dir() and not path.is_symlink():
                files = found.setdefault(path.name, {})
                for file in path.rglob("*"):
                    if file.is_file():
                        status = file.stat()
                        files[str(file.relative_to(path))] = status.st_size, status.st_mtime_ns
        return found

    def remove_job(self, name: str) -> None:
        """Remove a job folder, what commits first: a half-removed one has nothing that counts."""
        if self.remote is not None:
            there = self.remote.under(f"jobs/{name}")
            for file in sorted(there.listing(), key=lambda file: not file.endswith(COMMITS)):
                there.remove(file)
        shutil.rmtree(self.out / "jobs" / name, ignore_errors=self.remote is not None)

    def publish(self, name: str) -> None:
        """A file, or all of a folder, that this process wrote in `out` counts from here on."""
        if self.remote is None:
            return
        path = self.out / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                self.remote.put(file, file.relative_to(self.out).as_posix())

    def place(self, name: str) -> str:
        """Where a file is, for people, wherever they are."""
        return self.remote.under(name).address if self.remote else str(self.out / name)

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
        self.publish("study.json")

    def folder(self, job: Job) -> JobFolder:
        """The job's folder, whether it exists or not; found by its id, whatever its name was."""
        return self._job(
            self._existing().get(job.id) or self.out / "jobs" / f"{job.label}-{job.id}"
        )

    def _existing(self) -> dict[str, Path]:
        """The job folders by id, listed again only when one came or went.

        Looking through all of them for every job would grow with the square of their number.
        """
        jobs = self.out / "jobs"
        try:
            changed = jobs.stat().st_mtime_ns
        except FileNotFoundError:
            return {}
        if self.listed[0] != changed:
            paths = sorted(jobs.iterdir(), reverse=True)  # of one id the first counts
            # What changed just now may change again within one tick of the file system's clock.
            settled = time.time_ns() - changed > SETTLED_NS
            listed = {path.name.rpartition("-")[2]: path for path in paths}
            self.listed = changed if settled else -1, listed
            return listed
        return self.listed[1]

    def _job(self, path: Path) -> JobFolder:
        return JobFolder(path, self.remote and self.remote.under(f"jobs/{path.name}"))

    def records(self, job: Job) -> list[Record]:
        """The records so far, as `JobFolder.records`, reading only what is new since the last call.

        Not to be changed by the caller.
        """
        path = self.folder(job).path / "records.jsonl"
        with self.reading:
            return self.tails.setdefault(path, Tail(path)).records()

    def other_versions(self, job: Job) -> list[JobFolder]:
        """Folders of jobs of the same kind and name but other settings."""
        return [
            self._job(path)
            for path in sorted(self._existing().values())
            if path.name.startswith(f"{job.label}-")
            and path.name != f"{job.label}-{job.id}"
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
        folder.publish("settings.json")
        return folder

    def folder_name(self, job_id: str) -> str:
        """The name of an existing job folder (a selection has none: its record is its folder)."""
        existing = self._existing().get(job_id)
        return existing.name if existing else job_id

    def selection_path(self, job: Job) -> Path:
        return self.out / "selections" / f"{job.name}.json"

    @property
    def selections_address(self) -> str:
        """Where the selection records are, on any node."""
        return self.remote.under("selections").address if self.remote else f"{self.out}/selections"

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

    def lease_text(self) -> str:
        """What the lease says now, from the place itself.

        Raises:
            OSError: there is none, or the store does not answer.
        """
        if self.remote is not None:
            return self.remote.read(LEASE, patience=0.0).decode(errors="replace")
        return (self.out / LEASE).read_text(errors="replace")

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
    if store.remote is not None:
        with hold(store.remote, _lease_lost):
            store.refresh(manifests=True)
            yield
        return
    path = store.out / LEASE
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


def _lease_lost() -> None:
    print("another driver has taken this study over; this one ends", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def _kept(name: str, manifests: bool) -> bool:
    """Whether the driver keeps a copy of an object."""
    parts = name.split("/")
    if parts[0] == "jobs":
        if len(parts) == 3:
            return parts[2] in SMALL
        return manifests and len(parts) == 5 and parts[4] == "manifest.json"
    return name == "study.json" or (parts[0] == "selections" and len(parts) == 2)


def selection_records(address: str) -> Path:
    """A folder with the study's selection records, on this node."""
    if not is_address(address):
        return Path(address)
    storage, folder = open_storage(address), work_folder()
    storage.fetch_all([name for name in storage.listing() if "/" not in name], folder)
    return folder


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
