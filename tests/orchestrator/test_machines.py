"""Jobs that are kept to some machines, such as finals to those that are not taken back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ray.tune.execution.tune_controller import TrialRunnerWrapper, TuneController

from gdas.errors import InputError
from orchestrator.experiment.config import TrainResources, TrialResources
from orchestrator.experiment.study import Job
from orchestrator.run.ray_study import KEPT_FOR_S, Queue
from orchestrator.run.scheduler import missing
from orchestrator.run.trial import bundles, trial_config
from tests.orchestrator.fake_study import fake_study

ON_DEMAND = "final.resources.machines=on_demand"
SPOT = {"CPU": 4.0, "GPU": 0.0}


def jobs(out: Path, *words: str) -> tuple[Any, Job, Job]:
    _, study, store = fake_study(out, *words)
    return store, study.of_kind("search")[0], study.of_kind("train")[0]


def test_a_final_waits_for_a_machine_of_its_kind_and_a_search_takes_any(tmp_path: Path) -> None:
    _, search, final = jobs(tmp_path, ON_DEMAND)
    assert missing(search, [SPOT]) is None
    assert missing(final, [SPOT]) == "needs 1 CPUs of on_demand and the cluster has 0"
    assert missing(final, [SPOT, SPOT | {"on_demand": 1.0}]) is None
    narrow = {"CPU": 0.4, "GPU": 0.0, "on_demand": 1.0}
    lack = missing(final, [SPOT, narrow, narrow, narrow])
    assert lack is not None and "cluster's 3 machines of on_demand have room for 0" in lack


def test_ray_is_asked_for_the_least_share_of_the_resource(tmp_path: Path) -> None:
    store, search, final = jobs(tmp_path, ON_DEMAND, "final.resources.workers=1")

    def asked(job: Job) -> Any:
        return bundles(trial_config(job, store.folder(job))).bundles

    assert asked(final) == [{"CPU": 0.5, "on_demand": 0.0001}]
    assert asked(search) == [{"CPU": 0.5}]


def test_a_single_worker_is_a_trial_and_several_are_reserved_by_ray_train(tmp_path: Path) -> None:
    store, _, alone = jobs(tmp_path / "one", "final.resources.workers=1")
    assert bundles(trial_config(alone, store.folder(alone))).bundles == [{"CPU": 0.5}]
    store, _, team = jobs(tmp_path / "two", "final.resources.workers=2")
    assert bundles(trial_config(team, store.folder(team))).bundles == [{"memory": 1 << 20}]


def test_the_machines_change_no_id(tmp_path: Path) -> None:
    _, _, final = jobs(tmp_path / "any")
    _, _, kept = jobs(tmp_path / "kept", ON_DEMAND)
    assert kept.id == final.id and kept.alike != final.alike


def test_a_kept_process_is_ended_once_nobody_has_needed_it_for_a_while() -> None:
    searcher, controller = MagicMock(), MagicMock()
    queue = Queue(searcher)
    searcher.handed_or_ended = time.monotonic()
    assert queue.choose_trial_to_run(controller) is None
    end = controller._tune_controller._cleanup_cached_actors
    assert not end.called
    searcher.handed_or_ended -= KEPT_FOR_S + 1
    assert queue.choose_trial_to_run(controller) is None
    end.assert_called_once_with(force_all=True)
    # What is used of Ray without being public: if it goes, processes are kept too long.
    assert callable(TuneController._cleanup_cached_actors)
    assert TrialRunnerWrapper("it", None)._tune_controller == "it"


@pytest.mark.parametrize("name", ["CPU", "on demand", "", "memory"])
def test_what_cannot_be_such_a_resource_is_refused(name: str) -> None:
    for kind in (TrialResources, TrainResources):
        with pytest.raises(InputError, match=f"^machines={name}: "):
            kind(machines=name)
