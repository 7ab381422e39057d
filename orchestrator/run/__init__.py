"""What runs a study: its checks, its scheduler, and Ray, which no other folder imports.

Ray reads some of its settings when it is imported, so they are set here, before any module of this
folder can import it.
"""

import os

PASSIVE = {"OMP_WAIT_POLICY": "passive"}
"""Threads of PyTorch's OpenMP that wait for the others sleep.

By default they spin, which costs a job with two threads several times its CPU time if anything else
wants the cores (`python -m tests.bench waiting`). The library reads this when it is loaded, so it
is set before a job's process imports PyTorch.
"""

HUGE_PAGES = {
    "GLIBC_TUNABLES": ":".join(
        (
            "glibc.malloc.hugetlb=1",
            f"glibc.malloc.mmap_threshold={2**25}",
            f"glibc.malloc.trim_threshold={2**33}",
        )
    )
}
"""The C library asks the kernel for pages of 2 MiB instead of 4 KiB, if that gives them on request,
and keeps what is freed for the next step.

A search step on a CPU walks through half a gigabyte. Large pages save the looking up of addresses,
and keeping them that the kernel clears them anew (`python -m tests.bench fused` measures both). The
C library reads this when a process starts.
"""

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # also how soon Train sees that workers are done
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "600",  # a trial's thread may end late on a busy machine
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Tune's own handler waits up to 15 s for trials. What they wrote is safe, so they are ended.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "64",  # else trials of a custom searcher start one by one
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""Ray settings that turn its own output off and let it start trials without delay."""

AT_START = PASSIVE | HUGE_PAGES
"""What libraries of a job's process read when it starts."""

FOR_JOBS = AT_START | QUIET
"""The environment of the processes of jobs; what is set already stays."""

os.environ.update({key: value for key, value in FOR_JOBS.items() if key not in os.environ})
