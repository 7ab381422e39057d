"""The whole study's time left: estimates at first, then what its own jobs have taken."""

from __future__ import annotations

from pathlib import Path

import pytest

import orchestrator.cost.left as left
from orchestrator.cost.estimate import Estimate, Estimator
from orchestrator.cost.left import Remaining
from orchestrator.experiment.study import Job, Study
from orchestrator.store.board import Board
from orchestrator.store.store import Store
from tests.orchestrator.fake_study import fake_study, finish, record

BUDGET = {"CPU": 2.0, "GPU": 0.0}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Study, Store, Board]:
    """Two searches of half a core side by side, and a final; all guessed to take 30 s."""
    monkeypatch.setattr(Estimator, "estimate", lambda self, job: Estimate(30.0, "guess"))
    monkeypatch.setattr(left, "duration", lambda job, work: work)
    _, study, store = fake_study(tmp_path / "out", "search.seeds=[0,1]")
    return study, store, Board({job.id: "waiting" for job in study})


def remaining(study: Study, store: Store, board: Board) -> Remaining:
    return Remaining(study, store, board, lambda: BUDGET)


def jobs(study: Study) -> tuple[Job, Job, Job]:
    first, second = study.of_kind("search")
    return first, second, study.of_kind("train")[0]


def test_before_anything_has_run_it_is_the_plan(study: tuple[Study, Store, Board]) -> None:
    found = remaining(*study)()
    assert found is not None
    assert found.seconds == pytest.approx(60.0), "searches together, then the final"
    assert found.share == 0.0
    assert Remaining(*study, budget=dict)() is None, "the cluster is not known yet"


def test_what_has_run_corrects_what_has_not(study: tuple[Study, Store, Board]) -> None:
    """A search that took twice its estimate: the other and the final will, too."""
    found, store, board = study
    first, second, final = jobs(found)
    for position in (1, 2, 3):
        store.folder(first).append_record(record(position, seconds=20.0))
    board.states[first.id] = "done"
    asked = remaining(*study)
    now = asked()
    assert now is not None and now.seconds == pytest.approx(120.0)
    assert now.share == pytest.approx(60 * 0.5 / (60 * 0.5 + 60 * 0.5 + 60 * final.cost["CPU"]))
    # The other one's own pace counts for more: it has gone on for two segments of 5 s.
    for position in (1, 2):
        store.folder(second).append_record(record(position, seconds=5.0))
    board.states[second.id] = "running"
    assert asked() is now, "it is not computed at every second"
    asked.due = 0.0
    later = asked()
    assert later is not None
    assert later.seconds == pytest.approx(5 + 30 * 70 / 50, abs=1.5), "70 s for estimated 50"


def test_a_job_that_cannot_be_estimated_leaves_the_view_without_it(
    study: tuple[Study, Store, Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Estimator, job: Job) -> Estimate:
        raise KeyError("config")

    monkeypatch.setattr(Estimator, "estimate", refuse)
    assert remaining(*study)() is None


def test_what_failed_takes_no_more_time(study: tuple[Study, Store, Board]) -> None:
    found, store, board = study
    first, second, final = jobs(found)
    finish(store, first)
    board.states |= {first.id: "done", second.id: "failed", final.id: "blocked"}
    board.states |= {job.id: "blocked" for job in found if job.in_driver}
    now = remaining(*study)()
    assert now is not None and now.seconds == 0.0 and now.share == 1.0
