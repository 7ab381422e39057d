"""An experiment file and `key=value` overrides, checked and resolved to typed settings.

An experiment is a YAML file: `searches` and `finals` by name, and under `search`, `proxy` and
`final` what all of them share. Every recipe starts from a preset of gdas.config and the known
constants of its data set; the file and then the command line change it.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError

import gdas.genotype
from gdas.bench201.genotype import Accuracy
from gdas.config import (
    IMAGE_DATA,
    PHOTO_DATA,
    SEARCH_PRESETS,
    STRICT,
    TEXT_DATA,
    TEXT_SEARCH_PRESETS,
    AnyImageData,
    AnySearchConfig,
    Bench201SearchConfig,
    ImageData,
    PhotoData,
    Preset,
    SearchConfig,
    TextSearchConfig,
    TextTrainConfig,
    TrainConfig,
    image_search_preset,
    image_train_preset,
    text_train_preset,
)
from gdas.errors import InputError, one_line
from orchestrator.spaces import SPACES, SelectBy

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"

Raw = dict[str, Any]
AnySearch = Annotated[
    SearchConfig | TextSearchConfig | Bench201SearchConfig, Field(discriminator="task")
]
AnyTrain = Annotated[TrainConfig | TextTrainConfig, Field(discriminator="task")]
T = typing.TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TrialResources:
    """What one search or proxy training holds while it runs; recorded, not part of its identity."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    cpus: float = 1.0
    gpus: float = 0.0  # may be a fraction: several searches share one
    device: str = "cpu"
    threads: int | None = None  # as many as cpus

    def __post_init__(self) -> None:
        threads = _check_resources(self.cpus, self.gpus, self.device, self.threads)
        object.__setattr__(self, "threads", threads)


@dataclass(frozen=True, kw_only=True)
class TrainResources:
    """What one final training holds while it runs; recorded, not part of its identity."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    workers: int = 1
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    device: str = "cpu"
    threads: int | None = None  # of each worker: as many as cpus_per_worker
    backend: Literal["gloo", "nccl"] = "gloo"

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InputError(f"workers={self.workers}: must be 1 or more")
        threads = _check_resources(
            self.cpus_per_worker, self.gpus_per_worker, self.device, self.threads
        )
        object.__setattr__(self, "threads", threads)
        if self.workers > 1 and 0 < self.gpus_per_worker < 1:
            raise InputError(
                f"gpus_per_worker={self.gpus_per_worker}: workers of one training cannot share a "
                "GPU; use 1, or workers=1"
            )


def _check_resources(cpus: float, gpus: float, device: str, threads: int | None) -> int:
    """Raise InputError unless these can be; returns the threads, which default to the whole CPUs.

    More threads than CPUs only wait for each other; `python -m tests.bench threads` measures it.
    """
    if cpus <= 0:
        raise InputError(f"cpus={cpus}: must be more than 0")
    if gpus < 0:
        raise InputError(f"gpus={gpus}: must be 0 or more")
    if threads is not None and threads < 1:
        raise InputError(f"threads={threads}: must be 1 or more")
    if device not in ("cpu", "cuda"):
        raise InputError(f"device={device}: must be cpu or cuda")
    if (gpus > 0) != (device == "cuda"):
        raise InputError(f"gpus={gpus} with device={device}: a GPU is asked for by both or neither")
    return max(1, int(cpus)) if threads is None else threads


@dataclass(frozen=True, kw_only=True)
class LookupSpec:
    """What a search's cells are held against once it has ended: the table of NAS-Bench-201.

    Cells drawn uniformly, other ones for every seed, are scored with the search's shared weights:
    all of them for the rank correlation with the table, the first `best_of` as a random search
    that shares the search's weights.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    column: Accuracy = "cifar10_test_200"
    cells: int = 200
    best_of: int = 50
    images: int = 1000  # of D_V, that these cells are scored on

    def __post_init__(self) -> None:
        if self.cells < 2:
            raise InputError(f"cells={self.cells}: a rank correlation needs 2 or more")
        if not 1 <= self.best_of <= self.cells:
            raise InputError(f"best_of={self.best_of}: must be from 1 to cells ({self.cells})")
        if self.images < 2:
            raise InputError(f"images={self.images}: must be 2 or more")


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """Searches that differ in their seed only, and how the best of them is picked.

    With `cells: random` nothing is searched: every seed stands for a cell drawn uniformly, which
    is scored and selected as searched cells are. `against` names the searches (or such draws) that
    the report compares these with.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    seeds: tuple[int, ...]
    preset: Preset
    recipe: AnySearch
    cells: Literal["searched", "random"] = "searched"
    against: str | None = None
    # proxy: train each seed's cell for a short while on D_T, score it on D_V (as DARTS, which the
    # paper follows). shared_weights: score it on D_V with the search's own weights.
    select_by: SelectBy
    proxy: AnyTrain | None  # None: cells of this space are not trained
    resources: TrialResources
    proxy_resources: TrialResources
    lookup: LookupSpec | None = None

    def __post_init__(self) -> None:
        if not self.seeds:
            raise InputError("seeds: at least one is needed")
        if len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"seeds={list(self.seeds)}: must differ")
        space = SPACES[self.recipe.task]
        if self.select_by not in space.select_by:
            ways = " or ".join(space.select_by)
            raise InputError(f"select_by={self.select_by}: {space.cells} are selected by {ways}")
        if self.lookup is not None and self.recipe.task != "bench201":
            raise InputError("lookup: only cells of NAS-Bench-201 (task: bench201) are in a table")
        if self.cells == "random" and self.select_by != "proxy":
            raise InputError(
                f"select_by={self.select_by}: random cells have no shared weights; use proxy"
            )


@dataclass(frozen=True, kw_only=True)
class CombinedCell:
    """The normal cell of one search's best seed and the reduction cell of another's (Table 5)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    normal: str  # a name under `searches`
    reduce: str  # a name under `searches`, or "fixed": the fixed reduction cell


