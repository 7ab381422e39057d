"""A study of NAS-Bench-201 in one process, without Ray, and a table that it looks cells up in."""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from gdas.bench201.genotype import (
    ACCURACIES,
    CLASSES,
    Accuracy,
    all_bench201_cells,
)
from orchestrator.experiment.build import build_study
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.study import Study
from orchestrator.run.checks import check_experiment, identity, prepare_data
from orchestrator.run.scheduler import Scheduler
from orchestrator.store.results import (
    LookupResult,
    SearchResult,
)
from orchestrator.store.store import Store
from orchestrator.work.lookup import run_lookup
from orchestrator.work.search import run_search
from tests.narrow import present

YAML = Path(__file__).parent.parent / "e2e" / "bench201.yaml"
COLUMN: Accuracy = "cifar10_test_200"


def write_table(folder: Path, *, without: int = 0) -> Path:
    """A table in which 3 x 3 convolutions make a cell good, and its number decides among equals."""
    path = folder / "nasbench201" / "nasbench201.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["index", "architecture", *ACCURACIES])
        for cell in list(all_bench201_cells())[without:]:
            convolutions = cell.operations.count("nor_conv_3x3")
            accuracy = 10 + 13 * convolutions + round(cell.number / 15_625, 2)
            values = [accuracy] * len(ACCURACIES)
            if cell.number == 0:  # it can only guess
                values = [100 / CLASSES[column] for column in ACCURACIES]
            rows.writerow([cell.number, str(cell), *values])
    return path


def study_of(experiment: Experiment, data: Path) -> Study:
    check_experiment(experiment, {}, data)
    return build_study(experiment, partial(identity, data), {})


@dataclasses.dataclass
class Ran:
    """A study that has run, without Ray."""

    experiment: Experiment
    study: Study
    store: Store
    opened: dict[str, list[str]]

    def searches(self, track: str) -> list[SearchResult]:
        """The results of a search, one a seed."""
        folders = [self.store.folder(job) for job in self.study.searches(track)]
        return [present(folder.result(SearchResult)) for folder in folders]

    def lookups(self, track: str) -> list[LookupResult]:
        """Those of its lookups."""
        folders = [self.store.folder(job) for job in self.study.lookups_of(track)]
        return [present(folder.result(LookupResult)) for folder in folders]


OPENED: list[str] | None = None


def _opened(event: str, arguments: tuple[Any, ...]) -> None:
    if OPENED is not None and event == "open":
        OPENED.append(str(arguments[0]))


sys.addaudithook(_opened)  # it cannot be removed, so it looks at OPENED


@contextmanager
def opened_files() -> Iterator[list[str]]:
    global OPENED
    found: list[str] = []
    OPENED = found
    try:
        yield found
    finally:
        OPENED = None


def run_without_ray(experiment: Experiment, out: Path, data: Path) -> Ran:
    """Every job of the study in this process, one after the other."""
    study, store = study_of(experiment, data), Store(out)
    prepare_data(study, store, data)
    scheduler = Scheduler(study, store, {"CPU": 1.0}, lambda line: None)
    opened: dict[str, list[str]] = {"search": [], "lookup": []}
    while (job := scheduler.next_job()) is not None:
        folder = store.prepare(job, {"data": str(data)})
        with opened_files() as found:
            {"search": run_search, "lookup": run_lookup}[job.kind](str(folder.path))
        opened[job.kind] += found
        scheduler.finished(job)
    assert scheduler.board.all_done(), scheduler.board.notes
    return Ran(experiment, study, store, opened)


TIMES = {"seconds", "best_of_seconds", "search_seconds"}


def without_times(result: Mapping[str, object]) -> dict[str, object]:
    """What a lookup's result must be however often it was begun."""
    return {key: value for key, value in result.items() if key not in TIMES}
