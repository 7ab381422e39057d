"""MLflow: a parent run for each study, a child run for each job.

Only the driver writes to MLflow. It uploads the records that jobs leave on disk, with the times in
them. MLflow keeps one point for equal (key, value, step, time), so a repeated upload changes
nothing. If the server is down, no job fails: what cannot be uploaded now is uploaded later.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gdas.errors import InputError, one_line
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.study import Job, Study
from orchestrator.store.board import Board, Changes
from orchestrator.store.results import GenotypeJson, Record, Trained
from orchestrator.store.store import Store
from orchestrator.tracking.words import (
    data_of,
    description,
    parameters_of,
    report_tables,
    run_name,
    tags_of,
)

KEY = "gdas.key"
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
TABLES = "mlflow.loggedArtifacts"  # names the JSON artifacts that MLflow's page shows as tables
# Without this tag, MLflow's page takes the experiment for one about language model agents.
KIND = {"mlflow.experimentKind": "custom_model_development"}
INTERVAL_S = 2.0
BATCH = 900  # metrics per call; MLflow takes 1,000
PARAMS = 90  # parameters per call; MLflow takes 100


class Tracker:
    """Keeps MLflow up to date with the output folder.

    Args:
        study, store: the study, and its output folder.
        experiment: its settings name the server and the MLflow experiment.

    Raises:
        InputError: no tracking server answers.
    """

    def __init__(self, study: Study, store: Store, experiment: Experiment) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # `sync` retries at its next call instead, which neither blocks nor makes a run twice.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        import mlflow  # noqa: F401  (it sets its loggers' levels when it is imported)

        for noisy in ("mlflow", "alembic", "urllib3"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)  # this class reports errors
        self.study, self.store, self.experiment = study, store, experiment
        self.jobs = list(study.in_cluster)
        self.uri = (
            experiment.mlflow.tracking_uri or f"sqlite:///{store.tracking_folder / 'mlflow.db'}"
        )
        self.key = str(store.study()["key"])
        self.client: Any = None
        self.experiment_id = self.parent = ""
        self.runs: dict[str, str] = {}  # job id -> run id
        self.sent: dict[str, list[float]] = {}  # job id -> the times of the records sent
        self.closed: set[str] = set()
        self.board: Board | None = None  # without one, every job's folder is read every time
        self.changes = Changes()
        self.complained = False
        self.sending = threading.Lock()
        self.stopped = threading.Event()
        self.thread: threading.Thread | None = None
        try:
            self._connect()
        except Exception as error:  # MLflow raises many kinds
            if experiment.mlflow.unreachable == "warn":
                self._complain(error)
                return
            text = one_line(error, 200)
            raise InputError(
                f"mlflow.tracking_uri={self.uri}: no MLflow answers there ({text}); start it, go "
                "on without it for now (mlflow.unreachable=warn), or leave the setting out to "
                "track in the output folder"
            ) from None

    def _connect(self) -> None:
        """Find or create the experiment and the parent run."""
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=self.uri)
        self.experiment_id = self._experiment(self.experiment.mlflow.experiment)
        tags = {"stage": "study"}
        if command := self.store.study().get("command"):
            tags["command"] = str(command)
        name = f"{self.experiment.name} {self.key[:6]}"
        self.parent = self._run(self.key, name, tags, self._began())

    def _began(self) -> int | None:
        """When the study's first record was begun, in milliseconds; None if there is none yet."""
        records = [self.store.records(job) for job in self.jobs]
        return min((_milliseconds(found[0], "started") for found in records if found), default=None)

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = None  # a server chooses its own
        if self.uri.startswith("sqlite:///"):  # artifacts go beside the database
            database = Path(self.uri.removeprefix("sqlite:///")).resolve()
            location = (database.parent / "mlruns").as_uri()
        return str(self.client.create_experiment(name, artifact_location=location, tags=KIND))

    def _run(self, key: str, name: str, tags: dict[str, str], began: int | None) -> str:
        """Find the run with this key, or create it; so a resumed study makes no second run."""
        found = self.client.search_runs([self.experiment_id], f"tags.`{KEY}` = '{key}'")
        if found:
            run_id = str(found[0].info.run_id)
            if found[0].info.status != "FINISHED":
                self.client.update_run(run_id, status="RUNNING")
            return run_id
        run = self.client.create_run(
            self.experiment_id, run_name=name, tags={KEY: key, **tags}, start_time=began
        )
        return str(run.info.run_id)

    def start(self, board: Board) -> None:
        """Upload new records every few seconds, in the background, until `finish`.

        Args:
            board: tells which jobs' folders may have changed.
        """
        self.board = board

        def loop() -> None:
            while not self.stopped.wait(INTERVAL_S):
                self.sync()

        self.thread = threading.Thread(target=loop, name="tracking", daemon=True)
        self.thread.start()

    def sync(self) -> bool:
        """Upload what is new; it never raises, and what fails is retried at the next call.

        Returns:
            Whether everything was uploaded.
        """
        with self.sending:
            try:
                if not self.parent:
                    self._connect()
                for job in self._due():
                    self._sync_job(job)
            except Exception as error:
                self._complain(error)
                self._forget(error)
                return False
            if self.complained:
                print(f"MLflow at {self.uri} answers again; it has everything", file=sys.stderr)
            self.complained = False
            return True

    def _due(self) -> Iterator[Job]:
        """The jobs whose folders may have something to upload."""
        jobs, board = [job for job in self.jobs if job.id not in self.closed], self.board
        if board is None:
            return iter(jobs)
        return (job for job, _ in self.changes.due(jobs, board))

    def _complain(self, error: Exception) -> None:
        if not self.complained:
            text = one_line(error, 200)
            print(f"MLflow at {self.uri} does not answer ({text}); trying on", file=sys.stderr)
        self.complained = True

    def _forget(self, error: Exception) -> None:
        """Ask the server at the next call what it has, since it may have lost something."""
        self.runs.clear()
        self.sent.clear()
        self.changes.seen.clear()
        if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            self.closed.clear()
            self.parent = ""

    def _sync_job(self, job: Job) -> None:
        folder = self.store.folder(job)
        if not folder.path.is_dir():
            return
        result = folder.result(Trained)  # read before the records: if it exists, they are complete
        records = self.store.records(job)
        if not records and result is None:
            return
        times = [record["time"] for record in records]
        if job.id not in self.runs:
            self.runs[job.id] = self._start(job, records)
        done = self.sent.get(job.id, [])
        if done != times[: len(done)]:  # resumed from an earlier checkpoint
            self.client.delete_run(self.runs.pop(job.id))
            self.runs[job.id] = self._start(job, records)
            done = []
        run_id = self.runs[job.id]
        self._log(run_id, records[len(done) :])
        self.sent[job.id] = times
        if result is not None:
            self.client.log_dict(run_id, result, "result.json")
            if "genotype" in result:  # measurements have none
                self.client.log_dict(run_id, result["genotype"], "genotype.json")
                self._picture(run_id, result["genotype"])
            self.client.log_artifact(run_id, str(folder.path / "settings.json"))
            self.client.set_terminated(run_id, "FINISHED", _end(records))
            self.closed.add(job.id)

    def _start(self, job: Job, records: list[Record]) -> str:
        """Find or create a job's run.

        If the run has records that the job no longer has, a new run replaces it.
        """
        from mlflow.entities import Param

        tags = tags_of(job, self.experiment) | {PARENT: self.parent}
        key, name = f"{self.key}/{job.id}", run_name(job)
        began = _milliseconds(records[0], "started") if records else None
        run_id = self._run(key, name, tags, began)
        known = {(_milliseconds(record), record["position"]) for record in records}
        history = self.client.get_metric_history(run_id, "seconds")
        if not {(point.timestamp, point.step) for point in history} <= known:
            self.client.delete_run(run_id)
            run_id = self._run(key, name, tags, began)
        params = [Param(name, value) for name, value in parameters_of(job).items()]
        for start in range(0, len(params), PARAMS):
            self.client.log_batch(run_id, params=params[start : start + PARAMS])
        self.client.log_inputs(run_id, datasets=_inputs(job))
        return run_id

    def _log(self, run_id: str, records: list[Record]) -> None:
        from mlflow.entities import Metric

        metrics = []
        for record in records:
            values = record["metrics"] | {"seconds": record["seconds"]}
            when = _milliseconds(record)
            metrics += [Metric(k, v, when, record["position"]) for k, v in values.items()]
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + BATCH])

    def _picture(self, run_id: str, genotype: GenotypeJson) -> None:
        import tempfile

        from orchestrator.report.figures.curves import draw

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cell.png"
            draw(genotype, path)
            self.client.log_artifact(run_id, str(path), "figures")

    def finish(self, board: Board, patience_s: float) -> bool:
        """Upload the rest, close the runs, and log the report to the parent run.

        Args:
            patience_s: how long this may take, in seconds; after that, the rest is left to the next
                command.

        Returns:
            Whether everything was uploaded.
        """
        self.stopped.set()
        outcome: list[bool] = []
        last = threading.Thread(target=lambda: outcome.append(self._finish(board)), daemon=True)
        last.start()
        last.join(patience_s)
        if outcome != [True]:
            print(
                f"MLflow at {self.uri}: not everything was sent; the same command sends the rest",
                file=sys.stderr,
            )
        return outcome == [True]

    def _finish(self, board: Board) -> bool:
        self.board = None  # read every job's folder once more
        if not self.sync():
            return False
        try:
            for job in self.jobs:
                if job.id in self.runs and job.id not in self.closed:
                    failed = board.states[job.id] == "failed"
                    end = _end(self.store.records(job))
                    status = "FAILED" if failed else "KILLED"
                    self.client.set_terminated(self.runs[job.id], status, end)
                self._tag_selected(job)
                self._model(job)
            self._conclude(board)
        except Exception as error:
            self._complain(error)
            return False
        return True

    def _conclude(self, board: Board) -> None:
        """Log the parent run's report, tables and description, and close it."""
        report = self.store.out / "report"
        if report.is_dir():
            self.client.log_artifacts(self.parent, str(report), "report")
            tables = report_tables((report / "report.md").read_text(encoding="utf-8"))
            for file, text in tables.items():
                self.client.log_text(self.parent, text, file)
            listed = [{"path": file, "type": "table"} for file in tables]
            self.client.set_tag(self.parent, TABLES, json.dumps(listed))
        self.client.log_artifact(self.parent, str(self.store.out / "study.json"))
        said = description(self.study, self.store, self.experiment_id)
        self.client.set_tag(self.parent, NOTE, said)
        last = [_end(self.store.records(job)) for job in self.jobs]
        end = max((when for when in last if when is not None), default=None)
        status = "KILLED" if board.open() else "FINISHED" if board.all_done() else "FAILED"
        self.client.set_terminated(self.parent, status, end)

    def _model(self, job: Job) -> None:
        """Log and register a finished final's network; an error here is only printed."""
        if not job.of.model or job.id not in self.closed:
            return
        from orchestrator.tracking.registry import log_final

        name, folder = f"{self.experiment.name}-{job.name}", self.store.folder(job)
        try:
            log_final(self.client, self.runs[job.id], folder, name)
        except Exception as error:
            text = one_line(error, 200)
            print(f"{job.label}: its model is not in MLflow ({text})", file=sys.stderr)

    def _tag_selected(self, job: Job) -> None:
        if job.id not in self.runs:
            return
        for path in (self.store.out / "selections").glob("*.json"):
            winner = json.loads(path.read_text()).get("winner", {})
            if winner.get("search") == job.id:
                self.client.set_tag(self.runs[job.id], "selected", "true")


def _inputs(job: Job) -> list[Any]:
    """A job's data as MLflow lists it; logging equal data again changes nothing."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(Dataset(name, digest, "local", "{}"), [InputTag("mlflow.data.context", split)])
        for split, (name, digest) in data_of(job).items()
    ]


def _milliseconds(record: Record, key: str = "time") -> int:
    when: Any = record.get(key, record["time"])
    return int(float(when) * 1000)


def _end(records: list[Record]) -> int | None:
    """When the last segment ended, in milliseconds; None (to MLflow: now) without records."""
    return _milliseconds(records[-1]) if records else None
