"""What would go wrong with an experiment on this machine: versions, storage, MLflow, data, jobs.

It only reads and measures, except for a probe file in the output folder, which it removes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal, cast

import torch
from packaging.requirements import Requirement

from gdas.data import cifar, corpora, vocabulary
from gdas.data.images import DIGIT_PHOTOS
from gdas.data.settings import AnyImageData, PhotoData, TextData
from gdas.data.shard_index import open_index
from gdas.data.source import Split
from gdas.data.text import text_counts, text_identity
from gdas.errors import InputError, one_line
from orchestrator.cost.estimate import PROCESS, estimated_bytes, estimated_seconds
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.load import experiment_of
from orchestrator.experiment.study import Job
from orchestrator.run.checks import checked_study
from orchestrator.run.footing import faults
from orchestrator.store.data import described
from orchestrator.store.storage import cache_folder, is_address, open_storage
from orchestrator.terminal.arithmetic import arithmetic
from orchestrator.terminal.command import say_next
from orchestrator.terminal.words import Finding, clock
from orchestrator.tracking.reach import fault_of, unheeded

GIB = 2**30
DISTRIBUTION = "gdas-reproduction"


def examine(options: argparse.Namespace) -> int:
    """Print what was found, title by title; returns the exit code."""
    experiment = experiment_of(options.words)
    out: str = options.out or f"runs/{experiment.name}"
    bad = 0
    for title, findings in (
        ("versions", versions()),
        ("storage", storage(out)),
        ("MLflow", mlflow(experiment.mlflow.tracking_uri, out)),
        ("data", _data(experiment, options.data)),
        ("jobs", jobs(experiment, _folder(options.data or "data"))),
    ):
        print(title)
        for finding in findings:
            bad += finding.level == "BAD"
            print(f"  {finding.line()}", flush=True)
    words = list(options.words) or [experiment.name]
    words += ["--data", options.data] if options.data else []
    words += ["--out", options.out] if options.out else []
    command = shlex.join(["python", "-m", "orchestrator.reproduce_paper", *words])
    say_next(f"mend what is BAD ({bad}), then run this again" if bad else command)
    return 1 if bad else 0


# Versions


def versions() -> Iterator[Finding]:
    """Python and every package that the project needs."""
    for requirement in _requirements():
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            fix = f"pip install '{requirement}'"
            yield Finding("BAD", f"{requirement.name}: not installed", fix)
            continue
        if requirement.specifier.contains(found, prereleases=True):
            yield Finding("ok", f"{requirement.name} {found}")
        else:
            yield Finding(
                "BAD",
                f"{requirement.name} {found}, needs {requirement.specifier}",
                f"pip install '{requirement}'",
            )
    yield Finding("ok", f"python {platform.python_version()}")


def _requirements() -> list[Requirement]:
    """The dependencies in pyproject.toml, from the checkout or from the installed package."""
    pyproject = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if pyproject.is_file():
        lines = tomllib.loads(pyproject.read_text())["project"]["dependencies"]
    else:
        lines = requires(DISTRIBUTION) or []
    found = [Requirement(line) for line in lines]
    return [one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]


# Storage and MLflow


def storage(address: str) -> Iterator[Finding]:
    """Whether OUT can be written to, and how much room it has."""
    if is_address(address):
        yield _object_store(address, "--out")
        return
    out = Path(address)
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    probe = there / f".gdas-doctor-{os.getpid()}"
    try:
        probe.write_bytes(b"0" * 4096)
        probe.unlink()
    except OSError as error:
        why = error.strerror
        yield Finding("BAD", f"{out}: cannot write ({why})", "name another folder with --out")
        return
    yield Finding("ok", f"{out}: can be written to")
    free = shutil.disk_usage(there).free / GIB
    level: Literal["ok", "note", "BAD"] = "ok" if free > 5 else "note" if free > 1 else "BAD"
    fix = "" if level == "ok" else "free some, or name another folder with --out"
    yield Finding(level, f"{free:.1f} GiB free there", fix)
    for what, fix in faults():
        yield Finding("BAD", what, fix)
    shared = Path("/dev/shm")
    if shared.is_dir():
        room = shutil.disk_usage(shared).free / GIB
        small = room < 1
        fix = "docker run --shm-size=2g: Ray keeps its objects there" if small else ""
        yield Finding("note" if small else "ok", f"{room:.1f} GiB free in {shared}", fix)


def _object_store(address: str, option: str) -> Finding:
    name = f".gdas-doctor-{os.getpid()}"
    try:
        place = open_storage(address, option=option)
        place.write(name, b"0", patience=0.0)
        place.remove(name)
    except (InputError, OSError) as problem:
        return Finding(
            "BAD",
            f"{option} {address}: cannot be written to ({one_line(problem, 200)})",
            "check the bucket's name, your credentials and its rights, or name another",
        )
    return Finding("ok", f"{address}: can be written to")


def mlflow(uri: str | None, out: str) -> Iterator[Finding]:
    """Whether the tracking server answers this account, as it will be asked by a study."""
    for line in unheeded(uri):
        yield Finding("note", line.removeprefix("note: "))
    if uri is None:
        place = "on the driver's machine" if is_address(out) else f"sqlite:///{out}/mlflow.db"
        yield Finding("ok", f"no server named: {place}")
        return
    if not uri.startswith(("http://", "https://")):
        yield Finding("ok", f"{uri} (not a server: nothing to reach)")
        return
    if fault := fault_of(uri):
        why, _, fix = fault.partition("; ")
        yield Finding("BAD", f"{uri}: {why}", f"{fix}, or leave mlflow.tracking_uri out")
    else:
        yield Finding("ok", f"{uri}: answers this account")


# Data


def _folder(named: str) -> Path:
    """The data folder; for an address, a folder with the files that identify its data sets."""
    try:
        return described(named) if is_address(named) else Path(named).resolve()
    except InputError:
        return cache_folder() / "data" / "nothing"  # the error was reported by `_data`


def _data(experiment: Experiment, named: str | None) -> Iterator[Finding]:
    """The data folder, and each data set in it."""
    if named is not None and is_address(named):
        yield _object_store(named, "--data")
        return
    folder = Path(named or "data").resolve()
    if named is not None and not folder.is_dir():
        fix = f"mkdir {shlex.quote(named)}, or name another"
        yield Finding("BAD", f"--data {named}: no such folder", fix)
        return
    yield from data_sets(experiment, folder)


def data_sets(experiment: Experiment, folder: Path) -> Iterator[Finding]:
    """Whether each data set that a job reads is there, with the published checksums."""
    wanted: dict[str, AnyImageData | TextData] = {}
    specs = (experiment.searches, experiment.finals, experiment.measures)
    for spec in (one for named in specs for one in named.values()):
        wanted.setdefault(spec.recipe.data.name, spec.recipe.data)
    for name, data in wanted.items():
        if name == DIGIT_PHOTOS:
            yield Finding("ok", f"{name}: built in, made when a study starts")
            continue
        if isinstance(data, PhotoData):
            yield _photos(data, folder)
            continue
        if isinstance(data, TextData) and data.format == "text":
            yield _own_text(data, folder)
            continue
        splits: tuple[vocabulary.Split, ...] = ("train", "test")
        if isinstance(data, TextData):
            splits = ("train", "valid", "test")
            files = [f for split in splits for f in corpora.source_files(name, split, folder)]
        else:
            files = [
                f for split in splits for f in cifar.source_files(name, cast(Split, split), folder)
            ]
        yield _published(name, files, folder)


def _photos(data: PhotoData, folder: Path) -> Finding:
    try:
        index = open_index(data, folder)
    except InputError as problem:
        what, _, fix = str(problem).partition("; ")
        return Finding("BAD", what, fix)
    counts = ", ".join(f"{shards.photos:,} {split}" for split, shards in index.splits.items())
    return Finding("ok", f"{data.name}: converted, {counts} (checksums: when a study starts)")


def _own_text(data: TextData, folder: Path) -> Finding:
    splits: tuple[vocabulary.Split, ...] = ("train", "valid", "test")
    try:
        found = {split: text_identity(data, split, folder) for split in splits}
    except InputError as problem:
        what, _, fix = str(problem).partition("; ")
        return Finding("BAD", what, fix)
    sizes = text_counts(data, found)
    counts = ", ".join(f"{sizes.counts[split]:,} {split}" for split in splits)
    return Finding("ok", f"{data.name}: {sizes.vocabulary:,} words; tokens: {counts}")


def _published(name: str, files: list[tuple[Path, str]], folder: Path) -> Finding:
    """A data set of files with published checksums."""
    if not files:
        return Finding("ok", f"{name}: built in")
    missing = [path for path, _ in files if not path.is_file()]
    if len(missing) == len(files):
        if any((folder / "arrow").glob(f"{name}-*.arrow")):
            return Finding("ok", f"{name}: converted in {folder / 'arrow'}")
        return Finding(
            "note",
            f"{name}: not in {folder}",
            "it is downloaded when the study starts; without a network, put "
            f"{files[0][0].parent.name}/ there or name its folder with --data",
        )
    if missing:
        return Finding(
            "BAD", f"{missing[0]}: missing", f"delete {missing[0].parent} to download it again"
        )
    for path, published in files:
        kind = "md5" if len(published) == 32 else "sha256"
        with path.open("rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != published and not corpora.is_published(path, published):
            return Finding(
                "BAD",
                f"{path}: is not the published file (whose {kind} is {published})",
                "delete it to download it again, or set data.checksum=any",
            )
    return Finding("ok", f"{name}: {len(files)} files with their published checksums")


# Jobs


def jobs(experiment: Experiment, data: Path) -> Iterator[Finding]:
    """Whether this machine has what each job needs; jobs with equal needs share a line."""
    cores, memory = usable_cores(), usable_memory()
    devices = [
        (torch.cuda.get_device_name(i), torch.cuda.get_device_properties(i).total_memory)
        for i in range(torch.cuda.device_count())
    ]
    gpus = ", ".join(f"{name} ({size / GIB:.0f} GiB)" for name, size in devices) or "no GPU"
    yield Finding("ok", f"this machine: {cores} cores, {memory / GIB:.1f} GiB memory, {gpus}")
    try:
        study = checked_study(experiment, data)
    except InputError as problem:
        yield Finding("BAD", str(problem), "see above")
        return
    yield from arithmetic(study.in_cluster)
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in study.in_cluster:
        shown = (f"{estimated_bytes(job):.2g}", clock(estimated_seconds(job)))
        task = job.recipe["config"]["task"]
        groups.setdefault((job.kind, task, str(job.cost), *shown), []).append(job)
    for alike in groups.values():
        yield _job(alike, cores, memory, devices)


def _job(alike: list[Job], cores: int, memory: float, devices: list[tuple[str, int]]) -> Finding:
    job = alike[0]
    workers = job.workers
    each = estimated_bytes(job)
    cost = ", ".join(f"{value:g} {key}" for key, value in job.cost.items() if value)
    others = f" and {len(alike) - 1} alike" if len(alike) > 1 else ""
    cuda = job.resources["device"] == "cuda"
    where = "GPU memory" if cuda else "memory"
    need = (each - PROCESS) if cuda else each * workers
    what = (
        f"{job.label}{others}: {cost}, about {need / GIB:.1f} GiB {where}"
        f"{' a worker' if cuda and workers > 1 else ''}, roughly {clock(estimated_seconds(job))}"
    )
    spec = job.of.section
    key = "workers, cpus_per_worker" if "workers" in job.resources else "cpus"
    if cuda and len(devices) < job.cost["GPU"]:
        return Finding(
            "BAD",
            what,
            f"too few GPUs: --address of a cluster, or {spec}.*.resources: device=cpu",
        )
    if job.cost["CPU"] > cores:
        return Finding(
            "BAD", what, f"more cores than here: lower {spec}.*.resources ({key}), or --address"
        )
    room = max((size for _, size in devices), default=0) if cuda else memory
    # Jobs that share a GPU, or the cores, share the memory too.
    together = _together(job, cores, len(alike))
    if need * together > room:
        fix = f"may be killed for memory with {together} at once: lower recipe.batch_size, or ask "
        return Finding("note", what, fix + f"for more of {spec}.*.resources so that fewer run")
    return Finding("ok", what)


def _together(job: Job, cores: int, alike: int) -> int:
    """How many of these jobs run on one machine, or on one GPU, at the same time."""
    share = job.resources.get("gpus", job.resources.get("gpus_per_worker", 0))
    held = share if share else job.cost["CPU"] / cores
    return max(1, min(alike, int(1 / held) if held else alike))


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_memory() -> float:
    """Bytes of memory that this process may use: the machine's, or the container's limit."""
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, float(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return total
