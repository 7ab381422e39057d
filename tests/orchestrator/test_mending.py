"""What faults left behind is put right, and said; errors say what to change."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch

from gdas.checkpoint import Segment, save
from orchestrator.experiment.build import build_study
from orchestrator.experiment.load import load_experiment
from orchestrator.experiment.study import Job, Study
from orchestrator.store.job_folder import JobFolder
from orchestrator.store.mending import mend
from orchestrator.store.results import Record
from orchestrator.store.store import Store
from orchestrator.work.body import describe, failure_recorded
from tests.orchestrator.test_study import identity
from tests.orchestrator.written import NO_DATA, plain_record, plain_result


@pytest.fixture
def study() -> Study:
    return build_study(load_experiment("smoke", []), identity, {})


def finished(store: Store, job: Job) -> tuple[JobFolder, list[Record]]:
    """A job that left three records, their checkpoint and a result."""
    folder = store.prepare(job, NO_DATA)
    records = [
        plain_record(p, of=3, metrics={"loss": 1.0 / p}, time=1.0, seconds=1.0) for p in (1, 2, 3)
    ]
    segment = Segment(3, 3, {}, state={"w": torch.zeros(2)})
    save(folder.checkpoints, segment, records)
    folder.rewrite_records(records)
    folder.write_result(plain_result())
    return folder, records


def test_a_finished_jobs_torn_record_comes_back_from_its_checkpoint(
    tmp_path: Path, study: Study
) -> None:
    store, job = Store(tmp_path), study.jobs[0]
    folder, records = finished(store, job)
    assert mend(study, store) == []
    path = folder.path / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    assert folder.records() == records[:2]
    (line,) = mend(study, store)
    assert line == f"{job.label}: damaged records.jsonl, restored from its last checkpoint"
    assert folder.records() == records


def test_a_damaged_result_or_selection_is_said(tmp_path: Path, study: Study) -> None:
    store, job = Store(tmp_path), study.jobs[0]
    folder, _ = finished(store, job)
    (folder.path / "result.json").write_text("{")
    select = next(job for job in study if job.kind == "select")
    store.selection_path(select).write_text(json.dumps([1]))
    said = mend(study, store)
    assert [line.partition(":")[0] for line in said] == [job.label, select.label]
    assert "going on from its last checkpoint" in said[0] and "selecting again" in said[1]


def test_half_written_files_are_taken_away_and_nothing_else(tmp_path: Path, study: Study) -> None:
    store, job = Store(tmp_path), study.jobs[0]
    folder, _ = finished(store, job)
    whole = set(tmp_path.rglob("*"))
    for left in (
        *(tmp_path / "study.json.7.partial", tmp_path / "selections" / "a.json.7.partial"),
        *(folder.path / "result.json.7.partial", folder.checkpoints / "000003/state.pt.partial"),
    ):
        left.write_text("x")
    assert mend(study, store) == []
    assert set(tmp_path.rglob("*")) == whole


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_out_of_memory_is_called_that_with_what_to_change(error: Exception) -> None:
    text = describe(error)
    assert text.startswith("out of memory (") and "batch_size" in text and "resources" in text


def test_other_errors_keep_their_names() -> None:
    assert describe(ValueError("two\nlines")) == "ValueError: two lines"
    assert describe(OSError(errno.ENOSPC, "No space left on device")).startswith("No space left")


def test_an_error_on_a_full_disk_is_not_hidden_by_the_note_of_it(tmp_path: Path) -> None:
    folder = JobFolder.open(tmp_path / "missing")  # nothing can be written there
    with pytest.raises(FloatingPointError, match="epoch 3"), failure_recorded(folder):
        raise FloatingPointError("epoch 3")
