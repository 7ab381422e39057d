"""What an output folder holds, file by file: the contract between all parts, and nothing else.

    OUT/study.json                    StudyFile
    OUT/selections/<track>.json       Selection
    OUT/jobs/<kind>-<name>-<id>/
        settings.json                 JobSettings
        provenance.json               Provenance, of a final training
        records.jsonl                 a Record a line
        result.json                   SearchResult, ProxyResult, LookupResult, FinalResult, ...
        distribution.json             Distribution, of a lookup
        failure.json                  Failure

Jobs write these and everything else reads them. They are plain dictionaries on disk and in memory:
the types are what mypy checks their readers by. What comes from a file is checked where it is read.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

GenotypeJson = dict[str, Any]
"""A cell as `to_json` of its genotype writes it; `gdas.genotype.any_from_json` checks and reads
it."""

Cause = Literal["own", "input", "process", "node"]
"""An exception of the job's own; bad input; a process that died without a word; a machine that was
lost."""


class Environment(TypedDict):
    """What a job needs to know beside its recipe; not part of its identity."""

    data: str  # the folder or the address of the data sets
    selections: NotRequired[str]  # where the study's selection records are


class JobSettings(TypedDict):
    """What a job is. `recipe` and `resources` are those of `orchestrator.experiment.study.Job`."""

    kind: str
    name: str
    id: str
    needs: list[str]  # names of job folders; of a selection its id
    recipe: dict[str, Any]
    resources: dict[str, Any]
    environment: Environment


class Details(TypedDict, total=False):
    """What a search's record says of its cell beside the metrics."""

    genotype: GenotypeJson  # what its logits derive
    logits: dict[str, list[list[float]]]  # by cell type: a row an edge, a number an operation
    margins: dict[str, list[float]]
    probabilities: dict[str, list[float]]
    best_epoch: int  # of a training on text
    restarts: int


class Record(TypedDict):
    """One segment: an epoch, or a part of one. Times are seconds, of dates since 1970."""

    position: int  # counted from 1
    of: int
    metrics: dict[str, float]
    details: Details
    started: float
    time: float  # when it ended
    seconds: float
    host: str
    pid: int
    gpu: NotRequired[str]  # CUDA_VISIBLE_DEVICES, where it is set


class Result(TypedDict):
    """What every finished job says."""

    metrics: dict[str, float]  # of its last record
    seconds: float  # in segments, over all starts


class Trained(Result):
    """Of a job with a training loop."""

    digest: str  # of the final state
    genotype: GenotypeJson


class SearchResult(Trained):
    """Of a search. Entropies and margins by cell type."""

    weights: int  # parameters of the supernet
    entropy: dict[str, float]
    margins: dict[str, list[float]]
    epoch: NotRequired[int]  # text: the one whose cell this is
    shared_weights: NotRequired[dict[str, float]]  # images: the cell's score on D_V
    drawn_against_uniform: NotRequired[list[tuple[float, float]]]  # top-1, in pairs


class ProxyResult(Trained):
    """Of a short training that scores a cell; its metrics are the score."""

    weights: int
    parameters: int


class FinalResult(Trained):
    """Of a final training."""

    provenance: Provenance
    workers: int
    best: dict[str, float]  # the best epoch and its metrics
    parameters: int
    multiply_adds: NotRequired[int]  # images
    train_images: NotRequired[int]


class MeasureResult(Result):
    """Of a measurement: the costs of an iteration, "accelerated" and "all_operations"."""

    iterations: dict[str, dict[str, float]]
    device: str


class Standing(TypedDict):
    """A cell's place in the table of NAS-Bench-201, as `gdas.bench201.table.Standing`."""

    cell: str
    accuracy: float
    rank: int
    percentile: float
    regret: float


class EpochStanding(Standing):
    """Of the cell that the logits derive after an epoch."""

    epoch: int


class BestStanding(Standing):
    """Of the best of `k` cells by its score with shared weights."""

    k: int
    score: float


class LookupResult(Result):
    """Of a lookup of a search's cells."""

    column: str
    seed: int
    derived: Standing
    uniform: Standing
    best_of: BestStanding
    correlation: float | None  # None where it is not defined
    scored: list[tuple[str, float, float]]  # cell, score with shared weights, true accuracy
    epochs: list[EpochStanding]
    search_seconds: float
    best_of_seconds: float


class Distribution(TypedDict):
    """Every accuracy of a column of the table, ascending, and how many cells have it."""

    accuracies: list[float]
    cells: list[int]


class Provenance(TypedDict):
    """Which cell a final trains and where it comes from; what opens the test split for it."""

    source: str  # searched, combined, published, file or random
    genotype: GenotypeJson
    selection: NotRequired[str]  # searched: the selection's id, and what it says
    track: NotRequired[str]
    by: NotRequired[str]
    seed: NotRequired[int]
    selections: NotRequired[list[str]]  # combined: of the normal and the reduction cell
    seeds: NotRequired[list[int]]


class Candidate(TypedDict):
    """One seed's cell in a selection."""

    seed: int
    search: str | None  # the id of its search; None for a random cell
    score: float
    loss: float
    genotype: GenotypeJson


class Selection(TypedDict):
    """All seeds of a search, their scores, the winner and why."""

    id: str  # of the selection's job: a record of other settings does not count
    track: str
    by: str
    method: str
    metric: str
    best: str  # highest or lowest
    candidates: list[Candidate]
    winner: Candidate
    time: float


class FailureFile(TypedDict):
    """A job's last error; the driver adds how often it failed and whether it tries again."""

    error: str
    traceback: str
    time: float
    cause: Cause
    times: NotRequired[int]
    again: NotRequired[bool]


class JobEntry(TypedDict):
    """A job in study.json."""

    label: str
    id: str
    needs: list[str]


class StudyFile(TypedDict, total=False):
    """What the folder was last started with; nothing where it never was."""

    format: str
    key: str  # the study's own, which MLflow's runs are found by
    settings: dict[str, Any]  # an Experiment
    versions: dict[str, str]
    command: str
    jobs: list[JobEntry]
