"""The settings of an experiment: its searches, finals and measurements."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import field
from typing import Literal

from gdas.bench201.genotype import Accuracy, own_accuracy
from gdas.cnn.config import SearchConfig
from gdas.cnn.genotype import PUBLISHED, check_names
from gdas.errors import InputError, one_line, suggestion
from gdas.presets import Preset
from gdas.rnn.genotype import PUBLISHED_RECURRENT
from gdas.settings import NotNegative, OneOrMore, Positive, TwoOrMore, ZeroOrMore, settings
from orchestrator.experiment.credentials import refuse_credentials
from orchestrator.experiment.decode import AnySearch, AnyTrain
from orchestrator.experiment.spaces import DERIVATION, SPACES, SelectBy

SMALLEST_SHARE = 0.0001
"""Ray counts resources in steps of this."""
MOST_NODES = 100
"""The most nodes or steps of a random cell, whose network grows with their square."""


@settings
class TrialResources:
    """The resources of one search or proxy training; recorded, but not part of its id."""

    cpus: Positive = 1.0
    gpus: NotNegative = 0.0  # may be a fraction, if several searches share a GPU
    device: str = "cpu"
    threads: OneOrMore | None = None  # null: as many as cpus
    machines: str | None = None  # a resource that its machine has in Ray, such as on_demand

    def __post_init__(self) -> None:
        _check_machines(self.machines)
        threads = _check_resources(self.cpus, self.gpus, self.device, self.threads)
        object.__setattr__(self, "threads", threads)


@settings
class TrainResources:
    """The resources of one final training; recorded, but not part of its id."""

    workers: OneOrMore = 1
    cpus_per_worker: Positive = 1.0
    gpus_per_worker: NotNegative = 0.0
    device: str = "cpu"
    threads: OneOrMore | None = None  # per worker; null: as many as cpus_per_worker
    backend: Literal["gloo", "nccl"] = "gloo"
    machines: str | None = None  # a resource that its machines have in Ray, such as on_demand

    def __post_init__(self) -> None:
        _check_machines(self.machines)
        threads = _check_resources(
            self.cpus_per_worker, self.gpus_per_worker, self.device, self.threads, "_per_worker"
        )
        object.__setattr__(self, "threads", threads)
        if self.workers > 1 and 0 < self.gpus_per_worker < 1:
            raise InputError(
                f"gpus_per_worker={self.gpus_per_worker}: workers of one training cannot share a "
                "GPU; use 1, or workers=1"
            )


def _check_resources(
    cpus: float, gpus: float, device: str, threads: int | None, each: str = ""
) -> int:
    """Check the resources, and return the number of threads, by default the whole CPUs.

    More threads than CPUs only wait for each other; `python -m tests.bench threads` measures it.

    Raises:
        InputError: the device is unknown, or does not agree with the number of GPUs.
    """
    for name, share in (("cpus", cpus), ("gpus", gpus)):
        if 0 < share < SMALLEST_SHARE:
            raise InputError(
                f"{name}{each}={share:g}: must be {SMALLEST_SHARE:g} or more; Ray counts no less"
            )
    if gpus > 1 and gpus != int(gpus):
        raise InputError(
            f"gpus{each}={gpus:g}: must be a whole number, or below 1 to share a GPU; use "
            f"{int(gpus)} or {int(gpus) + 1}"
        )
    if device not in ("cpu", "cuda"):
        raise InputError(f"device={device}: must be cpu or cuda")
    if (gpus > 0) != (device == "cuda"):
        raise InputError(
            f"gpus={gpus:g} with device={device}: a GPU is asked for by both or neither; use "
            "device=cuda with gpus=1 (of finals gpus_per_worker=1), or device=cpu with 0"
        )
    return max(1, int(cpus)) if threads is None else threads


def _check_machines(name: str | None) -> None:
    """Refuse what cannot be the name of a resource that somebody gave to machines."""
    if name is not None and not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise InputError(
            f"machines={name}: must be the name of a resource of your own in Ray, in small letters "
            "with _, such as on_demand (ray start --resources='{\"on_demand\": 1}'), or null"
        )
    if name in ("memory", "object_store_memory"):
        raise InputError(f"machines={name}: every machine has that; name a resource of your own")


def _check_seeds(seeds: tuple[int, ...]) -> None:
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise InputError(
            f"seeds={list(seeds)}: must be one or more different whole numbers of 0 or more, such "
            "as [0, 1]"
        )


@settings
class LookupSpec:
    """How a search's cells are compared with the table of NAS-Bench-201 once the search has ended.

    Cells are drawn uniformly, different ones for every seed, and scored with the search's shared
    weights. All of them give the rank correlation with the table; the first `best_of` stand for a
    random search that uses the same shared weights.
    """

    column: Accuracy | None = None  # null: the searched data set's if there is one, or CIFAR-10's
    cells: TwoOrMore = 200  # a rank correlation needs two
    best_of: OneOrMore = 50
    images: TwoOrMore = 1000  # how many images of D_V these cells are scored on

    @property
    def accuracy(self) -> Accuracy:
        """The column, which SearchSpec has filled in."""
        assert self.column is not None, "a lookup belongs to a search"
        return self.column

    def __post_init__(self) -> None:
        if self.best_of > self.cells:
            raise InputError(f"best_of={self.best_of}: must be from 1 to cells={self.cells}")


@settings
class SearchSpec:
    """Searches that differ only in their seed, and how the best of them is selected.

    With `cells: random` nothing is searched: every seed stands for a cell drawn uniformly, which is
    scored and selected like a searched cell. `against` names the searches (or random cells) that
    the report compares these with.
    """

    seeds: tuple[int, ...]
    preset: Preset
    recipe: AnySearch
    cells: Literal["searched", "random"] = "searched"
    against: str | None = None
    # proxy: train each seed's cell briefly on D_T and score it on D_V (as DARTS does, which the
    # paper follows). shared_weights: score it on D_V with the search's own weights.
    select_by: SelectBy
    proxy: AnyTrain | None  # null: cells of this space are not trained
    resources: TrialResources
    proxy_resources: TrialResources
    lookup: LookupSpec | None = None
    # Each cell is trained so many times, with seeds from proxy.seed on; its score is their mean.
    proxy_trainings: OneOrMore = 1

    def __post_init__(self) -> None:
        _check_seeds(self.seeds)
        space = SPACES[self.recipe.task]
        if self.select_by not in space.select_by:
            ways = " or ".join(space.select_by)
            raise InputError(f"select_by={self.select_by}: {space.cells} are selected by {ways}")
        if self.lookup is not None and not space.in_a_table:
            raise InputError(
                "lookup: only cells of NAS-Bench-201 are in a table; leave it out, or set "
                "recipe.task=bench201"
            )
        if self.lookup is not None and self.lookup.column is None:
            column = own_accuracy(self.recipe.data.name)
            object.__setattr__(self, "lookup", dataclasses.replace(self.lookup, column=column))
        if self.cells == "random" and self.select_by != "proxy":
            raise InputError(
                f"select_by={self.select_by}: random cells have no shared weights; use proxy"
            )
        if self.proxy_trainings > 1 and self.select_by != "proxy":
            raise InputError(
                f"proxy_trainings={self.proxy_trainings}: cells that are selected by "
                f"{self.select_by} have no proxy trainings; leave it out, or set select_by=proxy"
            )


@settings
class CombinedCell:
    """The normal cell of one search's best seed and the reduction cell of another's (Table 5)."""

    normal: str  # a name under `searches`
    reduce: str  # a name under `searches`, or "fixed": the fixed reduction cell


@settings
class CellSource:
    """Where a final's cell comes from; exactly one of the first five keys is set."""

    searched: str | None = None  # a name under `searches`: the cell of its best seed
    combined: CombinedCell | None = None
    published: str | None = None  # a name in gdas.published_cells
    file: str | None = None  # a genotype file
    random: int | None = None  # a seed
    # The space that a random cell is drawn from; null: that of the paper's searches (4 nodes or 8
    # steps, distinct sources, no `none`).
    fixed_reduction: bool = False
    nodes: int | None = None  # convolutional cells only
    steps: int | None = None  # recurrent cells only
    distinct_sources: bool | None = None  # whether the two inputs of a node must differ
    exclude_none: bool | None = None
    operations: tuple[str, ...] | None = None  # convolutional cells only

    @property
    def tracks(self) -> dict[str, str]:
        """The searches that the cell comes from, by the key that names them."""
        if self.searched is not None:
            return {"searched": self.searched}
        if self.combined is None:
            return {}
        named = {"combined.normal": self.combined.normal, "combined.reduce": self.combined.reduce}
        return {key: name for key, name in named.items() if name != "fixed"}

    def __post_init__(self) -> None:
        given = [
            key
            for key in ("searched", "combined", "published", "file", "random")
            if getattr(self, key) is not None
        ]
        if len(given) != 1:
            raise InputError(
                f"cell: has {' and '.join(given) or 'none'} of searched, combined, published, file "
                "and random; must have exactly one, such as cell: {published: GDAS_V1}"
            )
        if self.combined is not None and self.combined.normal == "fixed":
            raise InputError(
                "cell.combined.normal=fixed: only the reduction cell can be fixed; name a search"
            )
        for key in ("nodes", "steps", "distinct_sources", "exclude_none", "operations"):
            value = getattr(self, key)
            if value is not None and self.random is None:
                raise InputError(f"cell.{key}={value}: is of random cells; give cell.random a seed")
            if type(value) is int and not 1 <= value <= MOST_NODES:
                raise InputError(f"cell.{key}={value}: must be from 1 to {MOST_NODES}")
        if self.operations is not None:
            check_names(self.operations)
        if self.random is not None and self.random < 0:
            raise InputError(f"cell.random={self.random}: must be 0 or more, it is a seed")
        published = [*PUBLISHED, *PUBLISHED_RECURRENT]
        if self.published is not None and self.published not in published:
            raise InputError(
                f"cell.published={self.published}: unknown{suggestion(self.published, published)}"
            )


