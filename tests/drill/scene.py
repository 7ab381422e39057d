"""One study folder of the drill: what stands in it, and what a fault did to it."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestrator.store.job_folder import JobFolder
from orchestrator.store.results import Record
from tests.e2e.driving import Running, expected_points, folders, launch, points, wait_for

MEASURED = ("measure-",)
"""Jobs whose results are times: no two runs have the same."""
SHOWN = 4
QUIET = {"RAY_AUTH_MODE": "disabled"}


@dataclass
class Scene:
    """A study's folder, and how it is run.

    Args:
        folder: of this fault: `out`, the commands' log, a tracking server's files.
        data: where data sets lie.
        rng: draws the moment.
        experiment: what is run.
        undisturbed: the output folder of a run that nothing struck; None for that run itself.
        words: settings of the command.
        started: every command so far.
        environment: of the commands.
        closing: what else to call at the end.
    """

    folder: Path
    data: Path
    rng: random.Random
    experiment: str = "drill"
    undisturbed: Path | None = None
    words: list[str] = field(default_factory=list)
    started: list[Running] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    closing: list[Callable[[], None]] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def database(self) -> Path:
        """MLflow's, of the tracking server where there is one."""
        served = self.folder / "server.db"
        return served if served.exists() else self.out / "mlflow.db"

    def start(self, *words: str) -> Running:
        arguments = [self.experiment, "--out", str(self.out), "--data", str(self.data)]
        log = self.folder / "commands.log"
        running = launch(log, [*arguments, *self.words, *words], QUIET | self.environment)
        self.started.append(running)
        return running

    def end(self) -> None:
        """End every command that still runs, all that it started, and what must close."""
        for running in self.started:
            running.end()
        for close in self.closing:
            close()

    def jobs(self) -> dict[str, JobFolder]:
        """By label."""
        return jobs_in(self.out)

    @cached_property
    def segments(self) -> dict[str, int]:
        """How many segments every job with a training loop has, by label, first started first."""
        assert self.undisturbed is not None
        records = {
            label: folder.records()
            for label, folder in jobs_in(self.undisturbed).items()
            if not label.startswith(MEASURED)
        }
        first = sorted(records, key=lambda label: float(records[label][0]["started"]))
        return {label: len(records[label]) for label in first}

    def labels(self, kind: str = "") -> list[str]:
        """Of all jobs with a training loop, or of those of a kind."""
        return [label for label in self.segments if label.startswith(kind)]

    def selections(self) -> list[str]:
        """The names of all selections that the study makes."""
        assert self.undisturbed is not None
        return sorted(path.stem for path in self.undisturbed.glob("selections/*.json"))

    def dependents(self, label: str) -> set[str]:
        """All that a job, or a selection (`select-NAME`), brings about, by label."""
        jobs = json.loads((self.out / "study.json").read_text())["jobs"]
        ids = {job["id"] for job in jobs if job["label"] == label}
        found: set[str] = set()
        for job in jobs:  # what a job needs stands before it
            if ids.intersection(job["needs"]):
                ids.add(job["id"])
                found.add(job["label"])
        return found

    def records(self, label: str) -> list[Record]:
        folder = self.jobs().get(label)
        return folder.records() if folder else []

    def draw_moment(self, running: Running, labels: list[str], *, least: int = 0) -> str:
        """Wait for a drawn moment inside a drawn job's segment; returns the job's label.

        Args:
            running: just started.
            labels: of jobs, of which one that is not done is drawn.
            least: records that the job must have by then.
        """
        jobs = self.jobs()
        done = [label for label, folder in jobs.items() if folder.result() is not None]
        long = [label for label in labels if self.segments[label] > least]
        label = self.rng.choice([label for label in long if label not in done])
        have, last = len(self.records(label)), self.segments[label] - 1
        self.wait_inside(running, label, self.rng.randint(min(last, max(least, have)), last))
        return label

    def running_since(self, began: float) -> dict[str, float]:
        """Jobs with a training loop that were started after `began` and are not done, and when."""
        found = {}
        for label, folder in self.jobs().items():
            path = folder.path / "settings.json"
            if label in self.segments and folder.result() is None and path.exists():
                since = path.stat().st_mtime
                if since > began:
                    found[label] = since
        return found

    def wait_inside(self, running: Running, label: str, count: int) -> None:
        """Until a command that was just started runs the job, and it has so many records."""
        began = time.time()
        wait_for(lambda: label in self.running_since(began), f"the start of {label}", running)
        if count and len(self.records(label)) >= count:  # an earlier start left them
            time.sleep(self.rng.uniform(1, 8))
            return
        wait_for(lambda: len(self.records(label)) >= count, f"{count} records of {label}", running)
        time.sleep(self.rng.uniform(0, 0.4))

    def standing(self) -> str:
        """How far every job is, in words."""
        parts = []
        for label, folder in self.jobs().items():
            done = folder.result() is not None
            parts.append(f"{label} {'done' if done else len(folder.records())}")
        if len(parts) > SHOWN:
            finished = sum(part.endswith(" done") for part in parts)
            parts = [part for part in parts if not part.endswith(" done")]
            parts.insert(0, f"{finished} jobs done")
        return ", ".join(parts) or "no job yet"

    def open_jobs(self) -> list[str]:
        return [label for label, folder in self.jobs().items() if folder.result() is None]


