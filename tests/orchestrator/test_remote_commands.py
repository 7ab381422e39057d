"""The commands beside the main one, on a study at an address: moto's S3."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
from pathlib import Path

import pytest

import orchestrator.run.checks
from orchestrator import cell, compare, doctor, jobs, reproduce_paper, send_runs, status
from orchestrator.experiment.study import Study
from orchestrator.store.failure import write_failure
from orchestrator.store.recorded import open_recorded
from orchestrator.store.storage import open_storage
from orchestrator.store.store import Store
from tests.cloud import Server
from tests.orchestrator.fake_study import fake_study, finish, record, select
from tests.orchestrator.test_study import identity
from tests.orchestrator.written import CELL

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def out(aws: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh address."""
    monkeypatch.setenv("GDAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return f"s3://bucket/{uuid.uuid4().hex}"


def begun(out: str, *overrides: str) -> tuple[Study, Store]:
    """A search done, one stopped, one failed; as a driver on another machine left them."""
    _, study, store = fake_study(out, *overrides)
    first, second, third, *_ = study.jobs
    finish(store, first)
    store.folder(second).append_record(record(1))
    store.folder(third).append_record(record(2))
    time.sleep(1.1)  # an object store's clock may tick in seconds
    write_failure(store.folder(third).place, "ValueError: too bad", "")
    return study, store


def test_status_tells_what_a_folder_would(out: str, capsys: Capture) -> None:
    study, store = begun(out)
    assert status.main([out]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "1 of 6 done" in lines[0] and "nobody drives it now" in lines[0]
    states = [line.split()[1] for line in lines if line.startswith("  frc")]
    assert states == ["done", "stopped", "failed", "waiting", "blocked", "blocked"]
    name = store.folder(study.jobs[2]).path.name
    assert f"  log: {out}/jobs/{name}/failure.json" in lines, "where all can read it"
    assert lines[-1].startswith("next: python -m orchestrator.reproduce_paper ")
    holder = {"host": os.uname().nodename, "pid": os.getpid(), "heartbeat": time.time()}
    open_storage(out).write("lease.json", json.dumps(holder).encode())
    assert status.main([out]) == 0
    said = capsys.readouterr().out
    assert f"driven by process {os.getpid()}" in said and "next: watch -n 5 python" in said


def test_a_finished_studys_next_commands_take_its_address(out: str, capsys: Capture) -> None:
    _, study, store = fake_study(out)
    for job in study:
        if job.kind == "select":
            select(store, study)
            store.publish("selections")
        else:
            finish(store, job, metrics={"test/top1": 90.0})
    assert status.main([out]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert f"aws s3 sync {out}/report report" in last and f"orchestrator.compare {out} " in last
    _, near, here = fake_study(Path("here"))
    finish(here, near.jobs[0])
    assert compare.main([out, "here"]) == 0
    said = capsys.readouterr().out
    assert "1 finished jobs are common, with equal weights" in said and "not done" in said
    assert cell.main(["show", f"{out}:frc", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == CELL


def test_old_job_folders_are_listed_and_removed(
    out: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        orchestrator.run.checks, "identity", lambda folder, data, split: identity(data, split)
    )
    before, _ = begun(out, "searches.frc.recipe.epochs=2")
    study, _ = begun(out)
    gone = [f"{job.label}-{job.id}" for job in before if job.kind != "select"]
    assert jobs.main(["list", out]) == 0
    said = capsys.readouterr().out
    assert f"{out}: 10 job folders, 5 of them old" in said
    assert all(name in said for name in gone) and " 0 B" not in said
    holder = {"host": os.uname().nodename, "pid": os.getpid(), "heartbeat": time.time()}
    storage = open_storage(out)
    storage.write("lease.json", json.dumps(holder).encode())
    assert jobs.main(["remove", out, "--yes"]) == 2
    assert "driven by process" in capsys.readouterr().err
    storage.write("lease.json", b"{}")
    assert jobs.main(["remove", out, "--yes"]) == 0
    left = {name.split("/")[0] for name in storage.under("jobs").listing()}
    assert left == {f"{job.label}-{job.id}" for job in study if job.kind != "select"}
    assert open_recorded(out)[0].done(study.jobs[0]), "what is needed is whole"


def test_runs_are_sent_with_the_report_that_is_there(
    out: str, capsys: Capture, tmp_path: Path
) -> None:
    begun(out)
    open_storage(out).write("report/report.md", b"# a report\n")
    assert send_runs.main([out, "--to", f"sqlite:///{tmp_path}/there.db"]) == 0
    with sqlite3.connect(tmp_path / "there.db") as database:
        (count,) = database.execute("select count(*) from runs").fetchone()
        (steps,) = database.execute("select count(*) from metrics where key = 'seconds'").fetchone()
    assert (count, steps) == (4, 5), "a parent and three searches; 3, 1 and 1 records"
    assert next(tmp_path.glob("mlruns/**/report/report.md")).read_text() == "# a report\n"


@pytest.mark.parametrize("words", [["status"], ["compare", "x"], ["jobs", "list"], ["cell"]])
def test_an_address_without_a_study_is_refused_and_nothing_is_made(
    words: list[str], out: str, capsys: Capture
) -> None:
    main = {"status": status, "compare": compare, "jobs": jobs, "cell": cell}[words[0]].main
    assert main(["show", f"{out}:frc"] if words == ["cell"] else [*words[1:], out]) == 2
    assert "no study there" in capsys.readouterr().err
    assert open_storage(out).listing() == {}


def test_what_cannot_work_on_an_object_store_is_refused_before_it_is_asked(
    capsys: Capture, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / name).write_bytes(b"of one's own")
    began = time.monotonic()
    words = ["headline", "--data", str(tmp_path / "data"), "search.recipe.data.checksum=any"]
    nowhere = "s3://nowhere/x?endpoint_override=127.0.0.1:9&scheme=http&region=x"
    assert reproduce_paper.main([*words, "--out", nowhere]) == 2
    assert "data.checksum=any is for --out and --data in folders" in capsys.readouterr().err
    assert time.monotonic() - began < 60 and not (tmp_path / "data" / "arrow").exists()


def test_doctor_tries_the_addresses_and_says_what_is_there(out: str, capsys: Capture) -> None:
    open_storage(out).write("data/arrow/digits-train.arrow", b"x")
    words = ["smoke", "--out", f"{out}/run", "--data", f"{out}/data"]
    assert doctor.main(words) == 0
    said = capsys.readouterr().out
    assert f"{out}/run: can be written to" in said and f"{out}/data: can be written to" in said
    assert said.splitlines()[-1].endswith(f"smoke --data {out}/data --out {out}/run")
    assert list(open_storage(out).listing()) == ["data/arrow/digits-train.arrow"]
    assert doctor.main(["smoke", "--out", "s3://no-such-bucket/x"]) == 1
    assert "BAD   --out s3://no-such-bucket/x: " in capsys.readouterr().out
