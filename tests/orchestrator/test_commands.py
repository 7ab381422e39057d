"""status, compare, jobs and log: what they print, and what they refuse."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

import orchestrator.run.checks
import orchestrator.store.recorded
from orchestrator import __main__ as together
from orchestrator import compare, jobs, log, status
from orchestrator.run.scheduler import Scheduler
from orchestrator.store.failure import clear_failure, write_failure
from orchestrator.terminal.words import counted
from tests.orchestrator.command_output import Capture, refused
from tests.orchestrator.fake_study import fake_study, finish, record, select
from tests.orchestrator.test_study import identity
from tests.orchestrator.written import NO_DATA

pytestmark = pytest.mark.usefixtures("elsewhere")

COMMANDS = [
    *("reproduce_paper", "status", "compare", "cell", "jobs", "doctor", "evidence", "send_runs"),
    *("settings_page", "mlflow_server", "nodes", "log", "export", "predict"),
]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as done:
        importlib.import_module(f"orchestrator.{name}").main(["--help"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    assert f"python -m orchestrator.{name} " in shown.partition("example")[2]


def test_every_module_with_a_command_line_has_its_help_tested() -> None:
    folder = Path(orchestrator.run.checks.__file__).parent.parent
    found = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    assert found == set(COMMANDS)


LIGHT = ("torch", "ray", "mlflow", "matplotlib", "scipy")


def test_help_and_mistakes_need_none_of_the_heavy_libraries() -> None:
    """They take seconds to import. One process asks every command, and all in one, for its help."""
    modules = [f"orchestrator.{name}" for name in COMMANDS] + ["orchestrator.__main__"]
    code = (
        "import contextlib, importlib, io, sys\n"
        f"for name in {modules}:\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        importlib.import_module(name).main(['--help'])\n"
        f"print(*[name for name in {LIGHT} if name in sys.modules])"
    )
    root = Path(together.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_all_commands_are_found_under_one_name(capsys: Capture, tmp_path: Path) -> None:
    modules = {module for module, _ in together.COMMANDS.values()}
    assert modules == set(COMMANDS) - {"settings_page", "mlflow_server"}
    assert "did you mean status?" in refused(capsys, together.main(["statsu"]))
    fake_study(tmp_path / "out")
    assert together.main(["status", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["driven"] is False
    for name in ("send_runs", "send-runs", "reproduce_paper"):  # as `python -m` has them
        with pytest.raises(SystemExit):
            together.main([name, "--help"])
        assert f"usage: python -m orchestrator.{name.replace('-', '_')} " in capsys.readouterr().out
    with pytest.raises(SystemExit) as done:
        together.main([])
    assert done.value.code == 0 and "gdas COMMAND --help" in capsys.readouterr().out
    project = tomllib.loads((Path(together.__file__).parents[1] / "pyproject.toml").read_text())
    module, _, function = project["project"]["scripts"]["gdas"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("words", [["status"], ["compare", "x"], ["jobs", "list"], ["evidence"]])
def test_a_folder_without_a_study_is_refused_and_not_made(
    words: list[str], capsys: Capture, tmp_path: Path
) -> None:
    module = importlib.import_module(f"orchestrator.{words[0]}")
    assert "no study there" in refused(capsys, module.main([*words[1:], "nowhere"]))
    assert not (tmp_path / "nowhere").exists()


def test_a_damaged_result_is_named_by_status(capsys: Capture, tmp_path: Path) -> None:
    _, study, store = fake_study(tmp_path / "out")
    job = next(job for job in study if job.label == "search-frc-seed0")
    finish(store, job)
    assert status.main(["out"]) == 0 and "damaged result" not in capsys.readouterr().out
    (store.folder(job).path / "result.json").write_text('{"digest": "a')
    assert status.main(["out"]) == 0
    assert "search-frc-seed0: damaged result.json, so it counts as" in capsys.readouterr().out


# log


def test_a_job_that_is_not_there_is_answered_with_the_closest(
    capsys: Capture, tmp_path: Path
) -> None:
    _, study, _ = fake_study(tmp_path / "out")
    said = refused(capsys, log.main(["out", "serch-frc-seed1"]))
    assert "did you mean search-frc-seed" in said
    assert "jobs begin so; name one of search-frc-seed0, search-frc-seed1" in refused(
        capsys, log.main(["out", "search-frc"])
    )
    assert log.job_named("train-frc-d", study).label == "train-frc-digits", "the only one"
    said = refused(capsys, log.main(["out", "select-frc"]))
    assert "has no log" in said and said.rstrip().endswith("OUT/selections/frc.json")
    assert "has printed nothing yet" in refused(capsys, log.main(["out", study.jobs[0].label]))
    assert "no error is recorded" in refused(
        capsys, log.main(["out", study.jobs[0].label, "--traceback"])
    )


def test_a_log_is_followed_until_nobody_drives_the_study(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, study, store = fake_study(tmp_path / "out")
    path = store.folder(study.jobs[0]).path / "log.txt"
    path.write_text("one\n")
    more = iter(["two\n", "three\n"])

    def wait(seconds: float) -> None:
        with path.open("a") as file:
            file.write(next(more))

    holders = iter([True, True, None])
    monkeypatch.setattr("time.sleep", wait)
    monkeypatch.setattr(log, "driver", lambda store: next(holders))
    assert log.main(["out", study.jobs[0].label, "--follow"]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == ["one", "two", "three"]


# status


def test_status_of_a_study_that_stopped_names_the_command_that_goes_on(
    capsys: Capture, tmp_path: Path
) -> None:
    _, study, store = fake_study(tmp_path / "out")
    first, second, third, *_ = study.jobs
    finish(store, first)
    store.folder(second).append_record(record(1))
    store.folder(third).append_record(record(2))
    write_failure(store.folder(third).place, "ValueError: too bad", "")
    assert status.main(["out"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "1 of 6 done" in lines[0] and "nobody drives it now" in lines[0]
    states = {line.split()[0]: line.split()[1] for line in lines if line.startswith("  frc")}
    assert states == {
        "frc-seed0": "done",
        "frc-seed1": "stopped",
        "frc-seed2": "failed",
        "frc-seed3": "waiting",
        "frc": "blocked",
        "frc-digits": "blocked",
    }
    assert "search-frc-seed2: failed: ValueError: too bad" in lines
    assert f"  log: {store.folder(third).path / 'failure.json'}" in lines
    assert lines[-1].startswith("next: python -m orchestrator.reproduce_paper ")


def test_status_of_a_study_that_runs(capsys: Capture, tmp_path: Path) -> None:
    _, study, store = fake_study(tmp_path / "out")
    store.folder(study.jobs[0]).append_record(record(1))
    lease = {"host": os.uname().nodename, "pid": os.getpid(), "heartbeat": time.time()}
    (store.out / "lease.json").write_text(json.dumps(lease))
    before = sorted(store.out.rglob("*"))
    assert status.main(["out"]) == 0
    out = capsys.readouterr().out
    assert f"driven by process {os.getpid()}" in out
    line = next(line for line in out.splitlines() if "frc-seed0" in line)
    assert line.split()[1:5] == ["running", "1/3", "valid/top1", "31.00"]
    assert line.split()[-1] in ("0:20", "0:19"), "what is left of two epochs of ten seconds"
    assert sorted(store.out.rglob("*")) == before, "nothing is written"


def test_status_between_retries_says_that_a_job_waits_and_failed_only_once_it_is_given_up(
    capsys: Capture, tmp_path: Path
) -> None:
    _, study, store = fake_study(tmp_path / "out")
    scheduler = Scheduler(study, store, {"CPU": 2.0, "GPU": 0.0}, lambda line: None, retries=1)
    job = study.jobs[0]
    folder = store.folder(job)

    def drive(since: float) -> None:
        os.utime(store.out / "study.json", (since, since))
        lease = {"host": os.uname().nodename, "pid": os.getpid(), "heartbeat": time.time()}
        (store.out / "lease.json").write_text(json.dumps(lease))

    def said() -> tuple[list[str], str]:
        assert status.main(["out"]) == 0
        out = capsys.readouterr().out
        line = next(line for line in out.splitlines() if line.startswith("  frc-seed0"))
        return line.split()[1:4], out

    drive(time.time() - 10)
    folder.append_record(record(1))
    write_failure(folder.place, "ValueError: too bad", "the traceback")
    assert said()[0] == ["waiting", "(failed", "1x)"], "the driver has not heard of it yet"
    scheduler.finished(job)
    words, out = said()
    assert words == ["waiting", "(failed", "1x)"]
    assert "search-frc-seed0: failed (now waiting): ValueError: too bad" in out
    store.prepare(job, NO_DATA)  # as the runner does
    clear_failure(folder.place)
    assert said()[0][0] == "running"
    write_failure(folder.place, "ValueError: too bad", "the traceback")
    scheduler.finished(job)
    words, out = said()
    assert words[0] == "failed"
    assert "search-frc-seed0: failed 2x: ValueError: too bad" in out
    assert "the traceback" in (folder.path / "failure.json").read_text()
    drive(time.time() + 1)
    assert said()[0][0] != "failed", "a command that began later tries it again"


def test_status_knows_of_a_process_that_died_without_a_word(
    capsys: Capture, tmp_path: Path
) -> None:
    _, study, store = fake_study(tmp_path / "out")
    lease = {"host": os.uname().nodename, "pid": os.getpid(), "heartbeat": time.time()}
    (store.out / "lease.json").write_text(json.dumps(lease))
    Scheduler(study, store, {"CPU": 2.0, "GPU": 0.0}, lambda line: None).finished(study.jobs[0])
    assert status.main(["out"]) == 0
    assert "search-frc-seed0: failed: its process died without a word" in capsys.readouterr().out


def test_a_driver_that_died_does_not_count(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator.store.recorded, "WATCHED_S", 0.0)
    _, study, store = fake_study(tmp_path / "out")
    store.folder(study.jobs[0]).append_record(record(1))
    for lease in ({"host": "elsewhere", "pid": 1, "heartbeat": time.time() - 100}, {}, "torn"):
        (store.out / "lease.json").write_text(json.dumps(lease)[:60])
        assert status.main(["out"]) == 0
        assert "nobody drives it now" in capsys.readouterr().out


# compare


def test_compare_shows_differing_settings_and_results_side_by_side(
    capsys: Capture, tmp_path: Path
) -> None:
    for name, overrides, top1 in (("a", (), 91.25), ("b", ("final.recipe.epochs=2",), 90.5)):
        _, study, store = fake_study(tmp_path / name, *overrides)
        for job in study:
            if job.kind == "search":
                finish(store, job)
        select(store, study)
        finish(store, study.jobs[-1], metrics={"test/top1": top1}, parameters=1234)
    assert compare.main(["a", "b"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["finals.frc-digits.recipe.epochs", "3", "2"] in rows
    assert not [row for row in rows if row and row[0].startswith("searches.")]
    assert ["versions:", "equal"] in rows
    assert ["train-frc-digits", "test/top1", "91.25", "90.50"] in rows
    assert ["train-frc-digits", "parameters", "1,234", "1,234"] in rows
    assert ["select-frc", "seed", "2", "2"] in rows
    assert rows[-2][:7] == ["4", "finished", "jobs", "are", "common,", "with", "equal"]


def test_compare_says_where_one_computation_gave_two_results(
    capsys: Capture, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        _, study, store = fake_study(tmp_path / name)
        finish(store, study.jobs[0], digest=name)
    assert compare.main(["a", "b"]) == 0
    assert "weights differ in search-frc-seed0" in capsys.readouterr().out


def test_a_search_that_one_study_has_not_is_one_line() -> None:
    one = {"name": "x", "searches.a.seeds": "[0]", "searches.a.recipe.epochs": "3"}
    assert compare.differing([one, {"name": "x", "searches.b.seeds": "[0]"}]) == [
        ("searches.a", "there", "-"),
        ("searches.b", "-", "there"),
    ]


# jobs


def known(folder: Path, data: Any, split: str) -> str:
    """What a split's content is, wherever the data lie."""
    return identity(data, split)


