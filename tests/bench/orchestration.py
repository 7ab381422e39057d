"""What the orchestration costs beside the work: four searches started as a user would.

- start: seconds from the command to the first training step, by part.
- together: the searches' time from the first to the last step over the ideal, which is their
  work shared evenly by the cores.
- an epoch: what a trial spends between two epochs (checkpoint, record, report to Tune), and the
  CPU time of everything that is no trial (driver, console, tracking, Ray), as a share of a core.
- memory: proportional set size of everything that is no trial, while trials run.

Linux only (shared memory is counted as Linux does).
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from orchestrator.store.job_folder import JobFolder
from orchestrator.store.results import Record
from tests.bench.timing import Size
from tests.e2e.driving import Running, launch, title

STUDY = Path(__file__).with_name("orchestration.yaml")
CORES = 2
SIZES: dict[str, Size] = {
    "tiny": {"channels": 4, "images": 32, "epochs": 2},
    "default": {"channels": 8, "images": 640, "epochs": 4},
    "paper": {"channels": 16, "images": 700, "epochs": 8},
}
STARTED = {
    "imports, checks, data": ": new",
    "Ray and MLflow": "  starts",
}
"""Parts of the start, and what the command prints when each is over."""
LAST_PART = "the trial's process, its imports, the networks"
POLL_S = 0.1
TRIAL = "trial"
Taken = tuple[float, dict[psutil.Process, float]]
"""A time, and the CPU seconds that every process had taken by then."""


class Watch:
    """What the command's processes take, looked at again and again."""

    def __init__(self, running: Running, out: Path) -> None:
        self.running = running
        self.out = out
        self.roles: dict[psutil.Process, str] = {}
        self.cpu: dict[psutil.Process, float] = {}  # seconds
        self.memory: list[dict[psutil.Process, float]] = []  # MiB at every look while trials run

    def records(self) -> dict[str, list[Record]]:
        """By job."""
        return {path.name: JobFolder.open(path).records() for path in self.out.glob("jobs/*")}

    def look(self) -> None:
        now: dict[psutil.Process, float] = {}
        for member in self.running.family():
            self.roles[member] = _role(title(member), member.pid == self.running.pid)
            with suppress(psutil.Error):  # it may have ended meanwhile
                taken = member.cpu_times()
                self.cpu[member] = taken.user + taken.system
                now[member] = member.memory_full_info().pss / 2**20
        if any(self.records().values()):
            self.memory.append(now)

    def by_role(self, values: dict[psutil.Process, float]) -> dict[str, float]:
        """Sums of what is no trial's; a process that ever was a trial counts as one."""
        trials = {record["pid"] for records in self.records().values() for record in records}
        out: dict[str, float] = defaultdict(float)
        for member, value in values.items():
            if member.pid not in trials and self.roles[member] != TRIAL:
                out[self.roles[member]] += value
        return dict(out)

    def memory_by_role(self) -> dict[str, float]:
        """Medians over the looks."""
        looks = [self.by_role(look) for look in self.memory]
        roles = sorted({role for look in looks for role in look})
        return {role: statistics.median(look.get(role, 0.0) for look in looks) for role in roles}


def _role(title: str, is_driver: bool) -> str:
    if is_driver:
        return "driver"
    if title.startswith("ray::ImplicitFunc") or "fork_server" in title:
        return TRIAL
    return "Ray's idle workers" if title.startswith("ray::IDLE") else "Ray's servers"


def measure(size: Size) -> dict[str, Any]:
    """Run the study and return all figures.

    Raises:
        RuntimeError: the command failed.
    """
    with tempfile.TemporaryDirectory(prefix="orchestration-") as folder:
        return _measured(size, Path(folder))


