"""Where a study comes from: this machine in words, and the commit of this code."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from pathlib import Path

PATIENCE_S = 5.0
"""How long a program may take to answer."""


def machine() -> str:
    """This machine's processor, cores and GPUs, in words."""
    gpus = _printed("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()
    named = [f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)]
    return ", ".join([f"{os.cpu_count()} cores ({_processor()})", *named])


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def commit() -> str:
    """The commit of the checkout that this code is in; empty if it is installed without one."""
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return ""
    found = _printed("git", "-C", str(here), "rev-parse", "--short=12", "HEAD").strip()
    changed = _printed("git", "-C", str(here), "status", "--porcelain", "-uno").strip()
    return f"{found} with changes" if found and changed else found


def _printed(*words: str) -> str:
    """What a program prints; empty if it is not there or fails."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""
