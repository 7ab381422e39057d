"""Where MLflow's database and files are: folders moved, copied, oddly named, without locks."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

import orchestrator.tracking.database
from orchestrator import send_runs, status
from orchestrator.report.figures import curves
from orchestrator.store.recorded import open_recorded, recorded_board, recorded_experiment
from orchestrator.store.store import Store
from orchestrator.tracking.database import address_of, begin_empty, keep_empty, open_database
from orchestrator.tracking.tracker import Tracker
from tests.orchestrator.fake_study import fake_study, finish, select

Empty = Callable[[Path], str]


@pytest.fixture(autouse=True)
def plain_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "draw", lambda genotype, path: path.write_bytes(b"a cell"))


def tracked(out: Path, empty_database: Empty) -> Tracker:
    """A study with two finished searches, in its own database."""
    experiment, study, store = fake_study(out)
    empty_database(out)
    for job in study.of_kind("search")[:2]:
        finish(store, job)
    tracker = Tracker(study, store, experiment)
    assert tracker.sync()
    return tracker


def forget() -> None:
    """Close what MLflow keeps open by address until its process ends."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracking._tracking_service import registry, utils

    utils._artifact_repos_cache.clear()
    registry.TrackingStoreRegistry._get_store_with_resolved_uri.cache_clear()
    for engine in SqlAlchemyStore._engine_map.values():
        engine.dispose()
    SqlAlchemyStore._engine_map.clear()


def again(out: Path) -> Tracker:
    """A later command's tracker, as `send_runs` makes it."""
    forget()
    store, study = open_recorded(str(out))
    store.settle()
    return Tracker(study, store, recorded_experiment(store))


def rows(database: Path, query: str) -> list[Any]:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        return [row[0] for row in connection.execute(query).fetchall()]


