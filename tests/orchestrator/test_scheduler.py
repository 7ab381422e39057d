"""The rules of who runs next, without Ray: jobs are finished by writing their results."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from gdas.checkpoint import Segment, save
from orchestrator.cost.plan import standing
from orchestrator.experiment.study import Job
from orchestrator.run.scheduler import Scheduler, missing
from orchestrator.store.failure import write_failure
from orchestrator.store.recorded import recorded_board
from orchestrator.store.store import Store
from orchestrator.terminal.progress import command_after, unfinished_line
from orchestrator.work.body import failure_recorded, run_to_end
from tests.orchestrator.test_study import study as image_study
from tests.orchestrator.written import NO_DATA, plain_record, search_result

TWO_TRACKS = [
    "searches.other.recipe={network: {reduction: fixed}, epochs: 2}",
    "search.seeds=[0, 1]",
    "search.resources.cpus=1",
    "final.resources.workers=2",
    "finals.other-digits.cell.searched=other",
]


class Cluster:
    """Two CPUs whose trials finish when the test says so."""

    def __init__(self, folder: Path, cpus: float = 2.0) -> None:
        self.said: list[str] = []
        self.store = Store(folder)
        study = image_study(*TWO_TRACKS)
        budget = {"CPU": cpus, "GPU": 0.0}
        self.scheduler = Scheduler(study, self.store, budget, self.said.append)

    def start(self) -> list[str]:
        """Everything that may start now."""
        started = []
        while (job := self.scheduler.next_job()) is not None:
            self.store.prepare(job, NO_DATA)
            started.append(job.label)
        return started

    def job(self, label: str) -> Job:
        return next(job for job in self.scheduler.study if job.label == label)

    def finish(self, label: str, top1: float = 10.0) -> None:
        score = {"valid/top1": top1, "valid/loss": 1.0}
        self.store.folder(self.job(label)).write_result(search_result(score))
        self.scheduler.finished(self.job(label))

    def fail(self, label: str) -> None:
        write_failure(self.store.folder(self.job(label)).place, "RuntimeError: no", "")
        self.scheduler.finished(self.job(label))

    def state(self, label: str) -> str:
        return self.scheduler.board.states[self.job(label).id]


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def with_one_retry(tmp_path: Path) -> tuple[Cluster, str, Job]:
    """A started cluster that gives a job one retry; the first search's label and job."""
    cluster, label = Cluster(tmp_path), "search-gdas-frc-seed0"
    cluster.scheduler.retries = 1
    cluster.start()
    return cluster, label, cluster.job(label)


def test_no_more_starts_than_fit(cluster: Cluster) -> None:
    assert cluster.start() == ["search-gdas-frc-seed0", "search-gdas-frc-seed1"]
    assert cluster.start() == []
    cluster.finish("search-gdas-frc-seed0")
    assert cluster.start() == ["search-other-seed0"]


def test_a_final_goes_before_searches_and_is_not_starved_by_them(cluster: Cluster) -> None:
    cluster.start()
    cluster.finish("search-gdas-frc-seed0", 20)
    cluster.start()  # search-other-seed0 takes the free CPU
    cluster.finish("search-gdas-frc-seed1", 30)
    assert cluster.start() == [], "the final needs both CPUs; no search slips in before it"
    cluster.finish("search-other-seed0")
    assert cluster.start() == ["train-gdas-frc-digits"]
    cluster.finish("train-gdas-frc-digits")
    assert cluster.start() == ["search-other-seed1"]


def test_there_is_no_barrier_between_tracks(cluster: Cluster) -> None:
    cluster.start()
    cluster.finish("search-gdas-frc-seed0")
    cluster.finish("search-gdas-frc-seed1")
    assert cluster.state("search-other-seed0") == "waiting"
    assert cluster.start() == ["train-gdas-frc-digits"], "no search of the other track has begun"


def test_the_best_seed_by_validation_wins_and_ties_go_to_the_earlier(cluster: Cluster) -> None:
    cluster.start()
    cluster.finish("search-gdas-frc-seed0", 30)
    cluster.finish("search-gdas-frc-seed1", 30)
    record = cluster.store.selection(cluster.job("select-gdas-frc"))
    assert record is not None
    assert [c["score"] for c in record["candidates"]] == [30, 30]
    assert record["winner"]["seed"] == 0


def test_a_failed_job_blocks_what_needs_it_and_nothing_else(cluster: Cluster) -> None:
    cluster.start()
    cluster.fail("search-gdas-frc-seed0")
    assert cluster.state("select-gdas-frc") == "blocked"
    assert cluster.state("train-gdas-frc-digits") == "blocked"
    assert cluster.scheduler.board.notes[cluster.job("search-gdas-frc-seed0").id].startswith(
        "RuntimeError"
    )
    cluster.finish("search-gdas-frc-seed1")
    assert cluster.start() == ["search-other-seed0", "search-other-seed1"]
    cluster.finish("search-other-seed0")
    cluster.finish("search-other-seed1")
    assert cluster.start() == ["train-other-digits"]
    cluster.finish("train-other-digits")
    assert not cluster.scheduler.board.open()


