"""What a job's machine does while the job runs: CPU, memory, disk, network and the job's GPUs.

A thread measures every ten seconds and adds a line to the job's folder, which the driver sends to
MLflow. The names are those that MLflow gives its own system metrics, so that its page shows them
where it shows those. A job's process has no MLflow, and a machine needs none.

Nothing here touches a job's results, and nothing that fails here is a failure of the job.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from statistics import fmean
from threading import Event, Thread
from typing import Any

import psutil

from gdas.distributed import workers
from orchestrator.store.job_folder import JobFolder

INTERVAL_S = 10.0
SHARE = 360
"""A line stands for this part of the time so far, if that is longer than the interval.

So a job of an hour has 360 lines, and one of a week some 2,200.
"""
MB = 1e6  # megabytes are MLflow's
Measure = Callable[[], dict[str, float]]


@contextmanager
def measured(folder: JobFolder, device: str) -> Iterator[Callable[[], None]]:
    """Measure the machine while the block runs; the first of several workers does.

    Args:
        device: the job's, "cpu" or "cuda".

    Yields:
        A function that takes the last sample. It is called before the job is marked done, because
        the driver reads the folder of a job that is done once.
    """
    if workers().rank > 0:
        yield lambda: None
        return
    over = Event()
    thread = Thread(target=_keep_measuring, args=(folder, device, over), daemon=True)
    thread.start()

    def end() -> None:
        if not over.is_set():
            over.set()
            thread.join()
            with suppress(OSError):
                folder.publish_samples()

    try:
        yield end
    finally:
        end()


def _keep_measuring(folder: JobFolder, device: str, over: Event) -> None:
    """Measure until `over` is set, and once more then."""
    with suppress(Exception):  # systems that do not tell, a full disk
        measures = [_machine(folder), *([_gpus()] if device == "cuda" else [])]
        began = written = time.monotonic()
        samples: list[dict[str, float]] = []
        while True:
            last = over.wait(INTERVAL_S)
            samples.append(
                {name: value for measure in measures for name, value in measure().items()}
            )
            now = time.monotonic()
            if last or now - written >= (now - began) / SHARE:
                folder.append_sample({"time": time.time(), "metrics": _mean(samples)})
                written, samples = now, []
            if last:
                return


def _mean(samples: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(fmean(sample[name] for sample in samples), 1) for name in samples[0]}


def _machine(folder: JobFolder) -> Measure:
    """Measure CPUs, memory, network and the disk of the job's folder."""
    cpu = psutil.cpu_times()
    began = psutil.net_io_counters()

    def measure() -> dict[str, float]:
        nonlocal cpu
        before, cpu = cpu, psutil.cpu_times()
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(folder.path))
        found = {
            "cpu_utilization_percentage": _busy(before, cpu),
            "system_memory_usage_megabytes": memory.used / MB,
            "system_memory_usage_percentage": 100 * memory.used / memory.total,
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": disk.used / MB,
            "disk_available_megabytes": disk.free / MB,
        }
        if began is not None and (now := psutil.net_io_counters()) is not None:
            found["network_receive_megabytes"] = (now.bytes_recv - began.bytes_recv) / MB
            found["network_transmit_megabytes"] = (now.bytes_sent - began.bytes_sent) / MB
        return found

    return measure


def _busy(before: Any, now: Any) -> float:
    """How busy the CPUs were between two readings of their times, in percent.

    `psutil.cpu_percent` remembers a reading for each thread, and the first call has none.
    """
    spent = [b - a for a, b in zip(_spent(before), _spent(now), strict=True)]
    return 100 * (1 - spent[0] / spent[1]) if spent[1] > 0 else 0.0


def _spent(times: Any) -> tuple[float, float]:
    """Idle seconds, and all."""
    # Linux counts what guests take as the user's too.
    every = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return times.idle + getattr(times, "iowait", 0.0), every


def _gpus() -> Measure:
    """Measure the GPUs that this process may use; none if the driver does not tell."""
    try:
        import pynvml as nvml

        nvml.nvmlInit()
        handles = _handles(nvml)
    except Exception:  # no driver of NVIDIA's, or a library that is not the driver's
        return dict

    def measure() -> dict[str, float]:
        found: dict[str, float] = {}
        for number, handle in handles.items():
            with suppress(nvml.NVMLError):
                memory = nvml.nvmlDeviceGetMemoryInfo(handle)
                found[f"gpu_{number}_memory_usage_megabytes"] = memory.used / MB
                found[f"gpu_{number}_memory_usage_percentage"] = 100 * memory.used / memory.total
            with suppress(nvml.NVMLError):  # parts of a GPU do not tell
                rates = nvml.nvmlDeviceGetUtilizationRates(handle)
                found[f"gpu_{number}_utilization_percentage"] = rates.gpu
            with suppress(nvml.NVMLError):
                watts = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
                found[f"gpu_{number}_power_usage_watts"] = watts
                most = nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000
                found[f"gpu_{number}_power_usage_percentage"] = 100 * watts / most
        return found

    return measure


def _handles(nvml: Any) -> dict[int, Any]:
    """NVIDIA's handles of the GPUs in CUDA_VISIBLE_DEVICES, or of all, by their number."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    words = range(nvml.nvmlDeviceGetCount()) if named is None else named.split(",")
    found = {}
    for word in words:
        name = str(word).strip()
        if name.isdecimal():
            handle = nvml.nvmlDeviceGetHandleByIndex(int(name))
        else:
            handle = nvml.nvmlDeviceGetHandleByUUID(name)
        found[nvml.nvmlDeviceGetIndex(handle)] = handle
    return found
