"""A job's own output is kept in its folder, its last MiB, with the traceback of its error."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestrator.store.failure import note_failure
from orchestrator.store.job_folder import LOG, JobFolder
from orchestrator.work import job_log
from tests.orchestrator.written import plain_record


def test_what_a_job_prints_goes_to_its_log_and_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = JobFolder.open(tmp_path)
    with pytest.raises(RuntimeError), job_log.logged(folder, "process 7 on here, cpu"):
        print("a word")
        print("a warning", file=sys.stderr)
        job_log.say_segment(folder, plain_record(1, 3, metrics={"train/loss": 0.5}))
        raise RuntimeError("the end")
    text = folder.log_end(1 << 20)
    words = ["starts: process 7 on here, cpu", "a word", "a warning"]
    words += ["segment 1 of 3: train/loss 0.5", "RuntimeError: the end", "ends"]
    places = [text.index(word) for word in words]
    assert places == sorted(places)
    shown = capsys.readouterr()
    assert shown.out == "a word\n" and shown.err == "a warning\n"


def test_a_start_says_what_ended_the_one_before(tmp_path: Path) -> None:
    folder = JobFolder.open(tmp_path)
    with job_log.logged(folder, "process 7 on here, cpu"):
        pass
    note_failure(folder.place, "its process died without a word", "process", 1, again=True)
    with job_log.logged(folder, "process 8 on here, cpu"):
        pass
    starts = [line for line in folder.log_end(1 << 20).splitlines() if "starts" in line]
    assert starts[0].endswith("starts: process 7 on here, cpu")
    assert starts[1].endswith(
        "starts: process 8 on here, cpu (before: its process died without a word)"
    )


def test_only_the_last_part_of_a_long_log_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_log, "MOST", 1000)
    folder = JobFolder.open(tmp_path)
    for i in range(500):
        job_log.append(folder, f"line {i}\n")
    lines = (tmp_path / LOG).read_text().splitlines()
    assert 50 < len(lines) < 300 and lines[-1] == "line 499"
    assert lines == [f"line {i}" for i in range(500 - len(lines), 500)], "whole lines"
