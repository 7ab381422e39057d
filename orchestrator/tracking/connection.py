"""A study's connection to an MLflow: its experiment, and its runs by their keys.

A run is found by a tag that holds its key, so a resumed study makes no second run. It also has the
machine and folder that wrote it: a run of another folder is never deleted.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gdas.errors import InputError, one_line
from orchestrator.tracking.database import (
    KEY,
    address_of,
    artifacts_of,
    begin_empty,
    keep_empty,
    set_aside,
)
from orchestrator.tracking.reach import fault_of

HOME = "gdas.home"
"""The tag of the machine and folder that wrote a run."""
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
# Without this tag, MLflow's page takes the experiment for one about language model agents.
KIND = {"mlflow.experimentKind": "custom_model_development"}
PASSING = ("already exists", "duplicate column", "locked", "UNIQUE constraint")
"""In a database's errors if another process makes or changes it at this moment."""
TRIES = 6
ALONE_S = 120.0
"""How long another study may take to make a database, in seconds."""


def import_mlflow() -> None:
    """Import MLflow and what it needs for a database, which takes seconds.

    It reads its environment and sets its loggers' levels when it is imported.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # The tracker retries at its next call instead, which neither blocks nor makes a run twice.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


class Connection:
    """The MLflow that a study is tracked in.

    Args:
        named: the setting `mlflow.tracking_uri`; None: the study's own database.
        database: that database.
        experiment: the MLflow experiment's name.
        home: the machine and folder that write runs now.
    """

    def __init__(self, named: str | None, database: Path, experiment: str, home: str) -> None:
        import_mlflow()
        for noisy in ("mlflow", "alembic", "urllib3"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)  # the tracker reports errors
        self.database = None if named else database
        self.uri = named or address_of(database)
        self.experiment, self.home = experiment, home
        self.client: Any = None
        self.experiment_id = ""

    def begin(self, connect: Callable[[], None], *, warn: bool) -> Exception | None:
        """Call `connect` for the first time.

        Args:
            warn: whether a server that does not answer is only warned of.

        Returns:
            Why there is no connection yet; None if there is one.

        Raises:
            InputError: the server cannot be used, and `warn` is False. The study's own database is
                never a reason to refuse it.
        """
        with _alone(self.uri):
            why = _tried(connect)
        if why is None or isinstance(why, InputError):
            if why is not None and not warn:
                raise why
            return why
        text = one_line(why, 200)
        if self.database is not None:
            if any(word in text for word in PASSING):
                return why
            set_aside(self.database, text[:100])  # MLflow keeps it open: the next command's is new
            return why
        if warn:
            return why
        raise InputError(
            f"mlflow.tracking_uri={self.uri}: no MLflow serves this study there "
            f"({fault_of(self.uri) or text}); mend that, go on without it for now "
            "(mlflow.unreachable=warn), or leave the setting out to track in the output folder"
        )

    def connect(self) -> None:
        """Find or create the experiment."""
        from mlflow import MlflowClient

        new = self.database is not None and begin_empty(self.database)
        # The registry is named too, since otherwise the environment could name another.
        self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        if self.database is not None and new:
            keep_empty(self.database)
        found = self.client.get_experiment_by_name(self.experiment)
        if found is None:
            # A server chooses its own place for artifacts; those of a database go beside it.
            place = artifacts_of(self.uri) if self.uri.startswith("sqlite:///") else None
            self.experiment_id = str(
                self.client.create_experiment(self.experiment, artifact_location=place, tags=KIND)
            )
            return
        if found.lifecycle_stage == "deleted":
            self._restore(str(found.experiment_id))
        self.experiment_id = str(found.experiment_id)

    def _restore(self, experiment_id: str) -> None:
        """Restore the study's own deleted experiment; refuse a server's, which others may share."""
        if self.database is None:
            raise InputError(
                f"mlflow.experiment={self.experiment}: was deleted at {self.uri}; restore it "
                f"(MLFLOW_TRACKING_URI={self.uri} mlflow experiments restore --experiment-id "
                f"{experiment_id}), or set mlflow.experiment to another name"
            )
        self.client.restore_experiment(experiment_id)
        print(f"note: {self.uri}: its experiment was deleted and is restored", file=sys.stderr)

    def run(self, key: str, name: str, tags: dict[str, str], began: int | None) -> str:
        """Find the run with this key, or create it.

        Args:
            tags: those that a new run gets; a found one only gets its parent.
            began: when it began, in milliseconds; None: now.

        Returns:
            The run's id.
        """
        found = self.client.search_runs([self.experiment_id], f"tags.`{KEY}` = '{key}'")
        if not found:
            tags = {KEY: key, HOME: self.home, **tags}
            run = self.client.create_run(
                self.experiment_id, run_name=name, tags=tags, start_time=began
            )
            return str(run.info.run_id)
        run_id, had = str(found[0].info.run_id), found[0].data.tags
        if found[0].info.status != "FINISHED":
            self.client.update_run(run_id, status="RUNNING")
        if PARENT in tags and had.get(PARENT) != tags[PARENT]:  # the parent was deleted
            self.client.set_tag(run_id, PARENT, tags[PARENT])
        if "error" in had:  # the job is tried again
            for gone in {"error", NOTE} & set(had):
                self.client.delete_tag(run_id, gone)
        return run_id

    def discard(self, run_id: str) -> None:
        """Delete a run whose records the job no longer has; let go of it if another folder's."""
        tags = self.client.get_run(run_id).data.tags
        wrote = tags.get(HOME, self.home)
        if wrote == self.home or self.database is not None:
            self.client.delete_run(run_id)
        else:
            self.client.set_tag(run_id, KEY, f"{tags[KEY]} of {wrote}")


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Keep other studies from making the same database at the same time, which MLflow does not.

    The lock is on the database's folder. Where there are no locks, nothing is kept away.
    """
    if not uri.startswith("sqlite:///"):
        yield
        return
    folder = None
    with suppress(OSError):
        folder = os.open(Path(uri.removeprefix("sqlite:///")).parent, os.O_RDONLY)
    end = time.monotonic() + ALONE_S
    while folder is not None and time.monotonic() < end:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                break
        time.sleep(0.1)
    try:
        yield
    finally:
        if folder is not None:
            os.close(folder)


def _tried(connect: Callable[[], None]) -> Exception | None:
    """Connect, and again while another process makes the same database or experiment."""
    for number in range(TRIES):
        try:
            connect()
            return None
        except Exception as error:  # MLflow raises many kinds
            if number == TRIES - 1 or not any(word in str(error) for word in PASSING):
                return error
        time.sleep(0.3 * (1 + number) * (1 + os.getpid() % 5 / 5))  # not in step with the other
    return None
