"""MLflow's database in an output folder: a file that can be made again from the job folders.

So it is never a reason to refuse a study. If it is damaged, it is set aside and made anew; if the
file system has no locks or cannot be written to, it is kept in this machine's cache instead.

MLflow records absolute paths. If the folder was moved or copied since, they are corrected here,
with SQL, before MLflow opens the database: nothing is written into the folder that it came from.

Pure: sqlite3 only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing, suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from gdas.errors import one_line
from orchestrator.store.storage import cache_folder

DATABASE, ARTIFACTS = "mlflow.db", "mlruns"
KEY = "gdas.key"
"""The tag that holds a run's key: the study's own, or that with a job's id."""
PLACES = ("artifact_location", "artifact_uri", "storage_location", "source")
"""Columns of MLflow's tables that hold where artifacts are."""
BESIDE = ("", "-journal", "-wal", "-shm")
"""SQLite's files of one database."""
MISREAD = "%?"
"""Characters of a path that SQLAlchemy takes for part of an address (which, varies by version)."""


def open_database(folder: Path, key: str) -> Path:
    """Make sure that a study's database can be opened and has the present places and key.

    Args:
        folder: the folder that it belongs in.
        key: the study's key.

    Returns:
        The database's path, which need not exist yet.
    """
    for place in (folder, _spare(folder)):
        database = place / DATABASE
        try:
            place.mkdir(parents=True, exist_ok=True)
            _try_to_write(database)
            _settle(database, key)
            return database
        except (sqlite3.OperationalError, OSError) as error:  # no locks, no room, or read only
            print(f"note: {database}: cannot be used ({one_line(error, 100)})", file=sys.stderr)
        except sqlite3.DatabaseError as error:
            if set_aside(database, one_line(error, 100)):
                return database
    return Path(tempfile.mkdtemp(prefix="gdas-mlflow-")) / DATABASE


def begin_empty(database: Path) -> bool:
    """Begin a database that is not there yet with MLflow's empty tables, if they are kept here.

    MLflow takes seconds to make them; a copy of this machine's last ones takes milliseconds.

    Returns:
        Whether the database is new.
    """
    if database.exists() and database.stat().st_size:
        return False
    kept, copy = _kept(), database.with_name(f"{database.name}.new-{os.getpid()}")
    with suppress(OSError, sqlite3.Error):
        if kept.is_file():
            _try_to_write(kept)  # it is whole
            shutil.copyfile(kept, copy)
            copy.replace(database)
    return True


def keep_empty(database: Path) -> None:
    """Keep the tables of a new database, without MLflow's default experiment, for the next one."""
    kept = _kept()
    if kept.is_file():
        return
    copy = kept.with_name(f"{kept.name}.new-{os.getpid()}")
    with suppress(OSError, sqlite3.Error):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(database)) as whole, closing(sqlite3.connect(copy)) as empty:
            whole.backup(empty)
            empty.execute("DELETE FROM experiments")  # its place of artifacts is another's
            empty.commit()
        copy.replace(kept)
    with suppress(OSError):
        copy.unlink(missing_ok=True)


def _kept() -> Path:
    """Where this machine keeps the empty tables of the MLflow that is installed."""
    return cache_folder() / "mlflow" / f"empty-{version('mlflow')}.db"


def set_aside(database: Path, why: str) -> bool:
    """Rename a database that cannot be read, so that a new one is made.

    Returns:
        Whether that could be done.
    """
    number = 1
    while (aside := database.with_name(f"{DATABASE}.unreadable-{number}")).exists():
        number += 1
    try:
        for suffix in BESIDE:
            file = database.with_name(database.name + suffix)
            if file.exists():
                file.rename(aside.with_name(aside.name + suffix))
    except OSError:
        return False
    print(
        f"note: {database}: cannot be read ({why}); it is kept as {aside.name}, and a new one is "
        "made from the job folders",
        file=sys.stderr,
    )
    return True