KEYS = "select value from tags where key = 'gdas.key' order by value"
ARTIFACTS = "select artifact_uri from runs"


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_moved_study_keeps_its_runs_and_writes_nothing_where_it_was(
    tmp_path: Path, empty_database: Empty, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old", tmp_path / "new place"
    tracked(old, empty_database)
    keys = rows(old / "mlflow.db", KEYS)
    old.rename(new)
    store, study = open_recorded(str(new))
    assert status.main([str(new)]) == 0
    assert f"orchestrator.send_runs '{new}'" in capsys.readouterr().out
    finish(store, study.of_kind("search")[2])
    forget()
    assert send_runs.main([str(new)]) == 0
    tracker = again(new)
    assert tracker.sync()
    assert not old.exists(), "nothing is written where it was"
    assert status.main([str(new)]) == 0
    said = capsys.readouterr().out
    assert "was moved" not in said and f"--out '{new}'" in said
    assert set(keys) < set(rows(new / "mlflow.db", KEYS)), "the same runs and one more"
    for run_id in tracker.runs.values():
        assert Path(tracker.client.download_artifacts(run_id, "result.json")).is_file()
    assert all(new.as_uri() in uri for uri in rows(new / "mlflow.db", ARTIFACTS))
    assert f"--out '{new}'" in store.command() and str(old) not in store.command()


def test_a_copy_has_a_key_of_its_own_and_leaves_the_original_alone(
    tmp_path: Path, empty_database: Empty
) -> None:
    original, copy = tmp_path / "a", tmp_path / "b"
    server = empty_database(tmp_path / "server")
    tracked(original, empty_database)
    shutil.copytree(original, copy)
    before = files(original)
    words = ["--to", server, "--experiment", "both"]
    assert send_runs.main([str(original), *words]) == 0
    assert files(original) == before
    assert send_runs.main([str(copy), *words]) == 0
    keys = rows(tmp_path / "server" / "mlflow.db", KEYS)
    assert len(keys) == 6 and len({key.partition("/")[0] for key in keys}) == 2
    tracker = again(copy)
    assert tracker.sync() and files(original) == before
    assert len(rows(copy / "mlflow.db", KEYS)) == 3, "its own database has each run once"
    assert Store(copy).key() == tracker.key != Store(original).key()
    copy.rename(tmp_path / "c")
    assert Store(tmp_path / "c").key() == tracker.key, "a moved copy is no copy again"


def test_a_copy_that_an_older_build_left_is_told_by_its_commands_out(tmp_path: Path) -> None:
    from gdas.files import write_json

    _, _, store = fake_study(tmp_path / "a")
    older = {key: value for key, value in store.study().items() if key != "home"}
    write_json(store.out / "study.json", older)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    key = str(older["key"])
    assert Store(tmp_path / "a").key() == key != Store(tmp_path / "b").key()
    (tmp_path / "a").rename(tmp_path / "c")
    assert Store(tmp_path / "b").key() == key, "as far as can be seen, it was moved"


def test_a_folder_from_another_machine_counts_as_a_copy(tmp_path: Path) -> None:
    _, _, store = fake_study(tmp_path / "a")
    found = store.study()
    key, home = store.key(), found["home"]
    for changed, same in (
        ({"host": "elsewhere"}, True),  # the same folder, mounted there too
        ({"inode": 1}, True),  # copied away and back
        ({"host": "elsewhere", "inode": 1}, False),
        ({"path": "/gone", "inode": 1}, True),  # moved to another disk
        ({"path": "/gone", "host": "elsewhere", "inode": 1}, False),
    ):
        from gdas.files import write_json

        write_json(store.out / "study.json", {**found, "home": {**home, **changed}})
        assert (store.key() == key) == same, changed
        assert store.key() == store.key()


@pytest.mark.parametrize("harm", ["garbage", "newer"])
def test_a_database_that_cannot_be_read_is_set_aside(
    harm: str, tmp_path: Path, empty_database: Empty, capsys: pytest.CaptureFixture[str]
) -> None:
    empty_database(tmp_path)
    database = tmp_path / "mlflow.db"
    assert open_database(tmp_path, "key") == database and database.exists()
    if harm == "garbage":
        database.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    else:
        with sqlite3.connect(database) as connection:
            connection.execute("update alembic_version set version_num = 'of the year 2040'")
    harmed = database.read_bytes()
    assert open_database(tmp_path, "key") == database and not database.exists()
    assert "mlflow.db.unreadable-1" in capsys.readouterr().err
    assert (tmp_path / "mlflow.db.unreadable-1").read_bytes() == harmed


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("GDAS_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"


def test_a_database_that_cannot_be_locked_is_kept_in_the_cache(
    tmp_path: Path,
    empty_database: Empty,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, real = tmp_path / "out", orchestrator.tracking.database._try_to_write

    def without_locks(database: Path) -> None:
        if database.is_relative_to(out):
            raise sqlite3.OperationalError("disk I/O error")
        empty_database(database.parent)
        real(database)

    monkeypatch.setattr(orchestrator.tracking.database, "_try_to_write", without_locks)
    experiment, study, store = fake_study(out)
    finish(store, study.jobs[0])
    tracker = Tracker(study, store, experiment)
    assert tracker.sync() and str(own_cache) in tracker.uri
    assert "cannot be used (disk I/O error)" in capsys.readouterr().err
    assert not (out / "mlruns").exists() and not (out / "mlflow.db").exists()


@pytest.mark.parametrize("name", ["100%", "a%41b", "what?", "a b", "a#b'\""])
def test_any_name_of_the_folder_will_do(
    name: str, tmp_path: Path, empty_database: Empty, own_cache: Path
) -> None:
    from mlflow import MlflowClient

    out = tmp_path / name
    empty_database(out)
    uri = address_of(open_database(out, "key"))
    MlflowClient(tracking_uri=uri).create_experiment("made here")
    with sqlite3.connect(out / "mlflow.db") as connection:
        found = connection.execute("select name from experiments").fetchall()
    assert ("made here",) in found, "in the folder itself"
    assert "%" not in uri and "?" not in uri


def test_the_selected_search_stays_one_when_the_selection_changes(
    tmp_path: Path, empty_database: Empty
) -> None:
    tracker = tracked(tmp_path, empty_database)
    store, study = tracker.store, tracker.study
    for job in study.of_kind("search")[2:]:
        finish(store, job)
    select(store, study)
    board = recorded_board(store, study, driven=False)
    tracker.finish(board, 100)

    def selected() -> list[str]:
        found = tracker.client.search_runs([tracker.experiment_id], "tags.selected = 'true'")
        return [run.info.run_name for run in found]

    assert selected() == ["search frc seed 2"]
    path = next((tmp_path / "selections").glob("*.json"))
    third, fourth = (job.id for job in study.of_kind("search")[2:])
    path.write_text(path.read_text().replace(third, fourth))
    again(tmp_path).finish(board, 100)
    assert selected() == ["search frc seed 3"]


def test_the_next_new_database_begins_with_the_tables_of_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Empty
) -> None:
    monkeypatch.setenv("GDAS_CACHE", str(tmp_path / "cache"))
    first, then = tmp_path / "a" / "mlflow.db", tmp_path / "b" / "mlflow.db"
    for database in (first, then):
        database.parent.mkdir()
    assert begin_empty(first) and not first.exists(), "no tables are kept yet"
    empty_database(first.parent)
    assert not begin_empty(first), "it is there"
    with sqlite3.connect(first) as connection:
        connection.execute("UPDATE experiments SET artifact_location = 'a/mlruns'")
    keep_empty(first)
    assert begin_empty(then)
    with sqlite3.connect(then) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall()
        assert connection.execute("SELECT * FROM experiments").fetchall() == []
    assert MlflowClient(address_of(then)).search_experiments(), "MLflow makes its own in it"
    (kept,) = (tmp_path / "cache" / "mlflow").iterdir()
    kept.write_bytes(b"torn" * 5000)
    third = tmp_path / "c.db"
    assert begin_empty(third) and not third.exists(), "damaged tables are not used"
