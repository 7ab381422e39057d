"""status, compare, cell, jobs and doctor: what they print, their exit codes, one-line errors."""

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
from gdas.cnn.genotype import PUBLISHED
from gdas.genotype import load
from orchestrator import __main__ as together
from orchestrator import cell, compare, doctor, jobs, log, status
from orchestrator.cost.estimate import estimated_bytes
from orchestrator.driver import doctor as examining
from orchestrator.experiment.build import build_study
from orchestrator.experiment.load import load_experiment
from orchestrator.run.scheduler import Scheduler
from orchestrator.store.failure import clear_failure, write_failure
from tests.orchestrator.fake_study import fake_study, finish, record, select
from tests.orchestrator.test_study import identity
from tests.orchestrator.written import CELL, NO_DATA

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def refused(capsys: Capture, code: int) -> str:
    """The one line on standard error of a command that refused its input."""
    assert code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


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


# log


def test_a_job_that_is_not_there_is_answered_with_the_closest(
    capsys: Capture, tmp_path: Path
) -> None:
    _, study, _ = fake_study(tmp_path / "out")
    said = refused(capsys, log.main(["out", "serch-frc-seed1"]))
    assert "did you mean search-frc-seed" in said
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


# cell


def test_cells_are_found_by_name_by_file_and_in_a_study(capsys: Capture, tmp_path: Path) -> None:
    Path("mine.json").write_text(json.dumps(PUBLISHED["GDAS_V1"].to_json()))
    _, study, store = fake_study(tmp_path / "out")
    assert "nothing is selected yet" in refused(capsys, cell.main(["show", "out:frc"]))
    select(store, study)
    assert cell.find_cell("GDAS_V1") == cell.find_cell("mine.json") == PUBLISHED["GDAS_V1"]
    assert cell.find_cell("out:frc").to_json() == CELL
    assert "the study's are frc" in refused(capsys, cell.main(["show", "out:typo"]))
    assert "did you mean GDAS_V1?" in refused(capsys, cell.main(["count", "gdas_v1"]))
    assert "published are" in refused(capsys, cell.main(["draw", "nothing.json"]))


def test_a_cell_is_shown_node_by_node_and_as_a_file(capsys: Capture) -> None:
    assert cell.main(["show", "GDAS_F1"]) == 0
    out = capsys.readouterr().out
    assert "node 1  =  skip_connect of c_{k-2}  +  sep_conv_3x3 of node 0" in out
    assert "reduction cell: fixed" in out
    assert cell.main(["show", "GDAS_F1", "--json"]) == 0
    Path("again.json").write_text(capsys.readouterr().out)
    assert load("again.json") == PUBLISHED["GDAS_F1"]
    assert cell.main(["show", "RNN_GDAS"]) == 0
    assert "state 4 = relu of state 1" in capsys.readouterr().out


def test_counts_are_the_papers(capsys: Capture) -> None:
    def counted(*words: str) -> list[str]:
        assert cell.main(["count", *words]) == 0
        return [line.split()[-1] for line in capsys.readouterr().out.splitlines()[2:-1]]

    assert counted("GDAS_F1") == ["2,543,014", "402,781,834"]
    small = counted("GDAS_F1", "--channels", "8", "--normals-per-block", "1", "--image-size", "16")
    assert int(small[0].replace(",", "")) < 100_000
    assert counted("RNN_GDAS", "--hidden", "32", "--vocabulary", "100") == ["23,780"]
    refused(capsys, cell.main(["count", "GDAS_F1", "--channels", "10"]))
    refused(capsys, cell.main(["count", "GDAS_F1", "--image-size", "0"]))


def test_cells_are_drawn_to_svg_and_png(capsys: Capture) -> None:
    assert cell.main(["draw", "GDAS_V1"]) == 0
    assert Path("GDAS_V1.svg").read_text().count('<g id="normal-') == 12
    assert cell.main(["draw", "fixed-reduction", "--to", "frc.png"]) == 0
    assert Path("frc.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    own = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    assert cell.main(["draw", own, "--to", "own.svg"]) == 0
    # Its network is not counted here.
    assert f"next: python -m orchestrator.cell show '{own}'" in capsys.readouterr().out
    assert "must end with" in refused(capsys, cell.main(["draw", "GDAS_V1", "--to", "x.gif"]))
    assert "cannot write" in refused(capsys, cell.main(["draw", "GDAS_V1", "--to", "no/x.svg"]))


DARTS_TEXT = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)], normal_concat=range(2, 3), "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1)], reduce_concat=range(2, 3))"
)


