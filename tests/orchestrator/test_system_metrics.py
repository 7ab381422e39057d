"""What a job measures of its machine, and that MLflow has it under the names of its own."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from orchestrator.store.job_folder import JobFolder
from orchestrator.store.results import Result
from orchestrator.work import body, machine
from tests.e2e.driving import expected_points, points
from tests.orchestrator.fake_study import fake_study
from tests.orchestrator.test_tracking import made, record


class NvmlError(Exception):
    """What NVIDIA's library raises."""


def nvml() -> SimpleNamespace:
    """NVIDIA's library on a machine with four GPUs; the last one does not tell its power."""

    def power(handle: int) -> int:
        if handle == 3:
            raise NvmlError("Not Supported")
        return 350_000  # milliwatts

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 4,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetHandleByUUID={"GPU-c": 2}.__getitem__,
        nvmlDeviceGetIndex=lambda handle: handle,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=20e9, total=80e9),
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=90 + handle),
        nvmlDeviceGetPowerUsage=power,
        nvmlDeviceGetEnforcedPowerLimit=lambda handle: 700_000,
    )


def measure(folder: JobFolder, device: str = "cpu", lines: int = 1) -> None:
    """Measure the machine until there are so many lines, and the last one."""
    with machine.measured(folder, device):
        while len(folder.samples()) < lines - 1:
            time.sleep(0.002)


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder.open(tmp_path)


def test_a_machine_is_measured_under_mlflows_names(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monkeypatch.setattr(machine, "INTERVAL_S", 0.01)
    began = time.time()
    measure(folder, lines=3)
    samples = folder.samples()
    assert len(samples) >= 3
    times = [sample["time"] for sample in samples]
    assert began <= times[0] < times[-1] <= time.time() and times == sorted(times)
    theirs: set[str] = set()
    for monitor in (CPUMonitor(), DiskMonitor(), NetworkMonitor()):
        monitor.collect_metrics()
        theirs |= set(monitor._metrics)
    assert {name for sample in samples for name in sample["metrics"]} == theirs
    last = samples[-1]["metrics"]
    memory = psutil.virtual_memory().total / 1e6
    assert 0 < last["system_memory_usage_megabytes"] < memory
    share = 100 * last["system_memory_usage_megabytes"] / memory
    assert last["system_memory_usage_percentage"] == pytest.approx(share, abs=0.1)
    assert all(0 <= sample["metrics"]["cpu_utilization_percentage"] <= 100 for sample in samples)


def test_cpus_are_as_busy_as_their_times_say() -> None:
    Times = namedtuple("Times", ["user", "idle", "iowait", "guest"])
    before, now = Times(5.0, 10.0, 1.0, 4.0), Times(14.0, 12.0, 2.0, 6.0)
    # Nine seconds of the user's, two of them a guest's and counted twice; three of nothing.
    assert machine._busy(before, now) == pytest.approx(75.0)


def test_gpus_of_the_job_alone_are_measured_under_mlflows_names(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.system_metrics.metrics import gpu_monitor

    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    monkeypatch.setattr(gpu_monitor, "pynvml", nvml(), raising=False)
    theirs = gpu_monitor.GPUMonitor()
    theirs.collect_metrics()
    every = {name: values[0] for name, values in theirs._metrics.items()}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,GPU-c,3")
    measure(folder, "cuda")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    measure(folder, "cuda")
    mine, all_four = (
        {name: value for name, value in sample["metrics"].items() if name.startswith("gpu_")}
        for sample in folder.samples()
    )
    assert all_four == every
    assert mine == {name: every[name] for name in every if not name.startswith("gpu_0")}
    assert "gpu_3_utilization_percentage" in mine and "gpu_3_power_usage_watts" not in mine


def test_a_job_on_the_cpu_and_one_without_a_driver_measure_the_rest(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_driver() -> None:
        raise NvmlError("Driver Not Loaded")

    library = nvml()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    measure(folder, "cpu")
    library.nvmlInit = no_driver
    measure(folder, "cuda")
    for sample in folder.samples():
        assert sample["metrics"] and not [name for name in sample["metrics"] if "gpu" in name]


def test_a_long_jobs_lines_are_means(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    read = iter(range(1000))
    monkeypatch.setattr(machine, "INTERVAL_S", 0.001)
    monkeypatch.setattr(machine, "SHARE", 1)  # a line stands for all of the time so far
    monkeypatch.setattr(machine, "_machine", lambda folder: lambda: {"number": float(next(read))})
    with machine.measured(folder, "cpu"):
        while next(read) < 100:
            time.sleep(0.002)
    assert len(folder.samples()) <= 2, "the first, and the mean of all others"
    assert folder.samples()[-1]["metrics"]["number"] > 10


def test_what_cannot_be_measured_is_no_failure_of_the_job(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent() -> None:
        raise NotImplementedError("this system does not tell")

    monkeypatch.setattr(psutil, "virtual_memory", silent)
    before = threading.active_count()
    measure(folder)
    assert folder.samples() == [] and threading.active_count() == before


def test_a_job_is_measured_before_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, study, store = fake_study(tmp_path)
    folder = store.folder(study.of_kind("search")[0])
    monkeypatch.setattr(body, "data_on_this_node", lambda settings: tmp_path)
    measured: list[int] = []

    def written(self: JobFolder, result: Result) -> None:
        measured.append(len(self.samples()))

    monkeypatch.setattr(JobFolder, "write_result", written)
    with body.open_job(folder.address) as job:
        job.finish({"metrics": {}, "seconds": 0.0})
    assert measured == [1] and len(folder.samples()) == 1


def test_mlflow_has_what_was_measured_once_and_without_torn_lines(
    tmp_path: Path, empty_database: Callable[[Path], str]
) -> None:
    empty_database(tmp_path)
    _, _, folder, tracker = made(tmp_path)
    folder.rewrite_records([record(1, 10.0)])
    assert tracker.sync(), "a job of which nothing was measured"
    busy = "cpu_utilization_percentage"
    folder.append_sample({"time": 10.0, "metrics": {busy: 50.0}})
    with (folder.path / "system.jsonl").open("a") as file:
        file.write('{"time": 20, "metr\n{"time": 25, "metrics": {"no name of ours/": 1}}\n[]\n')
    assert tracker.sync()
    folder.append_sample({"time": 30.0, "metrics": {busy: 70.0, "gpu_0_power_usage_watts": 300.0}})
    assert tracker.sync() and tracker.sync()
    found = {point[1:] for point in points(tmp_path / "mlflow.db") if "/" in point[1]}
    assert {point for point in found if point[0].startswith("system/")} == {
        (f"system/{busy}", 0, 10_000, 50.0),
        (f"system/{busy}", 1, 30_000, 70.0),
        ("system/gpu_0_power_usage_watts", 1, 30_000, 300.0),
    }
    # A new command has only MLflow and the folder, and the history that it replaces takes it along.
    folder.rewrite_records([record(1, 15.0)])
    *_, tracker = made(tmp_path)
    assert tracker.sync()
    (folder.path / "system.jsonl").write_text(
        "".join(json.dumps(sample) + "\n" for sample in folder.samples())
    )
    assert points(tmp_path / "mlflow.db") == expected_points(tmp_path)
