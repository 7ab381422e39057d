"""The output folder: the contract between all parts, and the only memory of a study.

    OUT/study.json  lease.json  selections/  report/
    OUT/jobs/<kind>-<name>-<id>/  settings.json  records.jsonl  checkpoints/  result.json

A job is done when its result.json is there. Pure: no Ray, no MLflow, no PyTorch.

On an object store (`place`), the same layout: `Store.out` is then a copy of its small files on
the driver's node, kept up by `Store.refresh`, and a job works in a folder of its own node that it
copies up segment by segment.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from gdas.errors import InputError, one_line
from gdas.files import write_json
from orchestrator.experiment.study import Job, Study
from orchestrator.store.job_folder import COMMITS, SMALL, JobFolder, Tail
from orchestrator.store.place import open_place
from orchestrator.store.results import (
    Environment,
    JobSettings,
    Record,
    Selection,
    StudyFile,
)
from orchestrator.store.storage import Stamp, is_address

FORMAT = "gdas-study/1"
SETTLED_NS = 50_000_000
LEASE = "lease.json"
"""Who drives the study: host, process and heartbeat."""
DEAD_AFTER_S = 60.0
"""A driver whose heartbeat is older than this has died."""


class Store:
    """A study's output folder.

    Args:
        out: a folder, made where it is missing, or the address of one on an object store.

    Attributes:
        place: where the folder is.
        out: the folder; of one on an object store the copy of its small files.
        address: the same for people, and for other nodes.

    Raises:
        InputError: the folder cannot be made or reached, or an incompatible version wrote it.
    """

    def __init__(self, out: Path | str) -> None:
        self.place = open_place(out if is_address(out) else Path(out).resolve())
        self.listed: tuple[int, dict[str, Path]] = (-1, {})  # job folders by id; when jobs/ changed
        self.tails: dict[Path, Tail] = {}
        self.reading = threading.Lock()
        self.out, self.address = self.place.path, self.place.address
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
        return self.place.kept_here("mlflow")

    def refresh(self, *, manifests: bool = False, patience: float | None = None) -> None:
        """Bring the copy of an object store's small files up to date; a folder needs none.

        Args:
            manifests: those of checkpoints too.

        Raises:
            OSError: the store does not answer.
        """
        self.place.pull(lambda name: _kept(name, manifests), patience=patience)

    def refresh_quietly(self) -> None:
        """The same in the background: a store that is away is asked again next time."""
        try:
            self.refresh(patience=0.0)
        except OSError:
            return

    def fetch_report(self) -> None:
        """Copy the report of an object store's study, which a refresh leaves where it is."""
        self.place.under("report").pull()

    def job_files(self) -> dict[str, dict[str, Stamp]]:
        """Every job folder by its name, whosever it is, and its files by theirs."""
        here = (self.out / "jobs").iterdir()
        found: dict[str, dict[str, Stamp]] = {
            path.name: {} for path in here if path.is_dir() and not path.is_symlink()
        }
        for name, stamp in self.place.under("jobs").listing().items():
            folder, _, inside = name.partition("/")
            if inside:
                found.setdefault(folder, {})[inside] = stamp
        return dict(sorted(found.items()))

    def remove_job(self, name: str) -> None:
        """Remove a job folder, what commits first: a half-removed one has nothing that counts."""
        there = self.place.under(f"jobs/{name}")
        for file in sorted(there.listing(), key=lambda file: not file.endswith(COMMITS)):
            there.remove(file)
        shutil.rmtree(there.path, ignore_errors=True)

    def publish(self, name: str) -> None:
        """A file, or all of a folder, that this process wrote in `out` counts from here on."""
        self.place.publish(name)

    def address_of(self, name: str) -> str:
        """Where a file is, for people, wherever they are."""
        return self.place.address_of(name)

    def study(self) -> StudyFile:
        """study.json, or nothing where there is none yet."""
        try:
            study: StudyFile = json.loads((self.out / "study.json").read_text())
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
        written: StudyFile = {
            "format": FORMAT,
            "key": key,
            "settings": settings,
            "versions": versions,
            "command": command,
            "jobs": [{"label": job.label, "id": job.id, "needs": list(job.needs)} for job in study],
        }
        write_json(self.out / "study.json", written)
        self.publish("study.json")

    def folder(self, job: Job) -> JobFolder:
        """The job's folder, whether it exists or not; found by its id, whatever its name was."""
        existing = self._existing().get(job.id)
        return self._job(existing.name if existing else f"{job.label}-{job.id}")

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

    def _job(self, name: str) -> JobFolder:
        return JobFolder(self.place.under(f"jobs/{name}"))

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
            self._job(path.name)
            for path in sorted(self._existing().values())
            if path.name.startswith(f"{job.label}-")
            and path.name != f"{job.label}-{job.id}"
            and path.name.removeprefix(f"{job.label}-").isalnum()
            and (path / "settings.json").exists()
        ]

    def prepare(self, job: Job, environment: Environment) -> JobFolder:
        """Make the job's folder with its settings.

        Args:
            environment: what else a trial needs to know, such as the data folder; not hashed.
        """
        folder = self.folder(job)
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        settings: JobSettings = {
            "kind": job.kind,
            "name": job.name,
            "id": job.id,
            "needs": [self.folder_name(need) for need in job.needs],
            "recipe": job.recipe,
            "resources": job.resources,
            "environment": environment,
        }
        write_json(folder.path / "settings.json", settings)
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
        return self.address_of("selections")

    def selection_is_whole(self, job: Job) -> bool:
        """Whether the selection's file can be read, for whatever settings it was written."""
        try:
            return isinstance(json.loads(self.selection_path(job).read_text())["id"], str)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False

    def selection(self, job: Job) -> Selection | None:
        """The selection's record, or None where there is none for these very settings."""
        try:
            record: Selection = json.loads(self.selection_path(job).read_text())
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        return record if isinstance(record, dict) and record.get("id") == job.id else None

    def lease_text(self) -> str:
        """What the lease says now, from the place itself.

        Raises:
            OSError: there is none, or the store does not answer.
        """
        return self.place.read(LEASE, patience=0.0).decode(errors="replace")

    def done(self, job: Job) -> bool:
        if job.in_driver:
            return self.selection(job) is not None
        return self.folder(job).result() is not None


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
    place = open_place(address)
    place.pull(lambda name: "/" not in name)
    return place.path
