"""Settings and what lies in an output folder: not trusted, refused or passed over, never obeyed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orchestrator.run.lease
from gdas.errors import InputError
from orchestrator.experiment.build import build_study
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.load import EXPERIMENTS, load_experiment
from orchestrator.run.lease import lease
from orchestrator.store.failure import read_failure
from orchestrator.store.job_folder import JobFolder
from orchestrator.store.results import Record
from orchestrator.store.store import Store
from tests.harm import files, harmed, no_code_runs, read_harmed, tries
from tests.orchestrator.test_study import identity
from tests.orchestrator.written import plain_record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("harmed")


# Settings


def test_harmed_settings_are_refused_or_an_experiment(folder: Path) -> None:
    path = folder / "study.yaml"
    whole = (EXPERIMENTS / "drill.yaml").read_bytes()

    @settings(tries, max_examples=60)
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        found = read_harmed(
            path, data.draw(harmed(whole)), lambda: load_experiment(str(path), []), InputError
        )
        assert found is None or isinstance(found, Experiment)

    attempt()


def bomb() -> str:
    """Nine lists of nine of the one before: 387 million values in a file of 400 bytes."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 9):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]")
    return "\n".join(lines)


HOSTILE = {
    "a call": "searches: !!python/object/apply:os.system [touch ran]",
    "an object": "searches: !!python/object:orchestrator.store.store.Store {}",
    "a module": "searches: !!python/module:antigravity",
    "a bomb": bomb(),
    "a bomb below a known key": "searches:\n  a:\n"
    + "\n".join(f"    {x}" for x in bomb().split("\n")),
    "a bomb in the seeds": bomb() + "\nsearches: {a: {seeds: *a8}}",
    "itself": "searches: &s {a: *s}",
    "nested beyond reading": "searches: " + "[" * 20_000,
    "a day that is none": "searches: 2001-99-99",
    "a date": "searches: {a: {seeds: 2001-01-01}}",
    "bytes": "note: !!binary aGVsbG8=",
    "a set": "searches: {a: {seeds: !!set {1, 2}}}",
    "keys that are no text": "searches: {1: {seeds: [0]}, null: {}}",
    "an unhashable key": "{[1]: 2}",
    "not a number": "searches: {a: {recipe: {epochs: .nan}}}",
    "a number beyond numbers": f"searches: {{a: {{recipe: {{epochs: {'9' * 6000}}}}}}}",
    "a name that is a path": "searches: {../../up: {}}",
    "data that are a path": "searches: {a: {recipe: {data: {name: ../../up, format: photos}}}}",
    "a null byte": 'searches: "a\\0b"',
    "two documents": "a: 1\n---\nb: 2",
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.timeout(120)
def test_hostile_settings_are_refused_and_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    ran = no_code_runs(monkeypatch)
    path = tmp_path / "study.yaml"
    content = HOSTILE[case].encode()
    assert read_harmed(path, content, lambda: load_experiment(str(path), []), InputError) is None
    assert ran == []


# The output folder


def trained_epoch(position: int) -> Record:
    loss = {"train/loss": 0.5}
    return plain_record(position, of=2, metrics=loss, started=1.0, time=2.0, seconds=1.0)


RECORD = trained_epoch(1)


def test_harmed_records_are_read_up_to_the_harm(folder: Path) -> None:
    job = JobFolder.open(folder / "job")
    job.path.mkdir()
    records = [trained_epoch(position) for position in (1, 2, 3)]
    job.rewrite_records(records)
    path = job.path / "records.jsonl"
    whole = path.read_bytes()

    @tries
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        found: Any = read_harmed(path, data.draw(harmed(whole)), job.records, InputError)
        for record in found:  # what console, MLflow and report take for granted
            assert isinstance(record["position"], int)
            sum([record["of"], record["seconds"], record["time"], *record["metrics"].values()])

    attempt()


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "1",
        "null",
        '{"position": 1}',
        json.dumps(RECORD).replace("0.5", "NaN"),
        json.dumps(RECORD).replace("0.5", "1e999"),
        json.dumps(RECORD).replace("0.5", '"a lot"'),
        json.dumps(RECORD).replace('"time": 2.0', '"time": null'),
        json.dumps(RECORD).replace('"position": 1', '"position": true'),
        "[" * 100_000,
        "9" * 6000,
    ],
)
def test_a_line_that_is_no_record_ends_the_records(tmp_path: Path, line: str) -> None:
    whole = json.dumps(RECORD)
    (tmp_path / "records.jsonl").write_text(f"{whole}\n{line}\n{whole}\n")
    assert JobFolder.open(tmp_path).records() == [RECORD]


READERS: dict[str, Callable[[Store, Any], object]] = {
    "study.json": lambda store, job: Store(store.out),
    "selections/smoke.json": lambda store, job: store.selection(job),
    "jobs/search-a-0/result.json": lambda store, job: JobFolder.open(
        store.out / "jobs/search-a-0"
    ).result(),
    "jobs/search-a-0/failure.json": lambda store, job: read_failure(
        store.place.under("jobs/search-a-0")
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_harmed_files_of_the_output_folder_are_refused_or_passed_over(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    store = Store(tmp_path_factory.mktemp("out"))
    study = build_study(load_experiment("smoke", []), identity, {})
    store.write_study(study, {"note": "x"}, {"torch": "2"})
    path = store.out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    job = next(job for job in study if job.kind == "select")
    if not path.exists():
        path.write_text(
            json.dumps({"id": job.id, "metrics": {}, "error": "x", "winner": {}, "times": 2})
        )
    whole = path.read_bytes()

    @tries
    @given(st.data() | st.none())
    def attempt(data: st.DataObject | None) -> None:
        content = b"[" * 100_000 if data is None else data.draw(harmed(whole))
        read_harmed(path, content, lambda: READERS[name](store, job), InputError)

    attempt()


def test_a_harmed_lease_is_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator.run.lease, "DEAD_AFTER_S", 0.0)
    store = Store(tmp_path_factory.mktemp("out"))
    path = store.out / "lease.json"
    whole = json.dumps({"host": "elsewhere", "pid": 1, "heartbeat": 1e12}).encode()

    @tries
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        path.write_bytes(data.draw(harmed(whole)))
        others = {k: v for k, v in files(store.out).items() if k != "lease.json"}
        try:
            with lease(store):
                holder = json.loads(path.read_text())
                assert holder["heartbeat"] < 1e12
        except InputError as refusal:
            assert "\n" not in str(refusal)
        assert {k: v for k, v in files(store.out).items() if k != "lease.json"} == others

    attempt()