def test_a_genotypes_text_is_a_cell_on_the_command_line(capsys: Capture) -> None:
    long = DARTS_TEXT.replace("'skip_connect'", " " * 300 + "'skip_connect'")
    for text in (DARTS_TEXT, long, json.dumps(PUBLISHED["GDAS_V1"].to_json())):
        assert cell.main(["show", text]) == 0
        assert "node 0  =  s" in capsys.readouterr().out
    assert cell.main(["count", DARTS_TEXT, "--channels", "4"]) == 0
    assert cell.main(["draw", DARTS_TEXT]) == 0 and Path("unnamed.svg").is_file()
    Path("two.py").write_text(f"A = {DARTS_TEXT}\nB = {DARTS_TEXT.replace('skip_connect', 'none')}")
    assert cell.main(["draw", "two.py:B"]) == 0 and Path("B.svg").is_file()
    capsys.readouterr()
    assert "2 different genotypes" in refused(capsys, cell.main(["show", "two.py"]))
    for word in (
        "x" * 300,
        "x" * 300 + ":y",
        "(" * 400,
        " ",
        "a\0b",
        "|" * 300,
        "out:" + "y" * 300,
    ):
        assert "\n" not in refused(capsys, cell.main(["show", word])).strip()


def test_a_cell_is_converted_from_and_to_the_text_of_darts(capsys: Capture) -> None:
    Path("log.txt").write_text(f"03/01 10:00:00 AM genotype = {DARTS_TEXT}\n")
    assert cell.main(["convert", "log.txt", "--to", "cell.json"]) == 0
    capsys.readouterr()
    assert cell.main(["convert", "cell.json"]) == 0
    assert capsys.readouterr().out == DARTS_TEXT + "\n"
    assert cell.main(["convert", "GDAS_F1", "--to", "f1.txt"]) == 0
    assert load("f1.txt").to_json() | {"name": "GDAS_F1"} == PUBLISHED["GDAS_F1"].to_json()
    capsys.readouterr()
    assert cell.main(["convert", "GDAS_V1", "--as", "gdas"]) == 0
    assert json.loads(capsys.readouterr().out) == PUBLISHED["GDAS_V1"].to_json()
    assert "must end with" in refused(capsys, cell.main(["convert", "GDAS_V1", "--to", "x.svg"]))
    assert "cannot write" in refused(capsys, cell.main(["convert", "GDAS_V1", "--to", "no/x.txt"]))


def test_sizes_that_no_network_has_are_refused(capsys: Capture) -> None:
    count = ["count", "GDAS_V1"]
    odd = [*count, "--stem", "imagenet", "--channels", "51"]
    assert "--channels 51: the ImageNet stem needs an even number" in refused(
        capsys, cell.main(odd)
    )
    for key in ("channels", "image-size", "normals-per-block", "classes"):
        assert f"--{key}" in refused(capsys, cell.main([*count, f"--{key}", str(10**18)]))


# doctor


def test_doctor_of_the_smoke_experiment_is_content(capsys: Capture, tmp_path: Path) -> None:
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    for line in ("digits: built in", "search-gdas-frc-seed0 and 3 alike", "torch ", "GiB free"):
        assert line in out
    assert out.splitlines()[-1] == "next: python -m orchestrator.reproduce_paper smoke"
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_doctor_names_the_fix_of_what_is_bad(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / name).write_bytes(b"not it")
    (tmp_path / "file").write_text("")
    words = ["laptop", "--data", "data", "--out", "file/out", "search.resources.cpus=4000"]
    assert doctor.main([*words, "mlflow.tracking_uri=http://127.0.0.1:9"]) == 1
    bad = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  BAD")]
    assert all(" -> " in line for line in bad)
    text = "\n".join(bad)
    for word in (
        "data_batch_1: is not the published file",
        "127.0.0.1:9: [Errno 111] Connection refused",
        "file/out: cannot write",
    ):
        assert word in text
    assert "more cores than here: lower searches.*.resources" in text


def test_doctor_looks_where_the_command_would(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert doctor.main(["--data", "none", "--out", "s3://bucket/runs"]) == 1
    out = capsys.readouterr().out
    assert "BAD   --data none: no such folder -> mkdir none" in out
    assert "BAD   --out s3://bucket/runs: cannot be written to" in out
    assert list(tmp_path.iterdir()) == []


def test_doctor_finds_a_package_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "version", lambda name: "1.0" if name == "torch" else "99")
    found = {one.what.split()[0]: one for one in examining.versions()}
    assert found["torch"].level == "BAD" and found["torch"].fix.startswith("pip install 'torch")


def test_the_memory_estimate_grows_with_the_batch_and_with_all_operations() -> None:
    def estimate(*overrides: str) -> dict[str, float]:
        study = build_study(load_experiment("smoke", list(overrides)), identity, {})
        return {job.label: estimated_bytes(job) for job in study}

    plain, larger = estimate(), estimate("search.recipe.batch_size=256")
    assert larger["search-gdas-frc-seed0"] > 1.1 * plain["search-gdas-frc-seed0"]
    assert plain["measure-acceleration"] > 1.1 * plain["search-gdas-frc-seed0"]
    assert plain["train-gdas-rnn-prose"] > 0 and plain["select-gdas-frc"] == 0