def test_old_job_folders_are_listed_and_removed_and_needed_ones_stay(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, before, store = fake_study(tmp_path / "out", "searches.frc.recipe.epochs=2")
    finish(store, before.jobs[0])
    _, study, store = fake_study(tmp_path / "out")
    _, partial, store = fake_study(tmp_path / "out")
    only = partial.only(["search-frc-seed0"])
    monkeypatch.setattr(
        orchestrator.run.checks, "identity", lambda folder, data, split: identity(data, split)
    )
    store.write_study(only, store.study()["settings"], {})  # as after a start with --only
    gone = [f"{job.label}-{job.id}" for job in before if job.kind not in ("select",)]
    gone = [name for name in gone if name.startswith("search")] + [
        name for name in gone if name.startswith("train")
    ]
    assert jobs.main(["list", "out"]) == 0
    assert counted(1, "folder") == "1 folder" and counted(2, "folder") == "2 folders"
    out = capsys.readouterr().out
    assert all(name in out for name in gone) and "jobs remove out" in out.splitlines()[-1]
    assert "add --yes" in refused(capsys, jobs.main(["remove", "out"]))
    assert jobs.main(["remove", "out", "--yes"]) == 0
    left = {path.name for path in (tmp_path / "out" / "jobs").iterdir()}
    assert left == {f"{job.label}-{job.id}" for job in study if job.kind != "select"}


def test_nothing_is_removed_under_a_running_study_or_from_unknown_settings(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_study(tmp_path / "out", "searches.frc.recipe.epochs=2")
    _, study, store = fake_study(tmp_path / "out")
    monkeypatch.setattr(
        orchestrator.run.checks, "identity", lambda folder, data, split: identity(data, split)
    )
    lease = {"host": os.uname().nodename, "pid": os.getpid(), "heartbeat": time.time()}
    (store.out / "lease.json").write_text(json.dumps(lease))
    assert "driven by process" in refused(capsys, jobs.main(["remove", "out", "--yes"]))
    (store.out / "lease.json").unlink()
    store.write_study(study, {"name": "of another version", "unknown": 1}, {})
    assert "cannot tell which" in refused(capsys, jobs.main(["remove", "out", "--yes"]))
    assert len(list((tmp_path / "out" / "jobs").iterdir())) == 10
