"""Records, and what was measured of machines, as MLflow's points: key, value, time and step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.store.results import Record, Sample

SYSTEM = "system/"
"""MLflow's page shows metrics that begin so on a tab of their own."""


def of_records(records: Sequence[Record]) -> list[Any]:
    """A record's metrics and seconds; its segment's number is their step."""
    from mlflow.entities import Metric

    return [
        Metric(key, value, milliseconds(record), record["position"])
        for record in records
        for key, value in (record["metrics"] | {"seconds": record["seconds"]}).items()
    ]


def of_samples(samples: Sequence[Sample], known: int = 0) -> list[Any]:
    """What was measured of a job's machine; the steps count from 0, as in MLflow's own.

    Args:
        known: so many of the samples are left out, the first ones.
    """
    from mlflow.entities import Metric

    return [
        Metric(SYSTEM + name, value, int(sample["time"] * 1000), step)
        for step, sample in enumerate(samples)
        if step >= known
        for name, value in sample["metrics"].items()
    ]


def milliseconds(record: Record, key: str = "time") -> int:
    """A time of a record as MLflow takes it."""
    when: Any = record.get(key, record["time"])
    return int(float(when) * 1000)


def end_of(records: Sequence[Record]) -> int | None:
    """When the last segment ended, in milliseconds; None (to MLflow: now) without records."""
    return milliseconds(records[-1]) if records else None
