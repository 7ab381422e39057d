"""What `test_fork_server.py` calls in forked processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

BODY = "orchestrator.work.body:run_job"
MANY_MIB = 900
"""More than a process has that has imported PyTorch."""


def state() -> dict[str, Any]:
    """What a job could find changed by another one."""
    import numpy as np
    import torch

    return {
        "threads": torch.get_num_threads(),
        "dtype": str(torch.get_default_dtype()),
        "grad": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": [
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.allow_tf32,
            torch.backends.cuda.matmul.allow_tf32,
        ],
        "precision": torch.get_float32_matmul_precision(),
        "drawn": [torch.rand(1).item(), float(np.random.rand())],
        "warnings": len(warnings.filters),
        "environment": os.environ.get("LEFT_BY_A_JOB"),
        "folder": str(Path.cwd()),
        "files": sorted(map(str, Path("/proc/self/fd").iterdir())),
        "seconds to the alarm": signal.getitimer(signal.ITIMER_REAL)[0],
        "modules": "left_by_a_job" in sys.modules,
        "memory": _resident_mib() > MANY_MIB,
        "stdout": type(sys.stdout).__name__,
    }


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def write_state(path: str) -> None:
    Path(path).write_text(json.dumps(state()))


def change_everything(folder: str) -> None:
    """All that a badly behaved job could leave behind."""
    import numpy as np
    import torch

    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.autocast("cpu", torch.bfloat16).__enter__()
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = not torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = not torch.backends.cuda.matmul.allow_tf32
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    warnings.simplefilter("ignore")
    os.environ["LEFT_BY_A_JOB"] = "1"
    os.chdir(folder)
    signal.setitimer(signal.ITIMER_REAL, 1000)
    sys.modules["left_by_a_job"] = sys
    left: list[torch.Tensor] = []
    while _resident_mib() <= MANY_MIB:
        left.append(torch.ones(2**24))
    sys.left = left  # type: ignore[attr-defined]
    os.open(os.devnull, os.O_RDONLY)
    sys.stdout = sys.stderr
    torch.rand(100, 100) @ torch.rand(100, 100)


def write_pid_and_wait(path: str) -> None:
    Path(f"{path}.tmp").write_text(str(os.getpid()))
    Path(f"{path}.tmp").rename(path)
    time.sleep(600)


def leave_a_process(path: str) -> None:
    left = subprocess.Popen(["sleep", "600"])
    Path(path).write_text(str(left.pid))


def fail(text: str) -> None:
    raise ValueError(text)


def leave(code: str) -> None:
    os._exit(int(code))