def _measured(size: Size, folder: Path) -> dict[str, Any]:
    out, data = folder / "out", folder / "data"
    data.mkdir()
    words = [str(STUDY), "--out", str(out), "--data", str(data)]
    words.append(f"search.recipe.network.channels={size['channels']}")
    words.append(f"search.recipe.epochs={size['epochs']}")
    words += [f"search.recipe.{half}_images={size['images']}" for half in ("train", "valid")]
    began = time.time()
    running = launch(folder / "log", words, {"RAY_AUTH_MODE": "disabled"})
    seen: dict[str, float] = {}
    watch = Watch(running, out)
    first: Taken | None = None  # after one epoch
    while not running.ended():
        text = running.output()
        for part, sign in STARTED.items():
            if sign in text:
                seen.setdefault(part, time.time())
        if all(part in seen for part in STARTED):
            watch.look()
            if first is None and any(watch.records().values()):
                first = time.time(), dict(watch.cpu)
            if _trained(watch.records(), size["epochs"]):
                break
        time.sleep(POLL_S if len(seen) < len(STARTED) else 1.0)
    last = time.time(), dict(watch.cpu)
    if code := running.wait():
        raise RuntimeError(f"the measured command ended with {code}: {running.output()[-2000:]}")
    assert first is not None
    jobs = list(watch.records().values())
    return {"size": size, "cores": CORES, "epochs": sum(map(len, jobs))} | {
        "start": _start(began, seen, jobs),
        "together": _together(jobs),
        "an epoch": _epoch(jobs) | _beside(watch, first, last),
        "memory": watch.memory_by_role(),
    }


def _start(began: float, seen: dict[str, float], jobs: list[list[Record]]) -> dict[str, float]:
    """Seconds of every part of the way to the first training step."""
    parts, last = {}, began
    for part, when in {**seen, LAST_PART: min(r["started"] for job in jobs for r in job)}.items():
        parts[part], last = when - last, when
    return parts


def _together(jobs: list[list[Record]]) -> dict[str, float]:
    wall = max(job[-1]["time"] for job in jobs) - min(job[0]["started"] for job in jobs)
    work = sum(record["seconds"] for job in jobs for record in job)
    return {"wall_seconds": wall, "work_seconds": work, "over_ideal": wall / (work / CORES)}


def _trained(records: dict[str, list[Record]], epochs: int) -> bool:
    """Whether all four searches have had their last epoch."""
    return len(records) == 4 and all(len(of_job) == epochs for of_job in records.values())


def _epoch(jobs: list[list[Record]]) -> dict[str, float]:
    gaps = [
        after["started"] - before["time"]
        for job in jobs
        for before, after in itertools.pairwise(job)
    ]
    return {
        "seconds": statistics.median(r["seconds"] for job in jobs for r in job),
        "saving_seconds": statistics.median(gaps),
        "saving_seconds_most": max(gaps),
    }


def _beside(watch: Watch, first: Taken, last: Taken) -> dict[str, float]:
    """Shares of a core that all that is no trial, and the driver of it, took in between."""
    wall = last[0] - first[0]
    taken = watch.by_role({p: cpu - first[1].get(p, 0.0) for p, cpu in last[1].items()})
    return {"other_cores": sum(taken.values()) / wall, "driver_cores": taken["driver"] / wall}


def show(result: dict[str, Any]) -> None:
    print("\n" + "\n".join(lines(result)), flush=True)


def lines(result: dict[str, Any]) -> list[str]:
    """The figures in sentences, for the terminal and the page."""
    start_s, together, epoch = result["start"], result["together"], result["an epoch"]
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in start_s.items())
    memory = result["memory"]
    held = ", ".join(f"{role} {mib:.0f}" for role, mib in memory.items())
    saving = epoch["saving_seconds"]
    return [
        f"Command to first training step: {sum(start_s.values()):.1f} s ({parts}).",
        f"Four searches on {result['cores']} cores, first to last step: "
        f"{together['wall_seconds']:.1f} s, {together['over_ideal']:.2f} of the ideal "
        f"({together['work_seconds']:.1f} s of work shared evenly).",
        f"Between two epochs of {epoch['seconds']:.1f} s a trial spends {saving:.2f} s (at most "
        f"{epoch['saving_seconds_most']:.2f}) on checkpoint, record and report; that is "
        f"{100 * saving / 60:.1f} % of an epoch of 60 s. Everything that is no trial takes "
        f"{100 * epoch['other_cores']:.1f} % of a core (the driver, which tracks, "
        f"{100 * epoch['driver_cores']:.1f} %).",
        f"Memory of everything that is no trial: {sum(memory.values()):.0f} MiB ({held}).",
    ]
