"""What the checks of `tests.gpu.card_check` found, on disk at once."""

from __future__ import annotations

import json
import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass
class Report:
    """Results so far, on disk and as lines."""

    folder: Path
    device: torch.device
    end: float
    results: dict[str, Any] = field(default_factory=dict)
    compiling: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def add(self, name: str, value: Any, line: str | None = None) -> None:
        self.results[name] = value
        (self.folder / "results.json").write_text(json.dumps(self.results, indent=1))
        print(line if line is not None else f"{name}: {value}", flush=True)

    def check(self, name: str, run: Callable[[Report], None]) -> None:
        if time.monotonic() > self.end:
            self.add(name, "not run: out of time")
            return
        begin = time.monotonic()
        try:
            run(self)
        except Exception:
            last = traceback.format_exc(limit=-4)[-1800:]
            self.add(f"{name} failed", last)
        self.add(f"{name}, seconds", round(time.monotonic() - begin, 1))
