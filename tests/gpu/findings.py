"""What was found, written to disk as soon as it is known, so that a run cut short keeps it.

`results.json` has a part for each of the pack's parts, and in it an entry a check: its figures, or
`error`, or `not_run` with the reason. One failed check does not stop the others.
"""

from __future__ import annotations

import gc
import json
import math
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gdas.files import write_json

RESULTS = "results.json"
Figures = dict[str, Any]


def read(folder: Path) -> dict[str, Any]:
    """All that was found so far; empty where there is nothing yet."""
    path = folder / RESULTS
    return json.loads(path.read_text()) if path.exists() else {}


def write(folder: Path, results: dict[str, Any]) -> None:
    """Write beside, then rename."""
    write_json(folder / RESULTS, plain(results))


def plain(value: Any) -> Any:
    """Numbers with six digits, and words for those that JSON does not know."""
    if isinstance(value, dict):
        return {str(key): plain(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [plain(of) for of in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value


class Findings:
    """One part's checks and the time that they have.

    Args:
        deadline: of time.monotonic(); no check but the first of all begins after it.
    """

    def __init__(self, folder: Path, part: str, deadline: float) -> None:
        self.folder, self.part, self.deadline = folder, part, deadline
        self.began = time.monotonic()
        self.write("seconds", 0.0)

    def left(self) -> float:
        """Seconds until the deadline; none or fewer: it has passed."""
        return self.deadline - time.monotonic()

    def write(self, key: str, value: Any) -> None:
        results = read(self.folder)
        results.setdefault(self.part, {"checks": {}})[key] = value
        write(self.folder, results)

    def note(self, name: str, figures: Figures) -> None:
        """Write one check's figures."""
        checks = read(self.folder)[self.part]["checks"]
        self.write("checks", checks | {name: figures})
        self.write("seconds", time.monotonic() - self.began)
        print(f"{self.part}: {name}: {_short(figures)}", flush=True)

    def _is_first(self) -> bool:
        """Whether nothing is known yet; then even a slow machine gives one answer."""
        return not any(
            of.get("checks") for part, of in read(self.folder).items() if part != "about"
        )

    def take(
        self, name: str, check: Callable[[], Figures], *, needs: float = 0.0
    ) -> Figures | None:
        """Run a check and write what it found; None where it failed or there was no time.

        Args:
            needs: seconds that must be left.
        """
        if self.left() <= needs and not self._is_first():
            self.note(name, {"not_run": "no time left"})
            return None
        began = time.monotonic()
        try:
            figures = check()
        except Exception as error:
            lines = traceback.format_exc().strip().split("\n")
            self.note(name, {"error": f"{type(error).__name__}: {error}"[:500], "at": lines[-8:-1]})
            return None
        finally:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        self.note(name, figures | {"seconds": time.monotonic() - began})
        return figures


def _short(figures: Figures) -> str:
    return json.dumps(plain(figures))[:300]
