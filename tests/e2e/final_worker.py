"""One of two workers of a study's final, without Ray; `tests.gdas.team` forks both."""

from __future__ import annotations

from pathlib import Path

from orchestrator.work.final import train_worker
from tests.gdas.team import joined


def main(rank: int, size: int, job: Path, meeting: Path) -> None:
    """Train in a job's folder, together with the other worker."""
    with joined(rank, size, meeting):
        train_worker(str(job))
