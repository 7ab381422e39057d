"""Read an experiment file, apply `key=value` overrides, and resolve both to typed settings.

Every recipe starts from a preset of gdas.presets and the known constants of its data set. The file
changes these, and then the command line.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from gdas.data.settings import IMAGE_DATA, PHOTO_DATA, TEXT_DATA, PhotoData, TextData
from gdas.errors import InputError, one_line, suggestion
from gdas.outside import outside
from gdas.presets import (
    SEARCH_PRESETS,
    TEXT_SEARCH_PRESETS,
    Preset,
    image_train_preset,
    text_train_preset,
)
from orchestrator.experiment.config import Experiment, FinalSpec, MeasureSpec, SearchSpec
from orchestrator.experiment.decode import Raw, check_fields, check_keys, decode
from orchestrator.experiment.places import check_top
from orchestrator.experiment.plain_yaml import plain_yaml
from orchestrator.experiment.spaces import SPACES

EXPERIMENTS = Path(str(files("orchestrator") / "experiments")).resolve()
"""The folder of the experiments that come with the package: `experiments/` of a checkout."""


def experiment_of(words: Sequence[str]) -> Experiment:
    """Load the experiment that a command line names: one name (default: smoke) and overrides.

    Raises:
        InputError: there are two names, or `load_experiment` raises it.
    """
    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise InputError(
            f"{' and '.join(names)}: must be one experiment at a time; settings are key=value, "
            "such as search.recipe.epochs=3"
        )
    return load_experiment(names[0] if names else "smoke", [word for word in words if "=" in word])


def load_experiment(name: str, overrides: list[str]) -> Experiment:
    """Read an experiment and apply `key=value` overrides.

    Args:
        name: the name of a file in experiments/, or a path.
        overrides: texts such as "search.recipe.epochs=3"; the values are YAML.

    Raises:
        InputError: a key is unknown, or its value has the wrong type or range; the error names it.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else EXPERIMENTS / f"{name}.yaml"
    if not path.is_file():
        names = sorted(p.stem for p in EXPERIMENTS.glob("*.yaml"))
        if meant := next((f for f in (f"{name}.yaml", f"{name}.yml") if Path(f).is_file()), None):
            raise InputError(f"experiment {name!r}: no file {path}; did you mean {meant}?")
        raise InputError(
            f"experiment {name!r}: no file {path}{suggestion(name, names)} (your own is given by "
            "its path, such as mine.yaml)"
        )
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{path}: larger than {MAX_BYTES} bytes, not an experiment; name a YAML file such "
                "as those in experiments/"
            )
        raw = plain_yaml(path.read_text(encoding="utf-8"), str(path))
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(
            f"{path}: not a YAML file ({one_line(error, 200)}); save it as UTF-8 text"
        ) from None
    if not isinstance(raw, dict):
        raise InputError(
            f"{path}: must have searches, finals or measures, such as "
            "finals: {one: {cell: {published: GDAS_V1}}}"
        )
    raw.setdefault("name", path.stem)
    keys = [override.partition("=")[0] for override in overrides]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"{key}: is set {keys.count(key)} times behind the command; keep one")
    for override in overrides:
        _apply(raw, override)
    return resolve(raw, base=path.parent)


MAX_BYTES = 1 << 20