@settings
class PaperRow:
    """The numbers of the paper that the report prints beside a final."""

    table: int
    method: str  # as the table prints it; table 5: "normal + reduction"
    columns: tuple[str, ...]


@settings
class FinalSpec:
    """One final training."""

    cell: CellSource
    preset: Preset
    recipe: AnyTrain
    resources: TrainResources
    row: PaperRow | None = None
    seeds: tuple[int, ...] = (0,)  # one training each
    without_data: Literal["refuse", "leave_out"] = "refuse"  # if the data set is missing

    def __post_init__(self) -> None:
        _check_seeds(self.seeds)


@settings
class MeasureSpec:
    """A measurement of one search iteration's time and memory, accelerated and not."""

    preset: Preset
    recipe: SearchConfig
    iterations: OneOrMore = 5  # of each, alternating; the median counts
    resources: TrialResources


@settings
class MlflowSpec:
    """Where runs are tracked."""

    tracking_uri: str | None = None  # null: SQLite in the output folder
    experiment: str = "gdas"
    unreachable: Literal["error", "warn"] = "error"  # at the start only; later, uploads are retried

    def __post_init__(self) -> None:
        refuse_credentials("tracking_uri", self.tracking_uri)


def _check_comparable(name: str, search: SearchSpec, other: str, against: SearchSpec) -> None:
    """Raise InputError unless the cells of two searches are from one space.

    Otherwise the report would ascribe to the search what is due to the space.
    """
    where = f"searches.{name}.against={other}"
    if against.recipe.task != search.recipe.task:
        kinds = [SPACES[spec.recipe.task].cells for spec in (search, against)]
        raise InputError(
            f"{where}: {kinds[1]} cannot stand against {kinds[0]}; name a search of those"
        )
    if search.proxy_trainings != against.proxy_trainings:
        raise InputError(
            f"{where}: its cells are trained {against.proxy_trainings} times each and not "
            f"{search.proxy_trainings}, so their means are not alike; set "
            f"searches.{other}.proxy_trainings={search.proxy_trainings}"
        )
    found = SPACES[search.recipe.task].what_can_be_found
    ours, theirs = found(search.recipe), found(against.recipe)
    drawn = "random" in (search.cells, against.cells)
    for key, value in ours.items():
        if value != theirs[key] and (drawn or key not in DERIVATION):
            fix = value if isinstance(value, str) else str(value).lower()
            raise InputError(
                f"{where}: its cells are of another space, recipe.{key}={theirs[key]} and not "
                f"{value}; set searches.{other}.recipe.{key}={fix}"
            )