@dataclass(frozen=True, kw_only=True)
class CellSource:
    """Where a final's cell comes from; exactly one of the five."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    searched: str | None = None  # a name under `searches`: its best seed
    combined: CombinedCell | None = None
    published: str | None = None  # a name of gdas.genotype.PUBLISHED
    file: str | None = None  # a genotype file
    random: int | None = None  # a seed
    fixed_reduction: bool = False  # of a random cell

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
                "cell: give exactly one of searched, combined, published, file, random; "
                f"got {', '.join(given) or 'none'}"
            )
        if self.combined is not None and self.combined.normal == "fixed":
            raise InputError("cell.combined.normal=fixed: only the reduction cell can be fixed")
        published = [*gdas.genotype.PUBLISHED, *gdas.genotype.PUBLISHED_RECURRENT]
        if self.published is not None and self.published not in published:
            raise InputError(
                f"cell.published={self.published}: unknown{_suggestion(self.published, published)}"
            )


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """The numbers of the paper that a final stands beside."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    table: int
    method: str  # as the table prints it; table 5: "normal + reduction"
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FinalSpec:
    """One final training."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    cell: CellSource
    preset: Preset
    recipe: AnyTrain
    resources: TrainResources
    row: PaperRow | None = None
    seeds: tuple[int, ...] = (0,)  # one training each
    without_data: Literal["refuse", "leave_out"] = "refuse"  # where the data set is not at hand

    def __post_init__(self) -> None:
        if not self.seeds:
            raise InputError("seeds: at least one is needed")
        if len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"seeds={list(self.seeds)}: must differ")


@dataclass(frozen=True, kw_only=True)
class MeasureSpec:
    """A measurement of one search iteration's time and memory, accelerated and not."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    preset: Preset
    recipe: SearchConfig
    iterations: int = 5  # of each, in turn; the median counts
    resources: TrialResources

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"iterations={self.iterations}: must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class MlflowSpec:
    """Where runs are tracked."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    tracking_uri: str | None = None  # None: sqlite under the output folder
    experiment: str = "gdas"
    unreachable: Literal["error", "warn"] = "error"  # at the start; later it is always waited for


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment, resolved."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str
    searches: dict[str, SearchSpec] = field(default_factory=dict)
    finals: dict[str, FinalSpec] = field(default_factory=dict)
    measures: dict[str, MeasureSpec] = field(default_factory=dict)
    note: str = ""  # printed at the top of the report: what this run is and is not
    mlflow: MlflowSpec = field(default_factory=MlflowSpec)
    retries: int = 2  # of a failed job, each from its newest checkpoint

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise InputError(f"retries={self.retries}: must be 0 or more")
        for name in (*self.searches, *self.finals, *self.measures):
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
                raise InputError(
                    f"name {name!r}: use lower-case letters, digits, '-' and '_' (it names folders)"
                )
        for name, search in self.searches.items():
            other = search.against
            if other is not None and other not in self.searches:
                raise InputError(
                    f"searches.{name}.against={other}: no such search"
                    f"{_suggestion(other, list(self.searches))}"
                )
            if other is not None and self.searches[other].recipe.task != search.recipe.task:
                raise InputError(f"searches.{name}.against={other}: has cells of the other kind")
        for name, final in self.finals.items():
            for key, searched in final.cell.tracks.items():
                if searched not in self.searches:
                    raise InputError(
                        f"finals.{name}.cell.{key}={searched}: no such search"
                        f"{_suggestion(searched, list(self.searches))}"
                    )


def experiment_of(words: Sequence[str]) -> Experiment:
    """The experiment that a command's words name: at most one name (default: smoke), and overrides.

    Raises:
        InputError: two names, or as `load_experiment`.
    """
    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise InputError(f"one experiment at a time, got {' and '.join(names)}")
    return load_experiment(names[0] if names else "smoke", [word for word in words if "=" in word])


def load_experiment(name: str, overrides: list[str]) -> Experiment:
    """Read an experiment and apply `key=value` overrides.

    Args:
        name: the name of a file in experiments/, or a path.
        overrides: such as "search.recipe.epochs=3"; values are YAML.

    Raises:
        InputError: anything unknown, of the wrong type or out of range; names the key.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else EXPERIMENTS / f"{name}.yaml"
    if not path.is_file():
        names = sorted(p.stem for p in EXPERIMENTS.glob("*.yaml"))
        raise InputError(
            f"experiment {name!r}: no file {path}{_suggestion(name, names)}; "
            f"known are {', '.join(names)}"
        )
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES} bytes, not an experiment")
        raw = _plain(path.read_text(encoding="utf-8"), str(path))
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: expected a mapping with searches and finals")
    raw.setdefault("name", path.stem)
    for override in overrides:
        _apply(raw, override)
    return resolve(raw, base=path.parent)


