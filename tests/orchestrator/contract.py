"""Whether what lies in an output folder is what `orchestrator.store.results` says."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import NotRequired

from orchestrator.store.job_folder import JobFolder
from orchestrator.store.results import Details, JobSettings, Record


def assert_is(value: object, kind: type) -> None:
    """A TypedDict's keys and no others, in it and in what it holds."""
    if not typing.is_typeddict(kind):
        return
    assert isinstance(value, Mapping)
    marked = typing.get_type_hints(kind, include_extras=True)
    hints = typing.get_type_hints(kind)
    optional = {key for key, hint in marked.items() if typing.get_origin(hint) is NotRequired}
    required = hints.keys() - optional if getattr(kind, "__total__", True) else set()
    assert required <= value.keys(), f"{kind.__name__} lacks {required - value.keys()}"
    assert value.keys() <= hints.keys(), f"{kind.__name__} has {value.keys() - hints.keys()} too"
    for key, inner in value.items():
        hint = hints[key]
        if typing.get_origin(hint) is list:
            for one in inner:
                assert_is(one, typing.get_args(hint)[0])
        else:
            assert_is(inner, hint)


def assert_job_is(folder: JobFolder, result: type) -> None:
    """A finished job's settings, records and result."""
    assert_is(folder.settings(), JobSettings)
    assert folder.records()
    for record in folder.records():
        assert_is(record, Record)
        assert_is(record["details"], Details)
    assert_is(folder.result(), result)
