"""MLflow: a parent run for each study, a child run for each job.

Only the driver writes to MLflow. It uploads the records that jobs leave on disk, with the times in
them. MLflow keeps one point for equal (key, value, step, time), so a repeated upload changes
nothing. If the server is down, no job fails: what cannot be uploaded now is uploaded later.

The metrics of all jobs go before the files of any, and a file that MLflow refuses stops nothing
else (orchestrator.tracking.artifacts).
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from gdas.errors import one_line
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.study import Job, Study
from orchestrator.report.view import Results
from orchestrator.store.board import Board, Changes
from orchestrator.store.failure import read_failure
from orchestrator.store.job_folder import JobFolder
from orchestrator.store.results import Record, Trained
from orchestrator.store.store import Store
from orchestrator.tracking.artifacts import Artifacts
from orchestrator.tracking.connection import HOME, NOTE, PARENT, Connection
from orchestrator.tracking.database import DATABASE, names, open_database
from orchestrator.tracking.points import end_of, milliseconds, of_records, of_samples
from orchestrator.tracking.reach import unheeded
from orchestrator.tracking.words import (
    data_of,
    description,
    failure_note,
    figures,
    job_note,
    parameters_of,
    report_tables,
    run_name,
    tags_of,
)

TABLES = "mlflow.loggedArtifacts"  # names the JSON artifacts that MLflow's page shows as tables
INTERVAL_S = 2.0
BATCH = 900  # metrics per call; MLflow takes 1,000
PARAMS = 90  # parameters per call; MLflow takes 100
FILES_S = 10.0  # how long files may keep new metrics waiting, in seconds


class Tracker:
    """Keeps MLflow up to date with the output folder.

    Args:
        study, store: the study, and its output folder.
        experiment: its settings name the server and the MLflow experiment.

    Raises:
        InputError: no tracking server answers. The output folder's own database raises nothing.
    """

    def __init__(self, study: Study, store: Store, experiment: Experiment) -> None:
        self.study, self.store, self.experiment = study, store, experiment
        self.jobs = list(study.in_cluster)
        self.key = store.key()
        settings, database = experiment.mlflow, store.tracking_folder / DATABASE
        named = None if names(settings.tracking_uri, database) else settings.tracking_uri
        if named is None:
            database = open_database(store.tracking_folder, self.key)
        home = f"{socket.gethostname()}:{store.address}"
        self.mlflow = Connection(named, database, settings.experiment, home)
        self.parent = ""
        self.runs: dict[str, str] = {}  # job id -> run id
        self.sent: dict[str, list[float]] = {}  # job id -> the times of the records sent
        self.measured: dict[str, tuple[int, int]] = {}  # job id -> bytes and samples sent
        self.named: Sequence[str] | None = None  # as load_final takes it
        self.closed: set[str] = set()  # jobs whose run has ended, as their folder says
        self.files: dict[str, Job] = {}  # jobs whose files are to be uploaded, by job id
        self.artifacts = Artifacts(self.uri)
        self.board: Board | None = None  # without one, every job's folder is read every time
        self.states: dict[str, str] = {}  # the board's, which `finish` still has
        self.changes = Changes()
        self.complained = False
        self.sending, self.stopped = threading.Lock(), threading.Event()
        self.thread: threading.Thread | None = None
        for line in unheeded(settings.tracking_uri):
            print(line, file=sys.stderr)
        if why := self.mlflow.begin(self._connect, warn=settings.unreachable == "warn"):
            self._complain(why)

    @property
    def uri(self) -> str:
        """The address of the server or database."""
        return self.mlflow.uri

    @property
    def client(self) -> Any:
        """The MlflowClient; None if it could not be made yet."""
        return self.mlflow.client

    @property
    def experiment_id(self) -> str:
        """MLflow's id of the experiment; "" if it is not known yet."""
        return self.mlflow.experiment_id

    def _connect(self) -> None:
        """Find or create the experiment and the parent run."""
        self.mlflow.connect()
        name = f"{self.experiment.name} {self.key[:6]}"
        parent = self.mlflow.run(self.key, name, {"stage": "study"}, self._began())
        for key, value in self._of_the_study().items():
            self.client.set_tag(parent, key, value)  # also of a parent that was there before
        self.parent = parent

    def _of_the_study(self) -> dict[str, str]:
        """The parent's tags that a later command may change."""
        tags = {HOME: self.mlflow.home, "mlflow.source.name": "orchestrator.reproduce_paper"}
        if command := self.store.command():
            tags["command"] = command
        if commit := dict(self.store.study()).get("commit"):
            tags["mlflow.source.git.commit"] = str(commit)
        return tags

    def _began(self) -> int | None:
        """When the study's first record was begun, in milliseconds; None if there is none yet."""
        records = [self.store.records(job) for job in self.jobs]
        return min((milliseconds(found[0], "started") for found in records if found), default=None)

    def start(self, board: Board) -> None:
        """Upload new records every few seconds, in the background, until `finish`.

        Args:
            board: tells which jobs' folders may have changed.
        """
        self.board, self.states = board, board.states

        def loop() -> None:
            while not self.stopped.wait(INTERVAL_S):
                self.sync(FILES_S)

        self.thread = threading.Thread(target=loop, name="tracking", daemon=True)
        self.thread.start()

    def sync(self, files_s: float | None = None) -> bool:
        """Upload what is new; it never raises, and what fails is retried at the next call.

        Args:
            files_s: how long files may take, in seconds; the rest is left to the next call.

        Returns:
            Whether MLflow answers; `artifacts.refused` has the files that it did not take.
        """
        with self.sending:
            try:
                if not self.parent:
                    self._connect()
                for job in self._due():
                    self._sync_job(job)
                end = time.monotonic() + files_s if files_s is not None else float("inf")
                while self.files and time.monotonic() < end:
                    job = next(iter(self.files.values()))
                    self.artifacts.job(self.client, self.runs[job.id], job, self.store.folder(job))
                    del self.files[job.id]
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
        self.runs = {job: run for job, run in self.runs.items() if job in self.closed}
        self.sent.clear()
        self.measured.clear()
        self.changes.seen.clear()
        if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            self._start_over()

    def _start_over(self) -> None:
        """Look for the parent and all runs again at the next call."""
        self.runs.clear()
        self.measured.clear()
        self.closed.clear()
        self.files.clear()
        self.parent = ""

    def _sync_job(self, job: Job) -> None:
        """Upload a job's records, and end its run if the job has ended; its files come later."""
        folder = self.store.folder(job)
        failed = self.states.get(job.id) == "failed"
        if not folder.path.is_dir() and not failed:
            return
        result = folder.result(Trained)  # read before the records: if it exists, they are complete
        records = self.store.records(job)
        if not records and result is None and not failed:
            return
        times = [record["time"] for record in records]
        if job.id not in self.runs:
            self.runs[job.id] = self._start(job, records)
        done = self.sent.get(job.id, [])
        if done != times[: len(done)]:  # resumed from an earlier checkpoint
            self.mlflow.discard(self.runs.pop(job.id))
            self.runs[job.id] = self._start(job, records)
            self.measured.pop(job.id, None)
            done = []
        run_id = self.runs[job.id]
        self._log(run_id, of_records(records[len(done) :]))
        self.sent[job.id] = times
        self._log_machine(job, run_id, folder)
        if result is not None:
            if note := job_note(result):
                self.client.set_tag(run_id, NOTE, note)
            self.client.set_terminated(run_id, "FINISHED", end_of(records))
        elif failed:
            self._say_failed(job, run_id)
            self.client.set_terminated(run_id, "FAILED", end_of(records))
        else:
            return
        self.closed.add(job.id)
        self.files[job.id] = job

    def _say_failed(self, job: Job, run_id: str) -> None:
        """Tag a failed job's run with its error; its traceback is in the description."""
        failure = read_failure(self.store.folder(job).place)
        why = failure.error if failure else "no error record"
        self.client.set_tag(run_id, "error", why[:500])
        self.client.set_tag(run_id, NOTE, failure_note(why, failure.traceback if failure else ""))

    def _start(self, job: Job, records: list[Record]) -> str:
        """Find or create a job's run.

        If the run has records that the job no longer has, a new run replaces it.
        """
        from mlflow.entities import Param

        tags = tags_of(job, self.experiment) | {PARENT: self.parent}
        key, name = f"{self.key}/{job.id}", run_name(job)
        began = milliseconds(records[0], "started") if records else None
        run_id = self.mlflow.run(key, name, tags, began)
        known = {(milliseconds(record), record["position"]) for record in records}
        history = self.client.get_metric_history(run_id, "seconds")
        if not {(point.timestamp, point.step) for point in history} <= known:
            self.mlflow.discard(run_id)
            run_id = self.mlflow.run(key, name, tags, began)
        params = [Param(name, value) for name, value in parameters_of(job).items()]
        for start in range(0, len(params), PARAMS):
            self.client.log_batch(run_id, params=params[start : start + PARAMS])
        self.client.log_inputs(run_id, datasets=_inputs(job))
        return run_id

    def _log(self, run_id: str, metrics: list[Any]) -> None:
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + BATCH])

    def _log_machine(self, job: Job, run_id: str, folder: JobFolder) -> None:
        """Upload what is new of what was measured of the job's machine."""
        size, known = self.measured.get(job.id, (0, 0))
        if (now := folder.samples_size()) != size:
            samples = folder.samples()
            self._log(run_id, of_samples(samples, known))
            self.measured[job.id] = (now, len(samples))

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
        elif refused := self.artifacts.refused:
            more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
            print(
                f"MLflow at {self.uri} refused {len(refused)} files ({', '.join(refused[:3])}"
                f"{more}); it has all runs and metrics, and the same command tries the files again",
                file=sys.stderr,
            )
        return outcome == [True] and not self.artifacts.refused

    def _finish(self, board: Board) -> bool:
        self.board, self.states = None, board.states  # read every job's folder once more
        for last in (False, True):
            try:
                return self._finish_once(board)
            except Exception as error:  # a run that was deleted meanwhile, say
                if last:
                    self._complain(error)
                self._start_over()
        return False

    def _finish_once(self, board: Board) -> bool:
        if self.artifacts.refused:
            self.files = {job.id: job for job in self.jobs if job.id in self.closed}
            self.artifacts.forget()
        if not self.sync():
            return False
        for job in self.jobs:
            if job.id in self.runs and job.id not in self.closed:
                end = end_of(self.store.records(job))
                self.client.set_terminated(self.runs[job.id], "KILLED", end)
        self._tag_selected()
        self._conclude(board)
        for job in self.jobs:
            self._model(job)
        return True

    def _conclude(self, board: Board) -> None:
        """Log the parent run's figures, report, tables and description, and close it."""
        send = self.artifacts
        last = [end_of(self.store.records(job)) for job in self.jobs]
        end = max((when for when in last if when is not None), default=None)
        for name, value in figures(Results(self.experiment, self.study, self.store)).items():
            self.client.log_metric(self.parent, name, value, timestamp=end)  # once, if sent again
        said = description(self.study, self.store, self.experiment_id)
        self.client.set_tag(self.parent, NOTE, said)
        report = self.store.out / "report"
        tables: dict[str, str] = {}
        if (report / "report.md").is_file():
            tables = report_tables((report / "report.md").read_text(encoding="utf-8"))
            listed = [{"path": file, "type": "table"} for file in tables]
            self.client.set_tag(self.parent, TABLES, json.dumps(listed))
        status = "KILLED" if board.open() else "FINISHED" if board.all_done() else "FAILED"
        self.client.set_terminated(self.parent, status, end)
        send.file(self.client, self.parent, "study", self.store.out / "study.json")
        for file, text in tables.items():
            send.text(self.client, self.parent, "study", text, file)
        if report.is_dir():
            send.folder(self.client, self.parent, "study", report, "report")

    def _model(self, job: Job) -> None:
        """Log and register a finished final's network; no error here stops the rest."""
        if not job.of.model or job.id not in self.closed or not self.store.done(job):
            return
        from orchestrator.tracking.registry import log_final

        name, folder = f"{self.experiment.name}-{job.name}", self.store.folder(job)
        try:
            log_final(self.client, self.runs[job.id], folder, name, self.named)
        except FileNotFoundError as error:
            print(f"{job.label}: no model can be made of it ({error})", file=sys.stderr)
        except Exception as error:
            self.artifacts.refuse(f"{job.label}: its model", error)

    def _tag_selected(self) -> None:
        """Tag the runs of the searches that were selected, and only those."""
        winners = set()
        for path in (self.store.out / "selections").glob("*.json"):
            winner = json.loads(path.read_text()).get("winner", {})
            if run_id := self.runs.get(winner.get("search") or ""):
                winners.add(run_id)
        children = f"tags.`{PARENT}` = '{self.parent}' AND tags.selected = 'true'"
        found = self.client.search_runs([self.experiment_id], children)
        tagged = {str(run.info.run_id) for run in found}
        for run_id in winners - tagged:
            self.client.set_tag(run_id, "selected", "true")
        for run_id in tagged - winners:
            self.client.delete_tag(run_id, "selected")


def _inputs(job: Job) -> list[Any]:
    """A job's data as MLflow lists it; logging equal data again changes nothing."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(Dataset(name, digest, "local", "{}"), [InputTag("mlflow.data.context", split)])
        for split, (name, digest) in data_of(job).items()
    ]