def _apply(raw: Raw, override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise InputError(f"{override!r}: must be key=value, such as search.recipe.epochs=3")
    *parents, last = key.split(".")
    here = raw
    for parent in parents:
        here = here.setdefault(parent, {})
        if not isinstance(here, dict):
            raise InputError(
                f"{key}: {parent} is a value and has no keys below it; set it itself, such as "
                f"{key[: key.index(parent) + len(parent)]}=3"
            )
    try:
        here[last] = plain_yaml(value, key)
    except InputError as problem:
        if ": not a YAML file (" not in str(problem):
            raise InputError(str(problem).replace(f"{key}, line 1: ", f"{key}: ", 1)) from None
        raise InputError(
            f"{key}={value[:200]}: not a YAML value; write it such as 3, 0.1, true, text or "
            "'[0, 1]', in quotes of the shell"
        ) from None


SHARED = tuple(
    f"{space.prefix}{kind}"
    for space in SPACES.values()
    for kind in ("search", *(("proxy", "final") if space.epochs_of_proxy is not None else ()))
)
"""The keys of settings that all searches, proxies or finals of a space share."""


def resolve(raw: Raw, *, base: Path) -> Experiment:
    """Merge presets, shared settings and own settings, in this order, and check the result.

    Args:
        raw: the decoded file.
        base: the folder that paths of genotype files are relative to.
    """
    check_top(raw, [f.name for f in dataclasses.fields(Experiment)] + list(SHARED))
    shared = {key: _mapping(raw.get(key), key) for key in SHARED}
    for key, spec in shared.items():
        kind = {"search": SearchSpec, "final": FinalSpec}.get(key.rpartition("_")[2])
        known = [f.name for f in dataclasses.fields(kind)] if kind else ["recipe", "resources"]
        check_keys(spec, known, f"{key}.")
    out = {key: value for key, value in raw.items() if key not in SHARED}
    out["searches"] = {
        name: _search(_mapping(own, f"searches.{name}"), shared, f"searches.{name}")
        for name, own in _mapping(raw.get("searches"), "searches").items()
    }
    out["finals"] = {
        name: _with_operations_of_its_search(
            _final(_mapping(own, f"finals.{name}"), shared, f"finals.{name}", base), out["searches"]
        )
        for name, own in _mapping(raw.get("finals"), "finals").items()
    }
    out["measures"] = {
        name: _measure(_mapping(own, f"measures.{name}"), shared, f"measures.{name}")
        for name, own in _mapping(raw.get("measures"), "measures").items()
    }
    if not out["searches"] and not out["finals"] and not out["measures"]:
        raise InputError(
            "searches, finals, measures: all are empty, there is nothing to do; add one, such as "
            "finals: {one: {cell: {published: GDAS_V1}}}"
        )
    return decode(Experiment, out, "")


def _task(recipe: object, where: str) -> str:
    """The task that a recipe names, or that its data set implies."""
    recipe = recipe if isinstance(recipe, dict) else {}
    data = recipe.get("data")
    name = data.get("name") if isinstance(data, dict) else None
    text = name in TEXT_DATA or (isinstance(data, dict) and _own_text(data))
    task = recipe.get("task", "text" if text else "image")
    if task not in SPACES:
        raise InputError(f"{where}.task={task}: unknown{suggestion(str(task), list(SPACES))}")
    return str(task)


def _own_text(data: Raw) -> bool:
    name = data.get("name")
    known = isinstance(name, str) and name in IMAGE_DATA | PHOTO_DATA
    return data.get("format") == "text" and isinstance(name, str | None) and not known


def _prefix(own: Raw, where: str) -> str:
    """The prefix of the shared settings that apply to a search or final: that of its space."""
    return SPACES[_task(own.get("recipe"), f"{where}.recipe")].prefix


def _search(own: Raw, shared: dict[str, Raw], where: str) -> Raw:
    prefix = _prefix(own, where)
    spec = _merge(shared[f"{prefix}search"], own)
    check_keys(spec, [f.name for f in dataclasses.fields(SearchSpec)], f"{where}.")
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
            raise InputError(f"{where}.proxy: {space.cells} are not trained; leave it out")
        return None
    short = {"data": _same_data(recipe["data"]), "epochs": space.epochs_of_proxy}
    if own_operations := _own_operations(recipe):
        short["operations"] = own_operations
    own = _merge(
        _merge(short, _mapping(shared.get("recipe"), f"{space.prefix}proxy.recipe")),
        _mapping(spec.get("proxy"), f"{where}.proxy"),
    )
    return _recipe("train", preset, own, f"{where}.proxy")


def _measure(own: Raw, shared: dict[str, Raw], where: str) -> Raw:
    search = {k: v for k, v in shared["search"].items() if k in ("preset", "recipe", "resources")}
    spec = _merge(search, own)
    check_keys(spec, [f.name for f in dataclasses.fields(MeasureSpec)], f"{where}.")
    preset = _preset(spec, where)
    return {
        **spec,
        "preset": preset,
        "recipe": _recipe("search", preset, spec.get("recipe"), f"{where}.recipe"),
        "resources": _mapping(spec.get("resources"), f"{where}.resources"),
    }


def _final(own: Raw, shared: dict[str, Raw], where: str, base: Path) -> Raw:
    spec = _merge(shared.get(f"{_prefix(own, where)}final", {}), own)
    check_keys(spec, [f.name for f in dataclasses.fields(FinalSpec)], f"{where}.")
    preset = _preset(spec, where)
    cell = dict(_mapping(spec.get("cell"), f"{where}.cell"))
    if isinstance(cell.get("file"), str):
        cell["file"] = str((base / cell["file"]).resolve())
    recipe = _recipe("train", preset, spec.get("recipe"), f"{where}.recipe")
    cifar = recipe["data"].get("format") == "arrays"
    if preset == "authors_2019" and cifar and not recipe["data"]["cutout"]:
        # The authors' configuration without cutout has a higher drop path rate.
        recipe["drop_path"] = _mapping(spec.get("recipe"), where).get("drop_path", 0.3)
    return {
        "seeds": [recipe["seed"]],
        **spec,
        "preset": preset,
        "cell": cell,
        "recipe": recipe,
        "resources": _mapping(spec.get("resources"), f"{where}.resources"),
    }


def _with_operations_of_its_search(final: Raw, searches: Raw) -> Raw:
    """Name in a final what its searches, or its random cell, name of the user's own operations."""
    cell, recipe = final["cell"], final["recipe"]
    combined = cell.get("combined")
    tracks = [cell.get("searched"), *(combined.values() if isinstance(combined, dict) else ())]
    named = [searches[track]["recipe"] for track in tracks if track in searches]
    found = [name for source in (*named, cell) for name in _own_operations(source)]
    if found and isinstance(recipe.get("operations"), list | tuple):
        recipe["operations"] = list(dict.fromkeys([*recipe["operations"], *found]))
    return final


def _own_operations(recipe: Raw) -> list[str]:
    """The operations from outside the package that settings name; malformed ones are for others."""
    names = recipe.get("operations")
    if not isinstance(names, list | tuple):
        return []
    return list(outside(name for name in names if isinstance(name, str)))


def _same_data(data: Raw) -> Raw:
    """The part of the data settings that says what the data are.

    For photos and texts that is all of it. A known set of images has its constants by its name.
    """
    if data.get("format") == "arrays":
        return {key: value for key, value in data.items() if key in ("name", "checksum")}
    return data


def _preset(spec: Raw, where: str, usual: Preset = "paper") -> Preset:
    preset = spec.get("preset", usual)
    if preset not in SEARCH_PRESETS:
        raise InputError(
            f"{where}.preset={preset}: unknown{suggestion(str(preset), list(SEARCH_PRESETS))}"
        )
    return typing.cast(Preset, preset)


def _refuse_nameless(data: Raw, where: str) -> None:
    """Refuse the user's own data without a name, as if its colon was forgotten: `{name pets}`."""
    kind = {"photos": PhotoData, "text": TextData}.get(str(data.get("format")))
    if kind is None or data.get("name") is not None:
        return
    check_keys(data, [f.name for f in dataclasses.fields(kind)], f"{where}.")
    raise InputError(
        f"{where}.name: is missing beside format={data['format']}; it is the folder of your "
        "files in the data folder, such as name: mine"
    )


FORMATS = ("photos", "text")
"""Formats of data sets that users bring themselves."""


def _recipe(stage: Literal["search", "train"], preset: Preset, own: object, where: str) -> Raw:
    """Merge the preset, the data set's constants and the recipe's own settings, in this order."""
    own = _mapping(own, where)
    data = _mapping(own.get("data"), f"{where}.data")
    _refuse_nameless(data, f"{where}.data")
    name = data.get("name", "cifar10")
    task = _task(own, where)
    if stage == "search" and preset not in SPACES[task].presets:
        usual = next(iter(SPACES[task].presets))
        raise InputError(
            f"{where}: preset {preset} has no search for {SPACES[task].cells}; use {usual}"
        )
    if name in TEXT_DATA or _own_text(data):
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
        elif "format" in data and data["format"] not in FORMATS:
            raise InputError(
                f"{where}.data.format={data['format']}: must be {' or '.join(FORMATS)} for your "
                "own files (experiments/formats.md)"
            )
        else:
            known = [*IMAGE_DATA, *PHOTO_DATA, *TEXT_DATA]
            raise InputError(
                f"{where}.data.name={name}: unknown data set{suggestion(name, known)} (or your "
                "own files: data.format=photos or data.format=text)"
            )
        if data.get("format", constants["format"]) != constants["format"]:
            raise InputError(
                f"{where}.data.format={data['format']}: {name} is of format "
                f"{constants['format']}; leave it out, or call your own data set otherwise"
            )
        if stage == "train":
            base = image_train_preset(preset, name)
        else:
            base = SPACES[task].preset(preset, name)
    else:
        raise InputError(f"{where}.data.name={name!r}: must be text, such as name: mine")
    merged = _merge(dataclasses.asdict(base) | {"data": constants}, own)
    check_fields(merged, type(base), f"{where}.")
    return merged


def _mapping(value: object, where: str) -> Raw:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(
            f"{where}={one_line(value, 60)}: must have keys below it, such as "
            f"{where.split('.')[-1]}: {{key: value}}"
        )
    return value


def _merge(base: Raw, over: Raw) -> Raw:
    """`base` with the values of `over`, key by key; lists and plain values are replaced."""
    out = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = _merge(out[key], value)
        else:
            out[key] = value
    return out
