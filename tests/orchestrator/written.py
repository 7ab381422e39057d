"""Whole files of a job folder for tests that care about a part of one.

What a test does not name has a value that says nothing.
"""

from __future__ import annotations

from gdas.cnn.genotype import PUBLISHED
from orchestrator.store.results import (
    Details,
    Environment,
    GenotypeJson,
    Record,
    Result,
    SearchResult,
    Trained,
)

CELL: GenotypeJson = PUBLISHED["GDAS_F1"].to_json()
NO_DATA: Environment = {"data": ""}
"""Of jobs that are prepared and never run."""


def plain_record(
    position: int,
    of: int = 9,
    *,
    metrics: dict[str, float] | None = None,
    details: Details | None = None,
    started: float = 0.0,
    time: float = 0.0,
    seconds: float = 0.0,
) -> Record:
    """One segment's record."""
    return {
        "position": position,
        "of": of,
        "metrics": {} if metrics is None else metrics,
        "details": {} if details is None else details,
        "started": started,
        "time": time,
        "seconds": seconds,
        "host": "here",
        "pid": 1,
    }


def plain_result() -> Result:
    """The result of a job without a training loop."""
    return {"metrics": {}, "seconds": 0.0}


def trained_result(digest: str) -> Trained:
    """The result of a job with a training loop, told by its digest."""
    return {"metrics": {}, "seconds": 0.0, "digest": digest, "genotype": CELL}


def search_result(score: dict[str, float], seconds: float = 0.0) -> SearchResult:
    """The result of a search whose derived cell has this score with shared weights."""
    return {
        "metrics": score,
        "seconds": seconds,
        "digest": "",
        "genotype": CELL,
        "weights": 1,
        "entropy": {"normal": 0.9},
        "margins": {"normal": [0.1]},
        "shared_weights": score,
    }
