"""What a dry run says: how long each job takes, how that is known, and what it comes to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gdas.data.settings import TextData
from gdas.data.text import text_counts
from gdas.errors import InputError
from orchestrator.cost import estimate, images
from orchestrator.cost.estimate import (
    FUSED_FASTER,
    GUESSED,
    LAST_S,
    RECORDED,
    TIMED,
    Estimate,
    Estimator,
    timed_seconds,
)
from orchestrator.cost.plan import confirm, duration, makespan, print_plan, standings, totals
from orchestrator.experiment.build import build_study
from orchestrator.experiment.load import load_experiment
from orchestrator.experiment.study import Job, Study
from orchestrator.store.failure import note_failure, write_failure
from orchestrator.store.kernels import kernels_here
from orchestrator.store.store import Store
from tests.orchestrator.test_study import identity, study
from tests.orchestrator.written import NO_DATA, plain_record, plain_result

QUICK = ["search.recipe.train_images=64", "search.recipe.valid_images=64",
         "search.recipe.compared_cells=0", "search.recipe.recalibration_batches=1"]  # fmt: skip


def of(found: Study, label: str) -> Job:
    return next(job for job in found if job.label == label)


def spans(found: Study, seconds: dict[str, float]) -> dict[str, float]:
    """By the beginning of a label."""
    return {
        job.id: next((s for key, s in seconds.items() if job.label.startswith(key)), 0.0)
        for job in found
    }


@pytest.mark.parametrize(
    ("cpus", "expected"),
    [(1.0, 4 * 10 / 2 + 7), (2.0, 10 + 7), (0.5, 4 * 10 + 7)],
)
def test_the_time_of_a_study_is_that_of_its_schedule(cpus: float, expected: float) -> None:
    """Four searches of half a CPU, ten seconds each, then a final of seven."""
    found = study()
    budget = {"CPU": cpus, "GPU": 0.0}
    assert makespan(found, spans(found, {"search": 10.0, "train": 7.0}), budget) == expected


def test_a_wide_final_waits_for_the_searches_that_run() -> None:
    found = study("final.resources.workers=2", "finals.own.cell={published: GDAS_F1}")
    times = spans(found, {"search": 10.0, "train": 7.0})
    assert makespan(found, times, {"CPU": 2.0, "GPU": 0.0}) == 7 + 10 + 7


def test_what_is_done_takes_no_time_and_the_rest_is_summed_and_priced() -> None:
    found = study()
    estimates = {job.id: Estimate(0.0, RECORDED) for job in found}
    assert totals(found, estimates, {"CPU": 2.0, "GPU": 0.0}, None) == ["nothing is left to do"]
    estimates[of(found, "train-gdas-frc-digits").id] = Estimate(3600.0 - 2.0, TIMED)
    line, known = totals(found, estimates, {"CPU": 2.0, "GPU": 0.0}, 0.5)
    assert line == "in all: about 1:00:25 with 2 CPU; 1.00 CPU-hours, at 0.5 an hour 0.50"
    assert known == "how the work is known, jobs: 1 timed here"


def test_several_workers_are_started_by_ray_train_which_takes_longer() -> None:
    alone, team = study(), study("final.resources.workers=2")
    times = [duration(of(found, "train-gdas-frc-digits"), 100.0) for found in (alone, team)]
    assert times == [102.0, 116.0]
    assert duration(of(alone, "train-gdas-frc-digits"), 0.0) == 0.0, "it is done"


def test_records_of_a_like_job_tell_and_only_what_is_left_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    earlier, now = study(), study("search.recipe.epochs=8")
    folder = store.prepare(of(earlier, "search-gdas-frc-seed0"), NO_DATA)
    folder.append_record(plain_record(1, of=3, time=5.0, seconds=5.0))
    folder.append_record(plain_record(2, of=3, time=5.0, seconds=7.0))
    estimator = Estimator(store)
    assert estimator.estimate(of(now, "search-gdas-frc-seed3")) == (8 * 6.0, RECORDED)
    assert estimator.estimate(of(earlier, "search-gdas-frc-seed0")) == (1 * 6.0, RECORDED)
    rates = ("weights.lr=0.01", "weights.weight_decay=0", "alpha.lr=0.3", "sampler.tau_end=2")
    slow = study(*(f"search.recipe.{rate}" for rate in rates))
    assert estimator.estimate(of(slow, "search-gdas-frc-seed0")) == (3 * 6.0, RECORDED)
    for dear in (
        "batch_size=16",
        "network.channels=16",
        "alpha.warmup_epochs=1",
        "alpha.gates=all",
    ):
        other = study(f"search.recipe.{dear}")
        assert estimator.estimate(of(other, "search-gdas-frc-seed0")).source == GUESSED, dear
    final = store.prepare(of(earlier, "train-gdas-frc-digits"), NO_DATA)
    final.append_record(plain_record(1, of=4, time=5.0, seconds=2.0))
    lower = study("final.recipe.lr=0.05", "final.recipe.weight_decay=0.1")
    found = Estimator(store).estimate(of(lower, "train-gdas-frc-digits"))
    assert found.source == RECORDED
    folder.write_result(plain_result())
    assert estimator.estimate(of(earlier, "search-gdas-frc-seed0")).seconds == 0


def test_steps_are_timed_once_for_each_kind_of_job_and_never_for_an_absent_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def watch(job: Job, data: Path) -> float:
        asked.append(job.label)
        return 12.0

    monkeypatch.setattr(estimate, "timed_seconds", watch)
    estimator, found = Estimator(None, tmp_path), study()
    for seed in range(4):
        assert estimator.estimate(of(found, f"search-gdas-frc-seed{seed}")) == (12.0, TIMED)
    assert asked == ["search-gdas-frc-seed0"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpus = study("search.resources={gpus: 1, device: cuda}")
    assert estimator.estimate(of(gpus, "search-gdas-frc-seed0")).source == GUESSED


def test_timed_steps_grow_with_the_epochs(tmp_path: Path) -> None:
    jobs = [study(*QUICK, f"search.recipe.epochs={n}").jobs[0] for n in (1, 200)]
    short, long = (timed_seconds(job, tmp_path) for job in jobs)
    assert 0 < 20 * short < long < 2000 * short
    final = of(study(), "train-gdas-frc-digits")
    assert 0.1 < timed_seconds(final, tmp_path) < 300


def test_a_search_that_runs_all_operations_is_guessed_to_take_as_many_times_as_long() -> None:
    fast, slow = (
        estimate.estimated_seconds(of(study(*words), "search-gdas-frc-seed0"))
        for words in ([], ["search.recipe.sampler.acceleration=false"])
    )
    assert slow == pytest.approx(8 * fast)


def test_held_logits_and_fused_kernels_are_guessed_to_save_what_they_save() -> None:
    """Three epochs: 18 forward passes; two of them held 12 + 2/10, by all operations 7 more."""

    def guess(*words: str) -> float:
        plain = "search.recipe.kernels=plain"
        return estimate.estimated_seconds(of(study(plain, *words), "search-gdas-frc-seed0"))

    held, all_gates = "search.recipe.alpha.warmup_epochs=2", "search.recipe.alpha.gates=all"
    assert guess(held) == pytest.approx(guess() * (9 + 3 + 0.2) / 18)
    assert guess(held, all_gates) == pytest.approx(guess() * (9 + 3 + 7 + 0.2) / 18)
    fused = of(study(), "search-gdas-frc-seed0")
    faster = FUSED_FASTER if kernels_here(fused.recipe, fused.resources) == "fused" else 1.0
    assert estimate.estimated_seconds(fused) == pytest.approx(guess() / faster)


def test_a_training_on_text_is_guessed_at_25_gflop_s() -> None:
    """Per token the first two products, eight edges and the words' scores, three times over."""
    words = ["text_final.recipe.hidden=100", "text_final.recipe.epochs=4"]
    smoke = build_study(load_experiment("smoke", words), identity, {})
    job = of(smoke, "train-gdas-rnn-prose")
    text = text_counts(TextData(name="prose"), job.recipe["data"])
    tokens = job.recipe["config"]["train_tokens"] or text.counts["train"]
    products = 4 * 100**2 + 8 * 2 * 100**2 + text.vocabulary * 100
    expected = 4 * tokens * products * 2 * 3 / 25e9
    assert estimate.estimated_seconds(job) == pytest.approx(expected)