def address_of(database: Path) -> str:
    """The SQLite address of a database.

    If its path has a character that would be misread there, the address goes through a link.
    """
    path = database.resolve()
    if not any(c in str(path) for c in MISREAD):
        return f"sqlite:///{path}"
    link = _spare(path.parent).with_suffix(".link")
    link.parent.mkdir(parents=True, exist_ok=True)
    if not (link.is_symlink() and link.readlink() == path.parent):
        link.unlink(missing_ok=True)
        link.symlink_to(path.parent)
    return f"sqlite:///{link / path.name}"


def names(uri: str | None, database: Path) -> bool:
    """Whether an address is that of a database, or of no other."""
    if uri is None:
        return True
    path = Path(uri.removeprefix("sqlite:///"))
    return uri.startswith("sqlite:///") and path.resolve() == database.resolve()


def artifacts_of(uri: str) -> str:
    """Where the artifacts of a database's new experiment go: a folder beside it."""
    return (Path(uri.removeprefix("sqlite:///")).resolve().parent / ARTIFACTS).as_uri()


def _spare(folder: Path) -> Path:
    """The folder on this machine that stands in for one that cannot hold a database."""
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    root = cache_folder()
    if not os.access(next(p for p in (root, *root.parents) if p.exists()), os.W_OK):
        root = Path(tempfile.gettempdir()) / f"gdas-cache-{os.getuid()}"
    return root / "mlflow" / name


def _try_to_write(database: Path) -> None:
    """Take the write lock of a database for a moment, and check that its content can be used.

    Raises:
        sqlite3.OperationalError: it cannot be locked or written.
        sqlite3.DatabaseError: it is damaged, or made by a newer MLflow.
    """
    with closing(sqlite3.connect(database, timeout=10)) as connection:
        connection.isolation_level = None
        connection.execute("BEGIN IMMEDIATE")
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")
        versions = "SELECT version_num FROM alembic_version"
        schema = connection.execute(versions).fetchone() if made.fetchone() else None
        connection.execute("ROLLBACK")
    if found != "ok":
        raise sqlite3.DatabaseError(found)
    if schema is not None and not _known(str(schema[0])):
        raise sqlite3.DatabaseError("a newer MLflow made it")


def _known(version: str) -> bool:
    """Whether the installed MLflow has the migration that a database stands at; True if unsure.

    MLflow itself is asked no such thing, since it keeps a database open that it has refused.
    """
    found = find_spec("mlflow")
    places = list(found.submodule_search_locations or []) if found else []
    scripts = [
        script
        for place in places
        for script in (Path(place) / "store" / "db_migrations" / "versions").glob("*.py")
    ]
    line = re.compile(rf"^revision(: str)? = ['\"]{re.escape(version)}['\"]", re.M)
    return not scripts or any(line.search(s.read_text(encoding="utf-8")) for s in scripts)


def _settle(database: Path, key: str) -> None:
    """Correct the places and the key that a moved or copied database has recorded."""
    ours = (database.resolve().parent / ARTIFACTS).as_uri()
    with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        names = [name for (name,) in tables.fetchall()]
        if not {"experiments", "tags"} <= set(names):
            return  # new
        found = connection.execute(
            "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE ?",
            (f"file:///%/{ARTIFACTS}",),
        )
        for (place,) in found.fetchall():
            if place != ours:
                _replace(connection, names, place, ours)
        _own_key(connection, key)


def _replace(connection: sqlite3.Connection, tables: list[str], old: str, new: str) -> None:
    for table in tables:
        for _, column, *_ in connection.execute(f'PRAGMA table_info("{table}")').fetchall():
            if column in PLACES:
                connection.execute(
                    f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?) '
                    f'WHERE "{column}" = ? OR substr("{column}", 1, ?) = ?',
                    (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )


def _own_key(connection: sqlite3.Connection, key: str) -> None:
    """Give the runs this study's key, if they all have another: that of the copy's original."""
    found = connection.execute("SELECT run_uuid, value FROM tags WHERE key = ?", (KEY,)).fetchall()
    if {value.partition("/")[0] for _, value in found} in (set(), {key}):
        return
    if len({value.partition("/")[0] for _, value in found}) > 1:
        return  # another study's runs are here on purpose
    for run, value in found:
        own = key + value[len(value.partition("/")[0]) :]
        connection.execute(
            "UPDATE tags SET value = ? WHERE key = ? AND run_uuid = ?", (own, KEY, run)
        )
