"""A study's output folder as its jobs leave it, written without running anything."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any, NotRequired

from orchestrator.experiment.build import build_study
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.load import load_experiment
from orchestrator.experiment.study import Job, Study
from orchestrator.store.results import Record, Trained
from orchestrator.store.store import Store
from tests.orchestrator.test_study import identity
from tests.orchestrator.written import CELL, plain_record

TINY = str(Path(__file__).parents[1] / "e2e" / "tiny.yaml")


class Finished(Trained):
    """A result with a part that only some kinds of jobs leave."""

    parameters: NotRequired[int]


def fake_study(
    out: Path | str, *overrides: str, of: str = TINY, cells: dict[str, Any] | None = None
) -> tuple[Experiment, Study, Store]:
    """The tiny study, or that of another experiment: study.json and the job folders' settings,
    nothing done."""
    experiment = load_experiment(of, list(overrides))
    study, store = build_study(experiment, identity, cells or {}), Store(out)
    settings = json.loads(json.dumps(dataclasses.asdict(experiment)))
    command = f"python -m orchestrator.reproduce_paper {of} --out {out}"
    store.write_study(study, settings, {"torch": "2.0"}, command)
    for job in study:
        if job.kind != "select":
            store.prepare(job, {"data": f"{out}/data"})
    return experiment, study, store


def record(position: int, of: int = 3, seconds: float = 10.0, **metrics: float) -> Record:
    """One epoch's record."""
    values = {"train/loss": 1.0, "valid/loss": 2.0, "valid/top1": 30.0 + position}
    # Half of all probability on one operation of edge 0, which changes in the last epoch.
    logits = [[0.0] * 8 for _ in range(14)]
    logits[0][5 if position == of else 4] = 2.0
    return plain_record(
        position,
        of,
        metrics=values | {name.replace("_", "/"): value for name, value in metrics.items()},
        details={"genotype": CELL, "logits": {"normal": logits}},
        started=time.time() - seconds,
        time=time.time(),
        seconds=seconds,
    )


def finish(
    store: Store,
    job: Job,
    *,
    metrics: dict[str, float] | None = None,
    digest: str | None = None,
    parameters: int | None = None,
) -> None:
    """All three epochs and a result."""
    for position in (1, 2, 3):
        store.folder(job).append_record(record(position))
    result: Finished = {
        "digest": f"digest of {job.id}" if digest is None else digest,
        "metrics": {"valid/top1": 33.0} if metrics is None else metrics,
        "genotype": CELL,
        "seconds": 30.0,
    }
    if parameters is not None:
        result["parameters"] = parameters
    store.folder(job).write_result(result)


def select(store: Store, study: Study) -> None:
    """The selection's record."""
    job = next(job for job in study if job.kind == "select")
    winner = {"seed": 2, "score": 40.5, "loss": 1.0, "genotype": CELL, "search": job.needs[2]}
    selection = {
        "id": job.id,
        "track": job.name,
        "by": "shared_weights",
        "method": "m",
        "metric": "valid/top1",
        "best": "highest",
        "candidates": [winner],
        "winner": winner,
    }
    store.selection_path(job).write_text(json.dumps(selection))
