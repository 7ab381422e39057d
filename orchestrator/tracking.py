"""MLflow: a parent run a study, a child run a job. The only module that imports it.

The driver is the one writer. It ships the records that jobs leave on disk, with the times that
are in them: MLflow keeps one point for equal (key, value, step, time), so that sending twice is
sending once. A server that is down is nobody's failure: what is not sent now is sent later.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from gdas.errors import InputError
from orchestrator.experiment import Experiment
from orchestrator.scheduler import Board
from orchestrator.store import Record, Store
from orchestrator.study import TITLES, Job, Study, flat

KEY = "gdas.key"
PARENT = "mlflow.parentRunId"
BATCH = 900  # metrics a call; MLflow takes 1,000
PARAMS = 90  # parameters a call; MLflow takes 100


class Tracker:
    """Keeps MLflow in step with the output folder.

    Args:
        study, store: what is tracked.
        experiment: names the server and the MLflow experiment.

    Raises:
        InputError: no tracking server answers.
    """

    def __init__(self, study: Study, store: Store, experiment: Experiment) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        import logging

        from mlflow import MlflowClient

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self.store = store
        self.jobs = [job for job in study if job.kind != "select"]
        self.uri = (
            experiment.mlflow.tracking_uri or f"sqlite:///{store.tracking_folder / 'mlflow.db'}"
        )
        self.key = str(store.study()["key"])
        self.runs: dict[str, str] = {}  # job id -> run id
        self.sent: dict[str, int] = {}  # job id -> records sent
        self.closed: set[str] = set()
        self.complained = False
        try:
            self.client = MlflowClient(tracking_uri=self.uri)
            self.experiment_id = self._experiment(experiment.mlflow.experiment)
            self.parent = self._run(
                self.key, f"{experiment.name} {self.key[:6]}", {"stage": "study"}
            )
        except Exception as error:  # MLflow raises many kinds
            text = " ".join(str(error).split())[:200]
            raise InputError(
                f"mlflow.tracking_uri={self.uri}: no MLflow answers there ({text}); start it, or "
                "leave the setting out to track in the output folder"
            ) from None

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        local = self.uri.startswith("sqlite:")
        location = (self.store.tracking_folder / "mlruns").as_uri() if local else None
        return str(self.client.create_experiment(name, artifact_location=location))

    def _run(self, key: str, name: str, tags: dict[str, str]) -> str:
        """The run of this key, made where there is none: no doubled run after a resume."""
        found = self.client.search_runs([self.experiment_id], f"tags.`{KEY}` = '{key}'")
        if found:
            run_id = str(found[0].info.run_id)
            if found[0].info.status != "FINISHED":
                self.client.update_run(run_id, status="RUNNING")
            return run_id
        run = self.client.create_run(self.experiment_id, run_name=name, tags={KEY: key, **tags})
        return str(run.info.run_id)

    def sync(self) -> None:
        """Send what is new. Never raises: a dead server is tried again at the next call."""
        try:
            for job in self.jobs:
                if job.id not in self.closed:
                    self._sync_job(job)
            self.complained = False
        except Exception as error:
            if not self.complained:
                text = " ".join(str(error).split())[:200]
                print(f"MLflow at {self.uri} does not answer ({text}); trying on", file=sys.stderr)
            self.complained = True

    def _sync_job(self, job: Job) -> None:
        folder = self.store.folder(job)
        if not folder.path.is_dir():
            return
        records = self.store.records(job)
        result = folder.result()
        if not records and result is None:
            return
        if job.id not in self.runs:
            self.runs[job.id] = self._start(job)
        run_id = self.runs[job.id]
        done = self.sent.get(job.id, 0)
        if len(records) < done:  # resumed from an earlier checkpoint: the rest comes again
            done = len(records)
        self._log(run_id, records[done:])
        self.sent[job.id] = len(records)
        if result is not None:
            self.client.log_dict(run_id, result, "result.json")
            if "genotype" in result:  # not of a measurement
                self.client.log_dict(run_id, result["genotype"], "genotype.json")
                self._picture(run_id, result["genotype"])
            self.client.set_terminated(run_id, "FINISHED")
            self.closed.add(job.id)

    def _start(self, job: Job) -> str:
        from mlflow.entities import Param

        config = job.recipe["config"]
        tags = {
            "stage": TITLES[job.kind],
            "dataset": str(config["data"]["name"]),
            "job": job.id,
            PARENT: self.parent,
        }
        seed = job.recipe.get("search", config)["seed"]
        tags["seed"] = str(seed)
        run_id = self._run(f"{self.key}/{job.id}", job.label.replace("-", " ", 1), tags)
        params = [Param(name, str(value)) for name, value in flat(config).items()]
        for start in range(0, len(params), PARAMS):
            self.client.log_batch(run_id, params=params[start : start + PARAMS])
        return run_id

    def _log(self, run_id: str, records: list[Record]) -> None:
        from mlflow.entities import Metric

        metrics = []
        for record in records:
            values = record["metrics"] | {"seconds": record["seconds"]}
            when = int(record["time"] * 1000)
            metrics += [Metric(k, v, when, record["position"]) for k, v in values.items()]
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + BATCH])

    def _picture(self, run_id: str, genotype: dict[str, Any]) -> None:
        import tempfile

        from orchestrator.report.figures import draw

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cell.png"
            draw(genotype, path)
            self.client.log_artifact(run_id, str(path), "figures")

    def finish(self, board: Board) -> None:
        """Send the rest, close the runs, and log the report to the parent."""
        self.sync()
        try:
            for job in self.jobs:
                if job.id in self.runs and job.id not in self.closed:
                    failed = board.states[job.id] == "failed"
                    self.client.set_terminated(self.runs[job.id], "FAILED" if failed else "KILLED")
                self._tag_selected(job)
            self.client.log_artifacts(self.parent, str(self.store.out / "report"), "report")
            self.client.log_artifact(self.parent, str(self.store.out / "study.json"))
            status = "KILLED" if board.open() else "FINISHED" if board.all_done() else "FAILED"
            self.client.set_terminated(self.parent, status)
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            print(
                f"MLflow at {self.uri}: not everything was sent ({text}); the same command sends "
                "the rest",
                file=sys.stderr,
            )

    def _tag_selected(self, job: Job) -> None:
        if job.kind != "search" or job.id not in self.runs:
            return
        for path in (self.store.out / "selections").glob("*.json"):
            winner = json.loads(path.read_text()).get("winner", {})
            if winner.get("search") == job.id:
                self.client.set_tag(self.runs[job.id], "selected", "true")