MAX_BYTES = 1 << 20
MAX_VALUES = 20_000


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 3e-4 is a number, as YAML 1.2 has it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _plain(text: str, where: str) -> Any:
    """Decode YAML that is nothing but mappings with text keys, lists, and plain values.

    Raises:
        InputError: anything else; or more than `MAX_VALUES` values, counted where they are
            repeated by reference, too.
    """
    try:
        value = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = one_line(error, 500)
        raise InputError(f"{where}: not a YAML file ({said})") from None
    waiting, seen = [value], 0
    while waiting:
        inner = waiting.pop()
        seen += 1
        if seen > MAX_VALUES:
            raise InputError(f"{where}: more than {MAX_VALUES} values, not an experiment")
        if isinstance(inner, dict):
            if odd := [key for key in inner if not isinstance(key, str)]:
                raise InputError(f"{where}: the key {odd[0]!r} is no text; put it in quotes")
            waiting += inner.values()
        elif isinstance(inner, list):
            waiting += inner
        elif not isinstance(inner, str | int | float | None):
            kind = type(inner).__name__
            raise InputError(f"{where}: {str(inner)[:40]!r} is read as a {kind}; put it in quotes")
    return value


def _apply(raw: Raw, override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise InputError(f"{override!r}: expected key=value, such as search.recipe.epochs=3")
    *parents, last = key.split(".")
    here = raw
    for parent in parents:
        here = here.setdefault(parent, {})
        if not isinstance(here, dict):
            raise InputError(f"{key}: {parent} is a value, it has no keys below it")
    try:
        here[last] = _plain(value, key)
    except InputError:
        raise InputError(f"{key}={value[:200]}: not a YAML value") from None


SHARED = tuple(
    f"{space.prefix}{kind}"
    for space in SPACES.values()
    for kind in ("search", *(("proxy", "final") if space.epochs_of_proxy is not None else ()))
)
"""Settings that all searches, proxies and finals of a space share."""


def resolve(raw: Raw, *, base: Path) -> Experiment:
    """Lay presets, shared settings and own settings over one another, and check the result.

    Args:
        raw: the decoded file.
        base: folder that relative genotype files are relative to.
    """
    _check_keys(raw, [f.name for f in dataclasses.fields(Experiment)] + list(SHARED), "")
    shared = {key: _mapping(raw.get(key), key) for key in SHARED}
    for key, spec in shared.items():
        kind = {"search": SearchSpec, "final": FinalSpec}.get(key.rpartition("_")[2])
        known = [f.name for f in dataclasses.fields(kind)] if kind else ["recipe", "resources"]
        _check_keys(spec, known, f"{key}.")
    out = {key: value for key, value in raw.items() if key not in SHARED}
    out["searches"] = {
        name: _search(_mapping(own, f"searches.{name}"), shared, f"searches.{name}")
        for name, own in _mapping(raw.get("searches"), "searches").items()
    }
    out["finals"] = {
        name: _final(_mapping(own, f"finals.{name}"), shared, f"finals.{name}", base)
        for name, own in _mapping(raw.get("finals"), "finals").items()
    }
    out["measures"] = {
        name: _measure(_mapping(own, f"measures.{name}"), shared, f"measures.{name}")
        for name, own in _mapping(raw.get("measures"), "measures").items()
    }
    if not out["searches"] and not out["finals"] and not out["measures"]:
        raise InputError("searches, finals, measures: all are empty, there is nothing to do")
    return decode(Experiment, out, "")


def _task(recipe: object, where: str) -> str:
    """What a recipe says it is, or what its data set is of."""
    recipe = recipe if isinstance(recipe, dict) else {}
    data = recipe.get("data")
    name = data.get("name") if isinstance(data, dict) else None
    task = recipe.get("task", "text" if name in TEXT_DATA else "image")
    if task not in SPACES:
        raise InputError(f"{where}.task={task}: unknown{_suggestion(str(task), list(SPACES))}")
    return str(task)


def _prefix(own: Raw, where: str) -> str:
    """Which shared settings a search or a final takes: those of its space."""
    return SPACES[_task(own.get("recipe"), f"{where}.recipe")].prefix


def _search(own: Raw, shared: dict[str, Raw], where: str) -> Raw:
    prefix = _prefix(own, where)
    spec = _merge(shared[f"{prefix}search"], own)
    _check_keys(spec, [f.name for f in dataclasses.fields(SearchSpec)], f"{where}.")
    space = SPACES[_task(spec.get("recipe"), f"{where}.recipe")]
    preset = _preset(spec, where, next(iter(space.presets)))
    recipe = _recipe("search", preset, spec.get("recipe"), f"{where}.recipe")
    proxy = shared.get(f"{prefix}proxy", {})
    return {
        "seeds": [0, 1, 2, 3],  # paper section 4.2: four searches with different seeds
        "select_by": space.select_by[0],
        **spec,
        "preset": preset,
        "recipe": recipe,
        "proxy": _proxy(preset, recipe, spec, proxy, where),
        "resources": _mapping(spec.get("resources"), f"{where}.resources"),
        "proxy_resources": _merge(
            _mapping(proxy.get("resources"), f"{prefix}proxy.resources"),
            _mapping(spec.get("proxy_resources"), f"{where}.proxy_resources"),
        ),
    }


def _proxy(preset: Preset, recipe: Raw, spec: Raw, shared: Raw, where: str) -> Raw | None:
    """The proxy training of a search's cells, on the search's own data."""
    space = SPACES[recipe["task"]]
    if space.epochs_of_proxy is None:
        if spec.get("proxy") is not None:
            raise InputError(f"{where}.proxy: {space.cells} are not trained")
        return None
    short = {"data": _same_images(recipe["data"]), "epochs": space.epochs_of_proxy}
    own = _merge(
        _merge(short, _mapping(shared.get("recipe"), f"{space.prefix}proxy.recipe")),
        _mapping(spec.get("proxy"), f"{where}.proxy"),
    )
    return _recipe("train", preset, own, f"{where}.proxy")


def _measure(own: Raw, shared: dict[str, Raw], where: str) -> Raw:
    search = {k: v for k, v in shared["search"].items() if k in ("preset", "recipe", "resources")}
    spec = _merge(search, own)
    _check_keys(spec, [f.name for f in dataclasses.fields(MeasureSpec)], f"{where}.")
    preset = _preset(spec, where)
    return {
        **spec,
        "preset": preset,
        "recipe": _recipe("search", preset, spec.get("recipe"), f"{where}.recipe"),
        "resources": _mapping(spec.get("resources"), f"{where}.resources"),
    }


def _final(own: Raw, shared: dict[str, Raw], where: str, base: Path) -> Raw:
    spec = _merge(shared.get(f"{_prefix(own, where)}final", {}), own)
    _check_keys(spec, [f.name for f in dataclasses.fields(FinalSpec)], f"{where}.")
    preset = _preset(spec, where)
    cell = dict(_mapping(spec.get("cell"), f"{where}.cell"))
    if isinstance(cell.get("file"), str):
        cell["file"] = str((base / cell["file"]).resolve())
    recipe = _recipe("train", preset, spec.get("recipe"), f"{where}.recipe")
    cifar = recipe["data"].get("format") == "arrays"
    if preset == "authors_2019" and cifar and not recipe["data"]["cutout"]:
        # Their configuration without cutout drops more paths.
        recipe["drop_path"] = _mapping(spec.get("recipe"), where).get("drop_path", 0.3)
    return {
        "seeds": [recipe["seed"]],
        **spec,
        "preset": preset,
        "cell": cell,
        "recipe": recipe,
        "resources": _mapping(spec.get("resources"), f"{where}.resources"),
    }


def _same_images(data: Raw) -> Raw:
    """The part of data settings that says what the images are; of photos all."""
    if data.get("format") == "photos":
        return data
    return {key: value for key, value in data.items() if key in ("name", "checksum")}


def _preset(spec: Raw, where: str, usual: Preset = "paper") -> Preset:
    preset = spec.get("preset", usual)
    if preset not in SEARCH_PRESETS:
        raise InputError(
            f"{where}.preset={preset}: unknown{_suggestion(str(preset), list(SEARCH_PRESETS))}"
        )
    return typing.cast(Preset, preset)


def _recipe(stage: Literal["search", "train"], preset: Preset, own: object, where: str) -> Raw:
    """The preset, the data set's constants, then the recipe's own settings."""
    own = _mapping(own, where)
    data = _mapping(own.get("data"), f"{where}.data")
    name = data.get("name", "cifar10")
    task = _task(own, where)
    if stage == "search" and preset not in SPACES[task].presets:
        usual = next(iter(SPACES[task].presets))
        raise InputError(
            f"{where}: preset {preset} has no search for {SPACES[task].cells}; use {usual}"
        )
    if name in TEXT_DATA:
        if preset not in TEXT_SEARCH_PRESETS:
            raise InputError(f"{where}: preset {preset} has no recurrent half; use paper")
        if stage == "search":
            base: Any = TEXT_SEARCH_PRESETS[preset]
        else:
            base = text_train_preset(preset, name)
        constants: Any = {"name": name}
    elif isinstance(name, str):
        images = (IMAGE_DATA | PHOTO_DATA).get(name)
        if images is not None:
            constants = dataclasses.asdict(images)
        elif data.get("format") == "photos":
            constants = {"format": "photos"}
        else:
            known = [*IMAGE_DATA, *PHOTO_DATA, *TEXT_DATA]
            raise InputError(
                f"{where}.data.name={name}: unknown data set{_suggestion(name, known)} (or your "
                "own photos: data.format=photos)"
            )
        if data.get("format", constants["format"]) != constants["format"]:
            raise InputError(
                f"{where}.data.format={data['format']}: {name} is of format {constants['format']}"
            )
        if stage == "train":
            base = image_train_preset(preset, name)
        elif task == "image":
            base = image_search_preset(preset, name)
        else:
            base = SPACES[task].presets[preset]
    else:
        raise InputError(f"{where}.data.name={name!r}: must be a name")
    merged = _merge(dataclasses.asdict(base) | {"data": constants}, own)
    _check_fields(merged, type(base), f"{where}.")
    return merged


TAGS = (*SPACES, "arrays", "photos")
"""What pydantic puts into a key's path to say which of several kinds it took."""


def decode_search(recipe: object) -> AnySearchConfig:
    """The settings of a search, from a job's recipe."""
    decoded: AnySearchConfig = decode(AnySearch, recipe, "recipe")  # type: ignore[arg-type]
    return decoded


def decode_train(recipe: object) -> TrainConfig | TextTrainConfig:
    """The settings of a training, from a job's recipe."""
    decoded: TrainConfig | TextTrainConfig = decode(AnyTrain, recipe, "recipe")  # type: ignore[arg-type]
    return decoded


def decode(kind: type[T], value: object, where: str) -> T:
    """Build a settings dataclass from JSON-like data, strictly.

    Raises:
        InputError: names the first wrong key, by its dotted path below `where`.
    """
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        _check_fields(value, kind, f"{where}." if where else "")
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        parts = [where, *(str(part) for part in first["loc"] if part not in TAGS)]
        path = ".".join(part for part in parts if part)
        if first["type"] == "value_error":  # one of our own checks
            own = str(first["ctx"]["error"])
            raise InputError(f"{path}: {own}" if path else own) from None
        if first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            raise InputError(f"{path}: is missing") from None
        raise InputError(f"{path}={first['input']!r}: {first['msg'].lower()}") from None


def _check_fields(value: Raw, kind: type, where: str) -> None:
    """Refuse unknown keys of a settings dataclass and of those inside it."""
    hints = typing.get_type_hints(kind)
    fields = {f.name: hints[f.name] for f in dataclasses.fields(kind)}
    _check_keys(value, list(fields), where)
    for key, inner in value.items():
        hint = fields[key]
        if hint == AnyImageData:
            photos = isinstance(inner, dict) and inner.get("format") == "photos"
            hint = PhotoData if photos else ImageData
        if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(inner, dict):
            _check_fields(inner, hint, f"{where}{key}.")


def _check_keys(value: Raw, known: list[str], where: str) -> None:
    for key in value:
        if key not in known:
            raise InputError(f"{where}{key}: unknown key{_suggestion(str(key), known)}")


def _suggestion(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


def _mapping(value: object, where: str) -> Raw:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where}={value!r}: expected a mapping")
    return value


def _merge(base: Raw, over: Raw) -> Raw:
    """`over` laid on `base`, key by key; lists and values are replaced."""
    out = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = _merge(out[key], value)
        else:
            out[key] = value
    return out