@dataclass
class Struck:
    """What a fault did.

    Attributes:
        moment: where it hit, in words.
        labels: jobs whose work in flight it ended.
        time: when.
        before: records at that time, by job.
        started: when jobs were last started, by job.
        finished: the modification times of results that must not be written again.
        remarks: what was seen that must be seen.
        wrong: what was seen that must not be.
        earlier: what hit the study before, where a fault hits more than once.
    """

    moment: str
    labels: list[str]
    time: float
    before: dict[str, list[Record]]
    finished: dict[str, int]
    started: dict[str, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    earlier: list[Struck] = field(default_factory=list)


def jobs_in(out: Path) -> dict[str, JobFolder]:
    """The job folders of an output folder, by label."""
    return {label: JobFolder.open(path) for label, path in folders(out).items()}


def strike(scene: Scene, moment: str, labels: list[str] | None = None) -> Struck:
    """Take down where everything stands, at the moment of the fault."""
    jobs = scene.jobs()
    return Struck(
        moment=moment,
        labels=scene.open_jobs() if labels is None else labels,
        time=time.time(),
        before={label: folder.records() for label, folder in jobs.items()},
        finished={
            label: (folder.path / "result.json").stat().st_mtime_ns
            for label, folder in jobs.items()
            if folder.result() is not None
        },
        started={
            label: path.stat().st_mtime
            for label, folder in jobs.items()
            if (path := folder.path / "settings.json").exists()
        },
    )


def lost(scene: Scene, struck: Struck) -> tuple[int, float]:
    """Segments that were computed twice, and seconds of work that were lost, those included."""
    segments, seconds = 0, 0.0
    for hit in struck.earlier:
        more = lost(scene, hit)
        segments, seconds = segments + more[0], seconds + more[1]
    for label, before in struck.before.items():
        after = {record["position"]: record for record in scene.records(label)}
        redone = [r for r in before if after.get(r["position"], r)["time"] != r["time"]]
        segments += len(redone)
        seconds += sum(record["seconds"] for record in redone)
        if label in struck.labels:
            began = max([r["time"] for r in before] + [struck.started.get(label, struck.time)])
            if before:  # before the first record most of the time goes into starting
                seconds += max(0.0, struck.time - began)
    return segments, seconds


def recovery(scene: Scene, struck: Struck) -> float | None:
    """Seconds from the fault to the next committed segment of a job that it hit."""
    times = [
        record["time"]
        for label in struck.labels
        for record in scene.records(label)
        if record["time"] > struck.time
    ]
    return min(times) - struck.time if times else None


def differences(scene: Scene, undisturbed: Path) -> list[str]:
    """Where the folder is not what an undisturbed run leaves, one line each."""
    ours, theirs = scene.jobs(), jobs_in(undisturbed)
    found = []
    if sorted(p.path.name for p in ours.values()) != sorted(p.path.name for p in theirs.values()):
        return [f"jobs {sorted(ours)}, undisturbed {sorted(theirs)}"]
    for label, folder in ours.items():
        mine: dict[str, object] = {**(folder.result() or {})}
        other: dict[str, object] = {**(theirs[label].result() or {})}
        if label.startswith(MEASURED):
            if mine.keys() != other.keys():
                found.append(f"{label}: another result")
            continue
        for key in sorted((mine | other).keys() - {"seconds"}):
            if mine.get(key) != other.get(key):
                found.append(f"{label}: {key} differs")
        if _numbers(folder.records()) != _numbers(theirs[label].records()):
            found.append(f"{label}: records differ")
    for path in sorted(undisturbed.glob("selections/*.json")):
        if _selection(scene.out / "selections" / path.name) != _selection(path):
            found.append(f"selection {path.stem} differs")
    if report(scene.out) != report(undisturbed):
        found.append("the report differs")
    have, want = points(scene.database), expected_points(scene.out)
    if have != want:
        found.append(
            f"MLflow: {(want - have).total()} points missing, {(have - want).total()} more"
        )
    left = [p for p in scene.out.rglob("*.partial") if "ray" not in p.relative_to(scene.out).parts]
    if left:
        found.append(f"left behind: {', '.join(p.name for p in left)}")
    return found


def _numbers(records: list[Record]) -> list[Any]:
    """What must be equal of two runs' records."""
    return [[r["position"], r["of"], r["metrics"], r["details"]] for r in records]


def _selection(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in record.items() if key != "time"}


def report(out: Path) -> str:
    """The report's text without its times, its command, and what measurements found."""
    try:
        text = (out / "report" / "report.md").read_text()
    except OSError:
        return ""
    text = re.sub(r"(?ms)^### One iteration with and without.*?(?=^#|\Z)", "", text)
    text = re.sub(r"(?m)^- (when|where|code|command): .*\n", "", text)
    return re.sub(r"\d+:\d\d(:\d\d)?|\d+(\.\d+)? (s|ms|min|h)\b", "TIME", text)