def test_a_new_command_finds_what_is_done(cluster: Cluster) -> None:
    cluster.start()
    cluster.finish("search-gdas-frc-seed0")
    again = Cluster(cluster.store.out)
    assert again.state("search-gdas-frc-seed0") == "done"
    assert again.start() == ["search-gdas-frc-seed1", "search-other-seed0"]


def test_a_process_that_dies_without_a_word_is_a_failure(cluster: Cluster) -> None:
    cluster.start()
    cluster.scheduler.finished(cluster.job("search-gdas-frc-seed0"))
    note = cluster.scheduler.board.notes[cluster.job("search-gdas-frc-seed0").id]
    assert "without a word" in note


def test_a_lost_machine_uses_up_no_retry_and_the_jobs_own_errors_do(tmp_path: Path) -> None:
    cluster, label, job = with_one_retry(tmp_path)
    for _ in range(5):
        cluster.scheduler.finished(job, node_lost=True)
        assert cluster.state(label) == "waiting"
        assert cluster.start() == [label]
    assert all("uses up no retry" in line for line in cluster.said)
    cluster.fail(label)
    assert "tried again from its newest checkpoint" in cluster.said[-1]
    assert cluster.state(label) == "waiting" and cluster.start() == [label]
    cluster.fail(label)
    assert cluster.state(label) == "failed"
    assert f"{label}: failed (RuntimeError: no); given up" in cluster.said
    assert cluster.scheduler.board.failures[job.id] == 7


def test_a_process_that_was_kept_and_died_before_the_job_came_is_not_the_jobs_failure(
    tmp_path: Path,
) -> None:
    """Once: if new processes do not start either, it comes to an end."""
    cluster, label, job = with_one_retry(tmp_path)
    cluster.scheduler.finished(job, began=False)
    assert "uses up no retry" in cluster.said[-1] and cluster.start() == [label]
    cluster.scheduler.finished(job, began=False)
    assert "uses up no retry" not in cluster.said[-1] and cluster.start() == [label]
    cluster.scheduler.finished(job, began=False)
    assert cluster.state(label) == "failed"


def test_a_process_that_dies_at_the_same_place_is_given_up_and_one_that_went_on_is_not(
    tmp_path: Path,
) -> None:
    cluster, label, job = with_one_retry(tmp_path)
    for position in range(1, 4):
        cluster.store.folder(job).append_record(plain_record(position))
        cluster.scheduler.finished(job)
        assert cluster.start() == [label]
    cluster.scheduler.finished(job)
    assert cluster.start() == [label]
    cluster.scheduler.finished(job)
    assert cluster.state(label) == "failed"


def test_a_broken_connection_to_a_lost_machine_is_not_the_jobs_own_error(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.start()
    job = cluster.job("search-gdas-frc-seed0")
    write_failure(cluster.store.folder(job).place, "a worker's machine was lost", "", "node")
    cluster.scheduler.finished(job)
    assert cluster.state(job.label) == "waiting"


@pytest.mark.parametrize(
    ("nodes", "lack"),
    [
        ([{"CPU": 2.0}], None),
        ([{"CPU": 1.0}, {"CPU": 1.0}], None),
        ([{"CPU": 1.0}], "needs 2 CPUs and the cluster has 1"),
        (
            [{"CPU": 0.5}] * 4,
            r"needs 2 x 1 CPUs, each on one machine, .* 4 machines have room for 0",
        ),
        ([{"CPU": 1.5}, {"CPU": 0.9}], r"2 machines have room for 1"),
    ],
)
def test_what_a_cluster_can_never_hold_is_said(
    cluster: Cluster, nodes: list[dict[str, float]], lack: str | None
) -> None:
    final = cluster.job("train-gdas-frc-digits")
    resources = final.resources | {"workers": 2, "cpus_per_worker": 1.0, "gpus_per_worker": 0.0}
    said = missing(dataclasses.replace(final, resources=resources), nodes)
    assert said is None if lack is None else re.search(lack, str(said))


def test_a_search_needs_its_gpu_on_a_machine_with_enough_cpus(cluster: Cluster) -> None:
    search = cluster.job("search-gdas-frc-seed0")
    search = dataclasses.replace(search, resources=search.resources | {"cpus": 4.0, "gpus": 0.5})
    apart = [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}]
    assert "have room for 0" in str(missing(search, apart))
    assert missing(search, [*apart, {"CPU": 4.0, "GPU": 1.0}]) is None
    assert missing(search, [{"CPU": 8.0}]) == "needs 0.5 GPUs and the cluster has 0"


