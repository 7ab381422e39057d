"""The example's kind of job runs, resumes, is tracked and reported; nothing else knows of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from orchestrator.cost.estimate import estimated_seconds
from orchestrator.experiment.build import make_job
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.kinds import KINDS, load
from orchestrator.experiment.study import Job, Study
from orchestrator.report.report import write_report
from orchestrator.report.view import Results
from orchestrator.run.scheduler import Scheduler
from orchestrator.store.recorded import open_recorded
from orchestrator.store.results import Record
from orchestrator.store.store import Store
from orchestrator.tracking.tracker import Tracker
from tests.examples.own_kind import KIND
from tests.orchestrator.fake_study import fake_study, finish
from tests.orchestrator.written import search_result


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Experiment, Study, Store, Job]:
    """A study whose search is done and that has one job of the kind."""
    monkeypatch.setitem(KINDS, "chance", KIND)
    experiment, study, store = fake_study(tmp_path / "out")
    search = study.jobs[0]
    recipe = {"config": search.recipe["config"], "data": search.recipe["data"], "draws": 3}
    job = make_job("chance", "frc", recipe, search.resources, search)
    study = dataclasses.replace(study, jobs=(search, job))
    store.write_study(study, {}, {"torch": "2.0"})
    finish(store, search)
    store.folder(search).write_result(search_result({"valid/top1": 33.0, "valid/loss": 1.0}))
    return experiment, study, store, job


def test_a_job_of_an_own_kind_resumes_is_tracked_and_reported(
    made: tuple[Experiment, Study, Store, Job],
) -> None:
    experiment, study, store, job = made
    scheduler = Scheduler(study, store, {"CPU": 1.0, "GPU": 0.0}, print, retries=1)
    assert scheduler.next_job() == job and estimated_seconds(job) == 0.0
    folder = store.prepare(job, {"data": "nowhere"})

    def interrupt(record: Record) -> None:
        if record["position"] == 2:
            raise KeyboardInterrupt

    body = load(job.of.body)
    with pytest.raises(KeyboardInterrupt):
        body(folder.address, interrupt)
    before = folder.records()
    body(folder.address)
    assert [record["position"] for record in folder.records()] == [1, 2, 3]
    assert folder.records()[:2] == before, "what was done is not done again"
    scheduler.finished(job)
    assert scheduler.board.states[job.id] == "done"
    assert open_recorded(str(store.out))[1].job(job.id) == job

    tracker = Tracker(study, store, experiment)
    assert tracker.sync() and len(tracker.runs) == 2
    run = tracker.client.get_run(tracker.runs[job.id])
    assert run.data.tags["stage"] == KIND.title
    assert run.data.metrics["shared"] == folder.records()[-1]["metrics"]["shared"]
    page = write_report(Results(experiment, study, store)).with_suffix(".md").read_text()
    assert f"| {KIND.title} frc | 3 |" in page


@pytest.mark.slow
def test_a_job_of_an_own_kind_runs_in_a_trial(
    made: tuple[Experiment, Study, Store, Job],
) -> None:
    from orchestrator.run.machines import ray_cluster
    from orchestrator.run.ray_study import run_study

    _, study, store, job = made
    with ray_cluster(None) as budget:
        run_study(Scheduler(study, store, budget, print), {"data": "nowhere"})
    assert [record["position"] for record in store.records(job)] == [1, 2, 3]
    assert store.done(job)
