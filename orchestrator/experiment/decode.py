"""Build settings from decoded JSON or YAML, strictly: every error names its key."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from gdas.bench201.config import Bench201SearchConfig
from gdas.cnn.config import SearchConfig, TrainConfig
from gdas.data.settings import AnyImageData, ImageData, PhotoData
from gdas.errors import InputError, one_line, suggestion
from gdas.field_types import MUST, no_option, refused, values_must
from gdas.presets import AnySearchConfig
from gdas.rnn.config import TextSearchConfig, TextTrainConfig
from orchestrator.experiment.spaces import SPACES

Raw = dict[str, Any]
AnySearch = Annotated[
    SearchConfig | TextSearchConfig | Bench201SearchConfig, Field(discriminator="task")
]
AnyTrain = Annotated[TrainConfig | TextTrainConfig, Field(discriminator="task")]
T = typing.TypeVar("T")
TAGS = (*SPACES, "arrays", "photos")
"""Names that pydantic adds to a key's path to say which class of a union it tried."""


def decode_search(recipe: object) -> AnySearchConfig:
    """Build the settings of a search from a job's recipe."""
    decoded: AnySearchConfig = decode(AnySearch, recipe, "recipe")  # type: ignore[arg-type]
    return decoded


def decode_train(recipe: object) -> TrainConfig | TextTrainConfig:
    """Build the settings of a training from a job's recipe."""
    decoded: TrainConfig | TextTrainConfig = decode(AnyTrain, recipe, "recipe")  # type: ignore[arg-type]
    return decoded


def decode(kind: type[T], value: object, where: str) -> T:
    """Build a settings dataclass from JSON-like data, strictly.

    Raises:
        InputError: names the first wrong key, by its dotted path below `where`.
    """
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        check_fields(value, kind, f"{where}." if where else "")
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value))
    except ValidationError as error:
        errors = error.errors(include_url=False)
        first = errors[0]
        parts = [where, *(str(part) for part in first["loc"] if part not in TAGS)]
        path = ".".join(part for part in parts if part)
        if first["type"] == "literal_error":
            raise no_option(
                path, first["input"], _OPTION.findall(first["ctx"]["expected"])
            ) from None
        if (count := _length_of_tuple(errors)) is not None:
            whole = path if first["type"] == "too_long" else path.rpartition(".")[0]
            raise refused(whole, first["input"], values_must(count)) from None
        if first["type"] == "value_error":  # one of our own checks
            own = str(first["ctx"]["error"])
            raise InputError(f"{path}: {own}" if path else own) from None
        if first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            raise InputError(
                f"{path}: is missing; set it in the file, or behind the command: {path}=..."
            ) from None
        for asked, must in MUST.items():
            if first["type"].startswith(f"{asked}_"):
                raise refused(path, first["input"], must) from None
        said = first["msg"].replace("Input should be", "must be")
        raise InputError(f"{path}={one_line(repr(first['input']), 60)}: {said}") from None


_OPTION = re.compile(r"'([^']*)'")
"""The options of a Literal, of text, in Pydantic's list of them."""


def _length_of_tuple(errors: Sequence[Mapping[str, Any]]) -> int | None:
    """How many values a tuple of another length must have; None if the first error is another."""
    first = errors[0]
    if first["type"] == "too_long":
        return int(first["ctx"]["max_length"])
    if first["type"] == "missing" and isinstance(first["input"], list):
        alike = [e for e in errors if e["type"] == "missing" and e["loc"][:-1] == first["loc"][:-1]]
        return max(int(e["loc"][-1]) for e in alike) + 1
    return None


def check_fields(value: Raw, kind: type, where: str) -> None:
    """Refuse unknown keys of a settings dataclass and of the dataclasses inside it."""
    hints = typing.get_type_hints(kind)
    fields = {f.name: hints[f.name] for f in dataclasses.fields(kind)}
    check_keys(value, list(fields), where)
    for key, inner in value.items():
        hint = fields[key]
        if hint == AnyImageData:
            photos = isinstance(inner, dict) and inner.get("format") == "photos"
            hint = PhotoData if photos else ImageData
        if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(inner, dict):
            check_fields(inner, hint, f"{where}{key}.")


def check_keys(value: Raw, known: list[str], where: str) -> None:
    """Raise InputError if `value` has a key that is not in `known`, with the closest known one."""
    for key in value:
        if key not in known:
            word = str(key).split()[0] if str(key).split() else ""
            if value[key] is None and word in known:  # {name mine}
                raise InputError(
                    f"{where}{key}: unknown key; a colon is missing, write {word}: "
                    f"{str(key).partition(word)[2].strip() or '...'}"
                )
            raise InputError(f"{where}{key}: unknown key{suggestion(str(key), known)}")
