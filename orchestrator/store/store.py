"""The output folder: the contract between all parts, and the only memory of a study.

    OUT/study.json  lease.json  selections/  report/
    OUT/jobs/<kind>-<name>-<id>/  settings.json  records.jsonl  checkpoints/  result.json

A job is done once its result.json is there. Pure: no Ray, no MLflow, no PyTorch.

On an object store the layout is the same. `Store.out` is then a copy of the small files on the
driver's node, which `Store.refresh` brings up to date, and a job works in a folder on its own node
that it uploads segment by segment.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gdas
from gdas.errors import InputError, one_line
from gdas.files import write_json
from orchestrator.experiment.kinds import KINDS
from orchestrator.experiment.study import Job, Study
from orchestrator.store.holder import LEASE
from orchestrator.store.home import home_of, key_of, present_command
from orchestrator.store.job_folder import COMMITS, SMALL, JobFolder, Tail
from orchestrator.store.origin import commit, machine
from orchestrator.store.patience import what
from orchestrator.store.place import open_place
from orchestrator.store.results import (
    Environment,
    JobEntry,
    JobSettings,
    Record,
    Selection,
    StudyFile,
)
from orchestrator.store.storage import Stamp, is_address

FORMAT = "gdas-study/1"
SETTLED_NS = 50_000_000
SILENT_S = 30.0
"""For how long a store may be silent before the driver says so, in seconds."""


class Store:
    """A study's output folder.

    Args:
        out: a folder, made if it is missing, or the address of one on an object store.

    Attributes:
        place: where the folder is.
        out: the folder; if it is on an object store, the copy of its small files.
        address: its path or address, valid on other nodes and readable for people.

    Raises:
        InputError: the folder cannot be made or reached, or an incompatible version wrote it.
    """

    def __init__(self, out: Path | str) -> None:
        self.place = open_place(out if is_address(out) else Path(out).resolve())
        self.listed: tuple[int, dict[str, Path]] = (-1, {})  # job folders by id; when jobs/ changed
        self.tails: dict[Path, Tail] = {}
        self.reading, self.refreshing = threading.Lock(), threading.Lock()
        self.refreshed_from = -1.0
        self.silent_since, self.said_silent = 0.0, False
        self.out, self.address = self.place.path, self.place.address
        try:
            (self.out / "jobs").mkdir(parents=True, exist_ok=True)
            (self.out / "selections").mkdir(exist_ok=True)
        except OSError as error:
            if not (self.out / "study.json").is_file():  # else it can still be read
                raise InputError(
                    f"--out {out}: cannot make the folder ({error.strerror}); name another"
                ) from None
        try:
            self.refresh(whole=True, patience=0.0)
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
        """Where MLflow's own files are: in the output folder, or in this node's cache.

        They are made from the job folders, so they can be made again.
        """
        return self.place.kept_here("mlflow")

    def refresh(self, *, whole: bool = False, patience: float | None = None) -> None:
        """Bring the copy of an object store's small files up to date; a local folder needs none.

        One listing serves all jobs, and all callers that wait while another one lists.

        Args:
            whole: whether to copy, beside what jobs write, the manifests of checkpoints and what
                drivers write.

        Raises:
            OSError: the store does not answer.
        """
        asked = time.monotonic()
        with self.refreshing:
            if whole or self.refreshed_from < asked:
                began = time.monotonic()
                below = "" if whole else "jobs/"
                self.place.pull(lambda name: _kept(name, whole), below=below, patience=patience)
                self.refreshed_from = began

    def refresh_quietly(self, say: Callable[[str], None] = print) -> None:
        """Refresh in the background: if the store does not answer, the next call tries again.

        Args:
            say: is told once if the store has not answered for a while, and when it does again.
        """
        try:
            self.refresh(patience=0.0)
        except OSError as error:
            self.silent_since = self.silent_since or time.monotonic()
            if not self.said_silent and time.monotonic() - self.silent_since > SILENT_S:
                self.said_silent = True
                say(f"{self.address} {what(str(error))[0]}: what is shown of its jobs is old")
            return
        if self.said_silent:
            say(f"{self.address} answers again")
        self.silent_since, self.said_silent = 0.0, False

    def fetch_report(self) -> None:
        """Download the report of a study on an object store, which `refresh` leaves out."""
        self.place.under("report").pull()

    def job_files(self) -> dict[str, dict[str, Stamp]]:
        """Every job folder by name, of this study or not, and its files by theirs."""
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
        """Delete a job folder: committing files first, so that a half-deleted one has no result."""
        there = self.place.under(f"jobs/{name}")
        for file in sorted(there.listing(), key=lambda file: not file.endswith(COMMITS)):
            there.remove(file)
        shutil.rmtree(there.path, ignore_errors=True)

    def publish(self, name: str) -> None:
        """Make a file or subfolder that this process wrote in `out` visible to all."""
        self.place.publish(name)

    def address_of(self, name: str) -> str:
        """The address of a file, valid on any machine."""
        return self.place.address_of(name)

    def study(self) -> StudyFile:
        """Read study.json; an empty dictionary if there is none yet.

        Raises:
            InputError: it is damaged.
        """
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
        """Write the resolved settings, every job's id and needs, the versions and the command.

        Jobs that earlier commands with the same settings have done stay known, so that `--only`
        another part hides nothing.
        """
        before = self._done_before(study, settings)
        written: StudyFile = {
            "format": FORMAT,
            "key": self.key(),
            "home": home_of(self.place),
            "settings": settings,
            "versions": versions,
            "command": command,
            "machine": machine(),
            "commit": commit(),
            "algorithm": gdas.ALGORITHM_VERSION,
            "before": before,
            "jobs": [{"label": job.label, "id": job.id, "needs": list(job.needs)} for job in study],
        }
        write_json(self.out / "study.json", written)
        self.publish("study.json")

    def _done_before(self, study: Study, settings: dict[str, Any]) -> list[JobEntry]:
        """The done jobs that study.json lists and this study does not; none of other settings."""
        found = self.study()
        same = found.get("settings") == json.loads(json.dumps(settings))
        if not same or found.get("algorithm") != gdas.ALGORITHM_VERSION:
            return []
        asked = {job.label for job in study}
        try:
            listed = [*found.get("before", []), *found.get("jobs", [])]
            return [e for e in listed if e["label"] not in asked and self.done(job_of(e))]
        except (AttributeError, KeyError, TypeError, ValueError):
            return []  # damaged; it is written anew

    def key(self) -> str:
        """The study's key; if this folder is a copy, one of its own."""
        return key_of(self.study(), home_of(self.place))

    def settle(self) -> None:
        """Record the key and the place of a folder that was moved or copied, if it can be written.

        The driver needs no such call, since `write_study` does the same.
        """
        found, now = self.study(), home_of(self.place)
        if found.get("home") == now:
            return
        try:
            present = {"key": self.key(), "home": now, "command": self.command()}
            write_json(self.out / "study.json", {**found, **present})
            self.publish("study.json")
        except OSError:
            return  # read only; the key is computed again

    def moved(self) -> bool:
        """Whether this folder was moved or copied since a command last wrote in it."""
        return self.study().get("home", home_of(self.place)) != home_of(self.place)

    def command(self) -> str:
        """The command that goes on with the study, with this folder as its `--out`; "" if none."""
        return present_command(self.study(), self.address)

    def folder(self, job: Job) -> JobFolder:
        """The job's folder, which need not exist; found by id, since its name may have changed."""
        existing = self._existing().get(job.id)
        return self._job(existing.name if existing else f"{job.label}-{job.id}")

    def _existing(self) -> dict[str, Path]:
        """The job folders by id, listed again only if one was added or removed.

        Listing all of them for every job would take time quadratic in their number.
        """
        jobs = self.out / "jobs"
        try:
            changed = jobs.stat().st_mtime_ns
        except FileNotFoundError:
            return {}
        if self.listed[0] != changed:
            paths = sorted(jobs.iterdir(), reverse=True)  # if two share an id, the first name wins
            # A folder that just changed may change again within one tick of the file clock.
            settled = time.time_ns() - changed > SETTLED_NS
            listed = {path.name.rpartition("-")[2]: path for path in paths}
            self.listed = changed if settled else -1, listed
            return listed
        return self.listed[1]

    def _job(self, name: str) -> JobFolder:
        return JobFolder(self.place.under(f"jobs/{name}"))

    def records(self, job: Job) -> list[Record]:
        """The records so far, as `JobFolder.records`, reading only what is new since the last call.

        The caller must not change the list.
        """
        path = self.folder(job).path / "records.jsonl"
        with self.reading:
            return self.tails.setdefault(path, Tail(path)).records()

    def other_versions(self, job: Job) -> list[JobFolder]:
        """Folders of jobs with the same kind and name but other settings."""
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
            environment: what else a trial needs to know, such as the data folder; it is not hashed.
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
        """The name of an existing job folder; for a selection, which has none, its id."""
        existing = self._existing().get(job_id)
        return existing.name if existing else job_id

    def selection_path(self, job: Job) -> Path:
        """The selection's record, which need not exist; later settings overwrite it."""
        return self.out / "selections" / f"{job.name}.json"

    @property
    def selections_address(self) -> str:
        """Where the selection records are, on any node."""
        return self.address_of("selections")

    def selection_is_whole(self, job: Job) -> bool:
        """Whether the selection's record can be read, whichever settings it was written for."""
        try:
            return isinstance(json.loads(self.selection_path(job).read_text())["id"], str)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False

    def selection(self, job: Job) -> Selection | None:
        """The selection's record; None if there is none for exactly these settings."""
        try:
            record: Selection = json.loads(self.selection_path(job).read_text())
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        return record if isinstance(record, dict) and record.get("id") == job.id else None

    def lease_text(self) -> str:
        """The content of the lease now, from the place itself and not from a copy.

        Raises:
            OSError: there is no lease, or the store does not answer.
        """
        return self.place.read(LEASE, patience=0.0).decode(errors="replace")

    def done(self, job: Job) -> bool:
        """Whether the job has its result; for a selection, its record."""
        if job.in_driver:
            return self.selection(job) is not None
        return self.folder(job).result() is not None


def job_of(entry: JobEntry) -> Job:
    """A job as study.json lists it, without its recipe.

    Raises:
        ValueError: there is no such kind of job; KeyError: the entry is not whole.
    """
    kind, _, name = entry["label"].partition("-")
    if kind not in KINDS:
        raise ValueError(kind)
    return Job(kind, name, entry["id"], tuple(entry["needs"]), {}, {})


def _kept(name: str, whole: bool) -> bool:
    """Whether the driver keeps a copy of an object."""
    parts = name.split("/")
    if parts[0] == "jobs":
        if len(parts) == 3:
            return parts[2] in SMALL
        return whole and len(parts) == 5 and parts[4] == "manifest.json"
    return name == "study.json" or (parts[0] == "selections" and len(parts) == 2)


def selection_records(address: str) -> Path:
    """Make the study's selection records available on this node, and return their folder."""
    place = open_place(address)
    place.pull(lambda name: "/" not in name)
    return place.path
