"""Killed, interrupted, failing: the same command goes on and ends with the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.e2e import driving


@pytest.mark.slow
def test_a_study_that_was_told_to_end_in_its_final_ends_with_the_same_digests(
    undisturbed: Path, data_folder: Path, tmp_path: Path
) -> None:
    rng = random.Random(os.getpid())
    process = driving.start(tmp_path, data_folder)
    driving.wait_for_records(tmp_path, "train-frc-digits", rng.randint(1, 2), process)
    time.sleep(rng.uniform(0, 0.3))
    family = process.family()
    os.kill(process.pid, signal.SIGTERM)
    # How soon is timed by another test and by the drill, which have the machine to themselves.
    code, output = driving.finish(process, timeout=60)
    assert code == 143, output
    assert "same command" in output
    gone = "all processes to be gone"
    driving.wait_for(lambda: not any(map(driving.alive, family)), gone, timeout=30)
    driving.assert_it_goes_on_to_the_same_end(tmp_path, undisturbed, data_folder)


@pytest.mark.slow
def test_a_killed_trial_and_a_killed_worker_are_retried_in_the_same_command(
    undisturbed: Path, data_folder: Path, tmp_path: Path
) -> None:
    process = driving.start(tmp_path, data_folder)
    driving.wait_for_records(tmp_path, "search-frc-seed2", 1, process)
    victim = driving.records(driving.folders(tmp_path)["search-frc-seed2"])[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    driving.wait_for_records(tmp_path, "train-frc-digits", 1, process)
    victim = driving.records(driving.folders(tmp_path)["train-frc-digits"])[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    code, output = driving.finish(process, timeout=400)
    assert code == 0, output
    assert "search-frc-seed2: failed" in output and "train-frc-digits: failed" in output
    assert driving.digests(tmp_path) == driving.digests(undisturbed)


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_an_interrupt_ends_quickly_leaves_nothing_running_and_says_how_to_go_on(
    data_folder: Path, tmp_path: Path, number: int, expected: int
) -> None:
    process = driving.start(tmp_path, data_folder, "--only", "search-")
    driving.wait_for_records(tmp_path, "search-frc-seed0", 1, process)
    pids = {driving.records(f)[0]["pid"] for f in driving.folders(tmp_path).values()
            if driving.records(f)}  # fmt: skip
    began = time.monotonic()
    os.kill(process.pid, number)
    code, output = driving.finish(process, timeout=30)
    took = time.monotonic() - began
    assert code == expected, output
    assert took < 10, f"{took:.1f} s"
    assert "same command" in output
    time.sleep(2)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
def test_a_job_that_fails_does_not_stop_the_others_and_is_named(
    data_folder: Path, tmp_path: Path
) -> None:
    code, output = driving.run(
        tmp_path,
        data_folder,
        "retries=1",
        "searches.frc.seeds=[0]",
        "searches.frc.recipe.weights.lr=1e30",
        "searches.sound.seeds=[0]",
        "searches.sound.recipe.epochs=2",
        "searches.sound.recipe.network.reduction=fixed",
    )
    assert code == 1, output
    assert output.count("search-frc-seed0: failed (FloatingPointError") == 1, "no retry"
    assert "given up, for it would fail again" in output
    assert "train-frc-digits: could not run: needs select-frc" in output
    found = driving.folders(tmp_path)
    assert (found["search-sound-seed0"] / "result.json").exists()
    assert (tmp_path / "selections" / "sound.json").exists()
    report = (tmp_path / "report" / "report.md").read_text()
    assert "not run" in report
    # The same command does not try it again, and starts no Ray for it.
    code, output = driving.run(
        tmp_path,
        data_folder,
        "retries=1",
        "searches.frc.seeds=[0]",
        "searches.frc.recipe.weights.lr=1e30",
        "searches.sound.seeds=[0]",
        "searches.sound.recipe.epochs=2",
        "searches.sound.recipe.network.reduction=fixed",
    )
    assert code == 1 and "search-frc-seed0: failed before; not tried again" in output
    assert "starting Ray" not in output and output.rstrip().endswith("--traceback")
    # A changed setting is a new job; what is done stays done.
    done = driving.result(found["search-sound-seed0"])
    code, output = driving.run(
        tmp_path,
        data_folder,
        "searches.frc.seeds=[0]",
        "searches.sound.seeds=[0]",
        "searches.sound.recipe.epochs=2",
        "searches.sound.recipe.network.reduction=fixed",
        "--only",
        "select-",
    )
    assert code == 0, output
    assert "search-sound-seed0: done" in output
    assert "search-frc-seed0: changed: weights.lr 1e+30 -> 0.025" in output
    assert driving.result(driving.folders(tmp_path)["search-sound-seed0"]) == done
    selection = json.loads((tmp_path / "selections" / "frc.json").read_text())
    assert len(selection["candidates"]) == 1
    arrow = data_folder / "arrow"
    assert arrow.is_dir()