def test_a_job_that_lost_its_machine_waits_says_for_what_and_holds_nothing_up(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path)
    scheduler = cluster.scheduler
    scheduler.nodes = [{"CPU": 1.0}, {"CPU": 1.0}]
    cluster.start()
    for seed in (0, 1):
        cluster.finish(f"search-gdas-frc-seed{seed}")
    assert cluster.start() == ["train-gdas-frc-digits"], "two workers, one a machine"
    scheduler.nodes, scheduler.budget = [{"CPU": 1.0}], {"CPU": 1.0, "GPU": 0.0}  # one left
    assert cluster.start() == ["search-other-seed0"], "what has room goes on"
    waiting = [line for line in cluster.said if line.startswith("train-gdas-frc-digits: waits")]
    assert len(waiting) == 1 and "needs 2 CPUs and the cluster has 1 now" in waiting[0], waiting
    cluster.finish("search-other-seed0")
    assert cluster.start() == ["search-other-seed1"]
    cluster.finish("search-other-seed1")
    assert cluster.start() == [], "the other final has no room either, and one of them is waiting"
    scheduler.nodes, scheduler.budget = [{"CPU": 1.0}] * 2, {"CPU": 2.0, "GPU": 0.0}
    cluster.finish("train-gdas-frc-digits")
    assert cluster.start() == ["train-other-digits"]
    cluster.finish("train-other-digits")
    assert scheduler.board.all_done()
    assert len([line for line in cluster.said if ": waits" in line]) == 1


def test_an_autoscaling_cluster_is_given_the_job_and_it_is_said_for_what_it_waits(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path)
    cluster.scheduler.nodes, cluster.scheduler.grows = [{"memory": 1.0}], True
    assert len(cluster.start()) == 2, "as many as the cluster may be"
    assert sum("the cluster has 0 now; more are being started" in x for x in cluster.said) == 2


def test_a_divergence_is_not_tried_again_since_it_would_go_the_same_way(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.scheduler.retries = 2
    (label, *_) = cluster.start()
    folder = cluster.store.folder(cluster.job(label))
    with pytest.raises(FloatingPointError), failure_recorded(folder):
        raise FloatingPointError("epoch 1: train/loss is nan")
    cluster.scheduler.finished(cluster.job(label))
    assert cluster.state(label) == "failed"
    assert "given up, for it would fail again" in " ".join(cluster.said)


def diverge_all_searches(tmp_path: Path) -> Cluster:
    """Every search has diverged in one command; a second one has begun."""
    cluster = Cluster(tmp_path)
    while started := cluster.start():
        for label in started:
            folder = cluster.store.folder(cluster.job(label))
            with pytest.raises(FloatingPointError), failure_recorded(folder):
                raise FloatingPointError("epoch 1: train/loss is nan")
            cluster.scheduler.finished(cluster.job(label))
    return Cluster(tmp_path)


def test_the_next_command_does_not_try_a_divergence_again_and_says_what_to_change(
    tmp_path: Path,
) -> None:
    cluster, label = diverge_all_searches(tmp_path), "search-gdas-frc-seed0"
    study, store, board = cluster.scheduler.study, cluster.store, cluster.scheduler.board
    assert not cluster.scheduler.may_run() and cluster.start() == []
    assert cluster.state(label) == "failed" and cluster.state("select-gdas-frc") == "blocked"
    assert any(
        line.startswith(f"{label}: failed before; not tried again, for it would go the same way")
        and "change one of its settings" in line
        and line.endswith(f"add --only {label}")
        for line in cluster.said
    )
    assert "not tried again" in unfinished_line(study, store, board)
    then = command_after(study, store, board, "the same")
    assert then.endswith(f"log {tmp_path} {label} --traceback")
    driven = recorded_board(store, study, driven=True)
    assert driven.states[cluster.job(label).id] == "failed"
    assert standing(cluster.job(label), store) == "diverged"


def test_a_divergence_that_is_named_is_tried_again(tmp_path: Path) -> None:
    before = diverge_all_searches(tmp_path)
    named = before.job("search-gdas-frc-seed0")
    again = Scheduler(before.scheduler.study, before.store, {}, lambda _: None, 0, {named.id})
    assert again.may_run() and again.next_job() == named and again.next_job() is None


def test_other_failures_are_tried_again_by_the_next_command(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    for label in cluster.start():
        cluster.fail(label)
    study, store = cluster.scheduler.study, cluster.store
    assert unfinished_line(study, store, cluster.scheduler.board).endswith("tries them again")
    assert "search-gdas-frc-seed0" in Cluster(tmp_path).start()


def test_a_damaged_checkpoint_that_a_job_passed_over_is_said_once(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    (label, *_) = cluster.start()
    job = cluster.job(label)
    folder = cluster.store.folder(job)
    for position in (1, 2):
        segment = Segment(position, 3, {"train/loss": 1.0}, state={"x": torch.ones(2)})
        save(folder.checkpoints, segment, [])
    (folder.checkpoints / "000002" / "state.pt").write_bytes(b"torn")
    run_to_end(folder, lambda checkpoint: iter([]))
    cluster.scheduler.say_damage(job)
    cluster.finish(label)
    said = [line for line in cluster.said if "damaged state.pt" in line]
    assert len(said) == 1 and said[0].startswith(f"{label}: ") and "000002" in said[0]
