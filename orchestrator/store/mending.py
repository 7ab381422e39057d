"""Repair what faults left behind in an output folder, before jobs start. Pure.

Only the driver that holds the lease calls this. Unfinished jobs need no repair: they find their
newest valid checkpoint by themselves, and its history replaces their records.
"""

from __future__ import annotations

from typing import cast

from gdas.checkpoint import history
from orchestrator.experiment.study import Study
from orchestrator.store.results import Record
from orchestrator.store.store import Store

HALF_WRITTEN = ("*.partial", "selections/*.partial", "report/*.partial", "jobs/*/*.partial",
                "jobs/*/checkpoints/*/*.partial")  # fmt: skip


def mend(study: Study, store: Store) -> list[str]:
    """Delete half-written files, and restore damaged records of finished jobs.

    Returns:
        A line for each thing that was damaged.
    """
    for pattern in HALF_WRITTEN:
        for path in store.out.glob(pattern):
            path.unlink(missing_ok=True)
    said = []
    for job in study:
        if job.in_driver:
            if store.selection_path(job).exists() and not store.selection_is_whole(job):
                said.append(f"{job.label}: its record is damaged; selecting again")
            continue
        folder = store.folder(job)
        done = folder.result() is not None
        if not done and (folder.path / "result.json").exists():
            said.append(f"{job.label}: damaged result.json; going on from its last checkpoint")
        whole = history(folder.checkpoints) if done else None
        if whole is not None and folder.records() != whole:
            folder.rewrite_records(cast(list[Record], whole))
            said.append(f"{job.label}: damaged records.jsonl, restored from its last checkpoint")
    return said