def test_a_search_that_holds_its_logits_is_timed_with_them_held_and_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two steps take 4 seconds, and 2 while the logits are held, which is for 59 of 60 epochs."""
    monkeypatch.setattr(images, "search", lambda config, space: config)
    monkeypatch.setattr(images, "timed", lambda config: 2.0 if config.alpha.warmup_epochs else 4.0)
    words = [*QUICK, "search.recipe.epochs=60"]
    whole, held = (
        timed_seconds(study(*words, f"search.recipe.alpha.warmup_epochs={n}").jobs[0], tmp_path)
        for n in (0, 59)
    )
    assert whole - held == pytest.approx(59 * 2 * (2.0 - 1.0)), "two batches of 32 in an epoch"


def test_a_job_with_all_its_epochs_and_no_result_is_still_to_be_ended(tmp_path: Path) -> None:
    store, found = Store(tmp_path), study()
    job = of(found, "search-gdas-frc-seed0")
    for position in (1, 2, 3):
        store.prepare(job, NO_DATA).append_record(plain_record(position, of=3, seconds=5.0))
    estimates = {other.id: Estimate(0.0, RECORDED) for other in found}
    estimates[job.id] = Estimator(store).estimate(job)
    assert estimates[job.id] == (LAST_S, RECORDED)
    assert totals(found, estimates, {"CPU": 2.0, "GPU": 0.0}, None)[0].startswith("in all: about")


def test_a_run_of_days_on_shares_of_a_gpu_is_asked_about(tmp_path: Path) -> None:
    """A search of a third of a day on a whole card takes more than one on a quarter of it."""
    words = ["search.resources={gpus: 0.25, device: cuda}", "search.seeds=[0]"]
    found = study(*words, "search.recipe.epochs=1")
    whole = estimate.estimated_seconds(of(found, "search-gdas-frc-seed0"))
    epochs = int(86_400 / 3 / whole)
    long = study(*words, f"search.recipe.epochs={epochs}").only(["search-gdas-frc-seed0"])
    with pytest.raises(InputError, match="looks like 1 days"):
        confirm(long, Store(tmp_path), {"CPU": 99.0, "GPU": 1.0}, yes=False)


def test_what_diverged_and_what_needs_it_take_no_time_unless_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, store = study(), Store(tmp_path)
    lost = of(found, "search-gdas-frc-seed0")
    store.folder(lost).path.mkdir(parents=True)
    place = store.folder(lost).place
    write_failure(place, "FloatingPointError: epoch 2: train/loss is nan", "", "diverged")
    note_failure(place, "", "diverged", 1, again=False)
    states = standings(found, store, ())
    assert states[lost.id] == "diverged" and states[of(found, "search-gdas-frc-seed1").id] == "new"
    needy = [job.label for job in found if states[job.id] == "blocked"]
    assert {"select-gdas-frc", "train-gdas-frc-digits"} <= set(needy)
    print_plan(found, store, Estimator(None))
    less = capsys.readouterr().out
    (line,) = (line for line in less.splitlines() if line.startswith(lost.label))
    assert line.split()[1] == "diverged" and "guess" not in line
    assert "how the work is known, jobs: 3 guess" in less, "the other searches"
    assert standings(found, store, {lost.id})[lost.id] == "tried again"
    print_plan(found, store, Estimator(None), None, {lost.id})
    more = capsys.readouterr().out
    assert "blocked" not in more and "jobs: 5 guess" in more