@settings
class Experiment:
    """An experiment with every setting resolved."""

    name: str
    searches: dict[str, SearchSpec] = field(default_factory=dict)
    finals: dict[str, FinalSpec] = field(default_factory=dict)
    measures: dict[str, MeasureSpec] = field(default_factory=dict)
    note: str = ""  # printed at the top of the report: what this run is and is not
    mlflow: MlflowSpec = field(default_factory=MlflowSpec)
    retries: ZeroOrMore = 2  # of a failed job, each from its newest checkpoint

    def __post_init__(self) -> None:
        for name in (*self.searches, *self.finals, *self.measures):
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,99}", name):
                raise InputError(
                    f"name {one_line(name, 60)!r}: must be lower-case letters, digits, '-' and "
                    "'_', 100 at most, such as gdas-frc (it names folders)"
                )
        for name, search in self.searches.items():
            other = search.against
            if other is not None and other not in self.searches:
                raise InputError(
                    f"searches.{name}.against={other}: no such search"
                    f"{suggestion(other, list(self.searches))}"
                )
            if other == name:
                raise InputError(
                    f"searches.{name}.against={other}: is itself; name another search, such as one "
                    "with cells: random"
                )
            if other is not None:
                _check_comparable(name, search, other, self.searches[other])
        for name, final in self.finals.items():
            for key, searched in final.cell.tracks.items():
                if searched not in self.searches:
                    raise InputError(
                        f"finals.{name}.cell.{key}={searched}: no such search"
                        f"{suggestion(searched, list(self.searches))}"
                    )
