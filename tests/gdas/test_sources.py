"""Every setting has a source or a reason for none, and every difference from one gets its line."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import pytest

import gdas.bench201.config
import gdas.cnn.config
import gdas.presets
import gdas.rnn.config
from gdas.bench201.config import Bench201SearchConfig
from gdas.cnn.config import SearchConfig, SupernetConfig, TrainConfig
from gdas.config import AlphaUpdate
from gdas.data.settings import IMAGE_DATA, TextData
from gdas.presets import SEARCH_PRESETS, TRAIN_PRESETS
from gdas.rnn.config import TextSearchConfig, TextTrainConfig
from gdas.sources import NOT_SETTINGS, NOT_SOURCED, SOURCES
from orchestrator.paper.deviations import Config, Deviation, deviations, value_of
from tests.gdas.test_config import leaves

KEYS = [(kind, source.key) for kind, sources in SOURCES.items() for source in sources]

OTHER: dict[str, Any] = {
    # Another valid value, where the rule of `another` has none.
    "data.cutout": 8,
    "weights.momentum": 0.5,
    "momentum": 0.5,
    "warmup_epochs": 5,
    "alpha.betas": (0.4, 0.9),
    "alpha.warmup_epochs": 2,
    "sampler.method": "random",
    "operations": ("none", "skip_connect", "sep_conv_3x3"),
}


def another(config: Config, key: str) -> Any:
    """Another valid value of a setting."""
    if key == "data.name":
        return "prose" if isinstance(config, TextSearchConfig | TextTrainConfig) else "digits"
    if key in OTHER:
        return OTHER[key]
    value = value_of(config, key)
    match value:
        case None:
            return 1000
        case bool():
            return not value
        case int():
            return value * 2
        case float():  # rates may only grow, or the least rate is above the rate
            return value * 2 if key.endswith("lr") else value / 2 or 1e-3
    owner = value_of(config, key.rpartition(".")[0]) if "." in key else config
    choices = typing.get_args(typing.get_type_hints(type(owner))[key.rpartition(".")[2]])
    return next(choice for choice in choices if choice != value)


def put(config: Any, key: str, value: Any) -> Any:
    """Settings with one dotted key replaced."""
    first, _, rest = key.partition(".")
    inner = put(getattr(config, first), rest, value) if rest else value
    return dataclasses.replace(config, **{first: inner})


def lines(config: Config) -> dict[str, Deviation]:
    return {line.key: line for line in deviations(config)}


def default(kind: type, key: str) -> Any:
    if (kind, key) == (TextSearchConfig, "weights.nesterov"):  # needs a momentum
        return put(kind(), "weights.momentum", 0.5)
    return kind()


@pytest.mark.parametrize(("kind", "key"), KEYS, ids=[f"{k.__name__}-{key}" for k, key in KEYS])
def test_a_flipped_setting_gets_its_line_and_loses_it_when_flipped_back(
    kind: type, key: str
) -> None:
    before = default(kind, key)
    other = another(before, key)
    flipped = put(before, key, other)
    line, standing = lines(flipped).get(key), lines(before).get(key)
    if line is None:  # the default is not as its source says, the other value is
        assert standing is not None and standing.differs
    elif standing is None:
        assert line.differs
    else:  # the sources disagree: the line stays, and says how ours stands to them
        assert line.ours != standing.ours and line.status != standing.status
    assert lines(put(flipped, key, value_of(before, key))).get(key) == standing
    for shown in (line, standing):
        if shown is not None:
            assert all((shown.paper, shown.code_2019, shown.code_2020, shown.why, shown.touches))


def test_a_search_of_the_benchmark_is_held_against_its_own_code() -> None:
    assert deviations(Bench201SearchConfig(seed=3), job="search x") == []
    changed = Bench201SearchConfig(epochs=7, alpha=AlphaUpdate(lr=0.5))
    lines = {line.key: line for line in deviations(changed, job="search x")}
    assert set(lines) == {"epochs", "alpha.lr", "alpha.images"}
    assert (lines["epochs"].ours, lines["epochs"].code_2020) == ("7", "250")
    assert lines["epochs"].paper == "-" and lines["epochs"].differs


def test_every_setting_has_a_source_or_a_reason_for_none() -> None:
    jobs = {
        kind
        for family in (gdas.cnn.config, gdas.rnn.config, gdas.bench201.config)
        for kind in vars(family).values()
        if isinstance(kind, type)
        and dataclasses.is_dataclass(kind)
        and "task" in {f.name for f in dataclasses.fields(kind)}
    } - {Bench201SearchConfig}  # a later benchmark: the paper knows nothing of it
    assert jobs == set(SOURCES) == set(NOT_SOURCED), (
        "a settings class of a job is new or gone: give it a tuple in SOURCES and a dict in "
        "NOT_SOURCED (gdas/sources.py) and a case in orchestrator.paper.deviations.preset_for"
    )
    for kind in jobs:
        sourced = [source.key for source in SOURCES[kind]]
        known = [*sourced, *NOT_SOURCED[kind]]
        new = sorted(set(leaves(kind())) - set(known))
        assert not new, (
            f"{kind.__name__}: {', '.join(new)}: no source in gdas/sources.py. Add a Source to "
            "SOURCES that says what the paper says (PRESET, SILENT, UNRECORDED or Says), where it "
            "and the authors' codes say so, and which numbers it touches; give the authors' "
            "values in gdas/presets.py. Where no source can have a value, add it "
            "to NOT_SOURCED with the reason"
        )
        gone = sorted(set(known) - set(leaves(kind())))
        assert not gone, f"{kind.__name__}: {', '.join(gone)}: in gdas/sources.py, but no setting"
        twice = sorted(key for key in known if known.count(key) > 1)
        assert not twice, f"{kind.__name__}: {', '.join(twice)}: named twice in gdas/sources.py"
        assert all(NOT_SOURCED[kind].values())


def test_the_paper_row_shows_what_each_source_does() -> None:
    line = lines(SearchConfig())["weights.lr"]
    assert (line.ours, line.paper, line.code_2019, line.code_2020) == (
        *("0.025", "0.025", "0.01", "0.025"),
    )
    assert (line.status, line.differs) == ("as the paper", False)
    line = lines(SEARCH_PRESETS["authors_2019"])["weights.lr"]
    assert (line.ours, line.status) == ("0.01", "not the paper's, but the 2019 code's")
    line = lines(SEARCH_PRESETS["authors_2020"])["weights.clip_scope"]
    assert line.status == "paper silent; not as the 2019 code, but as the 2020 code"
    assert lines(TextSearchConfig())["order"].code_2020 == "-"


def test_none_at_derivation_is_the_papers_only_where_it_is_eligible() -> None:
    line = lines(SearchConfig())["derivation.exclude_none"]
    assert line.differs and "eligible" in line.paper
    eligible = lines(put(SearchConfig(), "derivation.exclude_none", False))
    assert eligible["derivation.exclude_none"].status == "as the paper"


def test_settings_of_other_rows_of_the_paper_are_the_papers() -> None:
    cutout = put(TrainConfig(), "data.cutout", 16)
    assert "data.cutout" not in lines(cutout)
    assert lines(put(cutout, "data.cutout", 8))["data.cutout"].paper == "0 or 16"
    assert lines(cutout)["drop_path"].code_2019 == "0.2"
    assert lines(TrainConfig())["drop_path"].code_2019 == "0.3"
    wikitext2 = gdas.presets.text_train_preset("paper", "wikitext2")
    found = lines(wikitext2)
    differ = {key for key in leaves(wikitext2) if key in found and found[key].differs}
    assert differ == {"asgd_rate"}
    assert "epochs" not in lines(wikitext2), "3000 in the paper and in the code"
    assert lines(put(wikitext2, "epochs", 2000))["epochs"].paper == "3000"


def test_a_known_data_set_brings_its_constants_and_one_line() -> None:
    digits = dataclasses.replace(TrainConfig(), data=IMAGE_DATA["digits"])
    found = {key for key in lines(digits) if key.startswith("data.")}
    assert found == {"data.name"}
    assert "data.flip" in lines(put(digits, "data.flip", True))
    prose = dataclasses.replace(TextSearchConfig(), data=TextData(name="prose"))
    assert lines(prose)["data.name"].differs


def test_what_is_no_setting_is_named_where_it_matters() -> None:
    fixed = dataclasses.replace(SearchConfig(), network=SupernetConfig(reduction="fixed"))
    assert "fixed reduction cell" in lines(fixed)
    assert "fixed reduction cell" not in lines(SearchConfig())
    assert lines(TextSearchConfig())["recurrent search optimiser"].differs
    assert not lines(TextSearchConfig())["gradients of alpha"].differs
    named = {line.key for kind in SOURCES for line in deviations(kind())}
    assert {entry.key for entry in NOT_SETTINGS} <= named
    assert {"search loss", "reduction stride", "derivation.exclude_none"} <= {
        line.key for kind in SOURCES for line in deviations(kind()) if line.differs
    }


def test_a_line_names_its_job() -> None:
    assert {line.job for line in deviations(TrainConfig(), job="final a")} == {"final a"}


def test_settings_without_sources_are_refused() -> None:
    with pytest.raises(TypeError, match="SupernetConfig"):
        deviations(SupernetConfig())  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", ["authors_2019", "authors_2020"])
def test_a_preset_of_the_authors_shows_their_codes_values(preset: Any) -> None:
    train = put(TRAIN_PRESETS[preset], "data.cutout", 16)
    for config in (SEARCH_PRESETS[preset], train):
        code = "code_" + preset.removeprefix("authors_")
        settings = [line for line in deviations(config) if line.key in leaves(config)]
        assert settings
        for line in settings:
            assert line.key == "data.cutout" or getattr(line, code) == line.ours, line.key
