"""What an output folder holds, file by file: the contract between the parts of the orchestrator.

    OUT/study.json                    StudyFile
    OUT/selections/<track>.json       Selection
    OUT/jobs/<kind>-<name>-<id>/
        settings.json                 JobSettings
        provenance.json               Provenance (final trainings only)
        records.jsonl                 one Record a line
        result.json                   a Result of the kind: SearchResult, LookupResult, ...
        distribution.json             Distribution (lookups only)
        failure.json                  Failure
        damage.json                   a list of lines, one for every damaged checkpoint
        log.txt                       what the job printed, its last MiB
        system.jsonl                  a Sample of its machine a line

Jobs write these files and everything else reads them. They are plain dictionaries on disk and in
memory; the types are for mypy. The code that reads a file checks what it finds.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

GenotypeJson = dict[str, Any]
"""A cell as its genotype's `to_json` gives it; `gdas.genotype.any_from_json` reads it."""

Cause = Literal["own", "input", "diverged", "process", "node"]
"""Where an error came from.

own: the job raised an exception. input: the job was given bad settings or data. diverged: a loss
or a logit was not finite. process: its process died without an exception. node: its machine was
lost.
"""


class Environment(TypedDict):
    """What a job needs to know beside its recipe; it is not part of the job's id."""

    data: str  # the folder or the address of the data sets
    selections: NotRequired[str]  # where the study's selection records are


class JobSettings(TypedDict):
    """A job as it is handed out; `recipe` and `resources` are explained at `study.Job`."""

    kind: str
    name: str
    id: str
    needs: list[str]  # names of job folders; for a selection, its id
    recipe: dict[str, Any]
    resources: dict[str, Any]
    environment: Environment


class Details(TypedDict, total=False):
    """What a segment's record holds beside its metrics."""

    genotype: GenotypeJson  # derived from the logits after this segment
    logits: dict[str, list[list[float]]]  # by cell type: one row per edge, one number per operation
    margins: dict[str, list[float]]
    probabilities: dict[str, list[float]]
    best_epoch: int  # training on text only
    restarts: int


class Record(TypedDict):
    """One segment: an epoch, or a part of one. Times are in seconds, dates since 1970."""

    position: int  # counted from 1
    of: int  # how many segments there are in all
    metrics: dict[str, float]
    details: Details
    started: float
    time: float  # when it ended
    seconds: float
    host: str
    pid: int
    gpu: NotRequired[str]  # CUDA_VISIBLE_DEVICES, if set
    kernels: NotRequired[str]  # fused or plain: which ones it ran with, if its job has the setting


class Sample(TypedDict):
    """What a job's machine did since the sample before, under MLflow's names of system metrics."""

    time: float
    metrics: dict[str, float]


class Result(TypedDict):
    """The result fields that every kind of job has."""

    metrics: dict[str, float]  # those of its last record
    seconds: float  # the segments' durations, summed over all starts of the job


class Trained(Result):
    """The result fields of every job with a training loop."""

    digest: str  # a hash of the final state
    genotype: GenotypeJson


class SearchResult(Trained):
    """The result of a search. Entropies and margins are by cell type."""

    weights: int  # parameters of the supernet
    entropy: dict[str, float]
    margins: dict[str, list[float]]
    epoch: NotRequired[int]  # text only: the epoch that the cell was derived after
    shared_weights: NotRequired[dict[str, float]]  # images only: the cell's score on D_V
    drawn_against_uniform: NotRequired[list[tuple[float, float]]]  # top-1 of pairs of cells


class ProxyResult(Trained):
    """The result of a short training that scores a cell; its metrics are the score."""

    weights: int
    parameters: int


class FinalResult(Trained):
    """The result of a final training."""

    provenance: Provenance
    workers: int
    best: dict[str, float]  # the best epoch's number and metrics
    parameters: int
    multiply_adds: NotRequired[int]  # images only
    train_images: NotRequired[int]


class MeasureResult(Result):
    """The result of a measurement: costs per iteration, by "accelerated" and "all_operations"."""

    iterations: dict[str, dict[str, float]]
    device: str


Figure = Literal["accuracy", "rank", "percentile", "regret", "function_percentile"]
"""A number of a standing."""


class Standing(TypedDict):
    """A cell's place in the table of NAS-Bench-201 (`gdas.bench201.table.Standing`)."""

    cell: str
    accuracy: float
    rank: int
    percentile: float  # among all cells
    regret: float
    function_percentile: float  # among all functions, each counted once


class EpochStanding(Standing):
    """The standing of the cell that the logits derive after an epoch."""

    epoch: int


class BestStanding(Standing):
    """The standing of the best of `k` cells by their score with shared weights."""

    k: int
    score: float


class LookupResult(Result):
    """The result of looking up a search's cells in the table."""

    column: str
    seed: int
    derived: Standing
    uniform: Standing
    best_of: BestStanding
    correlation: float | None  # None if it is not defined
    scored: list[tuple[str, float, float]]  # cell, score with shared weights, true accuracy
    epochs: list[EpochStanding]
    search_seconds: float
    best_of_seconds: float


class Distribution(TypedDict):
    """Every accuracy in a column of the table, ascending, and how many cells have it."""

    accuracies: list[float]
    cells: list[int]
    function_percentile: float  # mean of a uniformly drawn cell's


class Provenance(TypedDict):
    """Which cell a final training trains, and its origin; without it the test split stays shut."""

    source: str  # searched, combined, published, file or random
    genotype: GenotypeJson
    selection: NotRequired[str]  # searched: the selection's id; the next three are from its record
    track: NotRequired[str]
    by: NotRequired[str]
    seed: NotRequired[int]
    selections: NotRequired[list[str]]  # combined: those of the normal and of the reduction cell
    seeds: NotRequired[list[int]]


class Candidate(TypedDict):
    """One seed's cell in a selection."""

    seed: int
    search: str | None  # the search's id; None for a random cell
    score: float  # of several trainings their mean; so is the loss
    loss: float
    genotype: GenotypeJson
    trainings: NotRequired[list[float]]  # the score of each, if there are several


class Selection(TypedDict):
    """All seeds of a search, their scores, the winner and the rule that chose it."""

    id: str  # the selection job's id; if the settings have changed since, the record does not count
    track: str
    by: str
    method: str
    metric: str
    best: str  # highest or lowest
    candidates: list[Candidate]
    winner: Candidate
    time: float


class FailureFile(TypedDict):
    """An error record; the driver adds how often the job failed and whether it is retried."""

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


class HomeJson(TypedDict):
    """Where a study's output folder was when it was last driven."""

    path: str  # absolute, or an address without its options
    inode: NotRequired[int]  # local folders only, as is the next
    host: NotRequired[str]


class StudyFile(TypedDict, total=False):
    """What the folder was last started with; empty if no study was started in it."""

    format: str
    key: str  # a random id of the study, by which its MLflow runs are found
    home: HomeJson  # tells a moved folder from a copy (orchestrator.store.home)
    settings: dict[str, Any]  # an `Experiment`
    versions: dict[str, str]
    command: str
    machine: str  # the driver's, in words
    commit: str  # of the code that drove it; "+ changes" if files differed from it
    algorithm: int  # gdas.ALGORITHM_VERSION
    before: list[JobEntry]  # done by earlier commands with these settings, not part of this one
    jobs: list[JobEntry]
