"""Where settings stand: the dotted names of one that is given without its place, or misspelt."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from gdas.bench201.config import Bench201SearchConfig
from gdas.cnn.config import SearchConfig, TrainConfig
from gdas.errors import InputError, closest
from gdas.rnn.config import TextSearchConfig, TextTrainConfig
from orchestrator.experiment.config import FinalSpec, SearchSpec, TrainResources, TrialResources
from orchestrator.experiment.decode import Raw, check_keys


def check_top(raw: Raw, known: Sequence[str]) -> None:
    """Refuse unknown keys of an experiment; of a setting without its place, name the places.

    A misspelt setting is taken for the closest one.
    """
    for key in (key for key in raw if key not in known):
        has = places_of(str(key), known)
        if has:
            raise InputError(f"{key}: unknown key; did you mean {' or '.join(has)}?")
    check_keys(raw, list(known), "")


def places_of(key: str, known: Sequence[str] = (), alike: float = 0.5) -> list[str]:
    """The dotted names of a setting that is given without its place, or misspelt.

    Args:
        known: what else the key may have been meant to be.
        alike: how close a misspelt key must be, from 0 to 1.

    Returns:
        Nothing if no setting is like it, or one of `known` is more like it.
    """
    places: dict[str, Any] = {
        "search": SearchSpec,
        "final": FinalSpec,
        "search.recipe": SearchConfig,
        "final.recipe": TrainConfig,
        "text_search.recipe": TextSearchConfig,
        "text_final.recipe": TextTrainConfig,
        "bench201_search.recipe": Bench201SearchConfig,
        "search.resources": TrialResources,
        "final.resources": TrainResources,
    }
    fields = {place: [f.name for f in dataclasses.fields(kind)] for place, kind in places.items()}
    meant = closest(key, [*known, *itertools.chain(*fields.values())], alike)
    if meant in known:
        return []
    return [f"{place}.{meant}" for place, names in fields.items() if meant in names]
