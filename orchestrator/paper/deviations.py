"""The settings in which a run differs from the paper, or on which its sources disagree.

This is made from gdas.sources and gdas.presets. A setting gets a line in the report if the run
differs from its source (the paper or, if the paper gives no value, the authors' 2019 code), and
also if the paper and the authors' codes disagree, so that the reader knows of the choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gdas.bench201.config import Bench201SearchConfig
from gdas.cnn.config import SearchConfig, TrainConfig
from gdas.config import differences
from gdas.data.settings import IMAGE_DATA, PHOTO_DATA, AnyImageData, PhotoData
from gdas.presets import (
    TEXT_SEARCH_PRESETS,
    Preset,
    image_search_preset,
    image_train_preset,
    text_train_preset,
)
from gdas.rnn.config import TextSearchConfig, TextTrainConfig
from gdas.sources import (
    NOT_SETTINGS,
    PRESET,
    SILENT,
    SOURCES,
    TOUCHES,
    UNRECORDED,
    NotASetting,
    Says,
    Source,
)

Config = SearchConfig | TrainConfig | TextSearchConfig | TextTrainConfig
BENCH201_IGNORED = ("seed", "precision", "channels_last", "recalibration_batches")

PRESETS: tuple[Preset, ...] = ("paper", "authors_2019", "authors_2020")
NOT_COVERED = "-"


@dataclass(frozen=True)
class Deviation:
    """One line of the report.

    Attributes:
        job: the job it is about, such as "search gdas-frc"; may be empty.
        key: the dotted key of the setting, or what else differs.
        ours: this run's value.
        paper, code_2019, code_2020: the values of the paper and of the authors' codes.
        why: where the sources give these values, and the reason for ours.
        touches: the numbers that it can change.
        status: how ours relates to its source, in words.
        differs: True if ours differs from its source; False if it is a choice among sources.
    """

    job: str
    key: str
    ours: str
    paper: str
    code_2019: str
    code_2020: str
    why: str
    touches: str
    status: str
    differs: bool


def deviations(config: Config | Bench201SearchConfig, *, job: str = "") -> list[Deviation]:
    """The lines of one search or training.

    Args:
        config: its settings.
        job: what to call it.

    Raises:
        TypeError: SOURCES has no entry for the class of the settings.
    """
    if isinstance(config, Bench201SearchConfig):
        return _from_the_benchmarks(config, job)
    if type(config) not in SOURCES:
        raise TypeError(f"{type(config).__name__}: has no entry in gdas.sources.SOURCES")
    presets = {name: preset for name in PRESETS if (preset := preset_for(name, config))}
    lines = [_line(source, config, presets, job) for source in SOURCES[type(config)]]
    return [line for line in lines if line] + [
        _fixed(entry, config, covered="authors_2020" in presets, job=job)
        for entry in NOT_SETTINGS
        if _matters(entry, config)
    ]


def _from_the_benchmarks(config: Bench201SearchConfig, job: str) -> list[Deviation]:
    """The lines for NAS-Bench-201, which is later than the paper and the 2019 code."""
    return [
        Deviation(
            job=job,
            key=key,
            ours=_text(ours),
            paper=NOT_COVERED,
            code_2019=NOT_COVERED,
            code_2020=_text(theirs),
            why="authors' 2020 code for NAS-Bench-201",
            touches="lookups in NAS-Bench-201; no table of the paper",
            status="not as the 2020 code",
            differs=True,
        )
        for key, ours, theirs in differences(config, Bench201SearchConfig())
        if key not in BENCH201_IGNORED and not key.startswith("data.")
    ]


def preset_for(name: Preset, config: Config) -> Config | None:
    """A preset's settings for the job that `config` is: on its images or text.

    Returns:
        None if the preset has no such job: the 2020 code has no recurrent half.
    """
    found: Config | None = PRESET_FOR[type(config)](name, config)
    return found


def _image_search(name: Preset, config: SearchConfig) -> SearchConfig:
    papers = image_search_preset(name, config.data.name)
    return dataclasses.replace(papers, data=_constants(config.data, "cifar10"))


def _image_training(name: Preset, config: TrainConfig) -> TrainConfig:
    train = image_train_preset(name, config.data.name)
    if isinstance(config.data, PhotoData):
        return dataclasses.replace(train, data=_constants(config.data, "imagenet"))
    if name == "authors_2019" and not config.data.cutout:
        train = dataclasses.replace(train, drop_path=0.3)  # their other configuration
    return dataclasses.replace(train, data=_constants(config.data, "cifar10"))


def _text_training(name: Preset, config: TextTrainConfig) -> TextTrainConfig | None:
    known = "wikitext2" if config.data.name == "wikitext2" else "ptb"
    return text_train_preset(name, known) if name in TEXT_SEARCH_PRESETS else None


PRESET_FOR: dict[type, Callable[[Preset, Any], Config | None]] = {
    SearchConfig: _image_search,
    TrainConfig: _image_training,
    TextSearchConfig: lambda name, config: TEXT_SEARCH_PRESETS.get(name),
    TextTrainConfig: _text_training,
}
"""By the class of a job's settings, what gives a preset's settings for that job."""


def _constants(ours: AnyImageData, papers: str) -> AnyImageData:
    """The known constants of our images, under the name of the paper's data set."""
    if isinstance(ours, PhotoData):
        return dataclasses.replace(PHOTO_DATA.get(ours.name, ours), name=papers)
    return dataclasses.replace(IMAGE_DATA.get(ours.name, IMAGE_DATA["cifar10"]), name=papers)


def _line(
    source: Source, config: Config, presets: dict[Preset, Config], job: str
) -> Deviation | None:
    """The line of a setting; None if ours is as its source says and the sources agree."""
    if source.key.startswith("data.") and not hasattr(config.data, source.key[5:]):
        return None  # photos have no cutout, arrays no colour jitter
    key, paper, ours = source.key, source.paper, value_of(config, source.key)
    values = {name: value_of(preset, key) for name, preset in presets.items()}
    letter = values["paper"] if paper is PRESET else paper.value
    given = paper is PRESET or paper.value is not None
    codes = [name for name in PRESETS[1:] if name in values and values[name] == ours]
    status, differs = _status(paper, given, ours in (letter, *source.also), codes)
    expected = letter if given else values["authors_2019"]
    disagree = any(values[name] != expected for name in PRESETS[1:] if name in values)
    unclear = not given and paper not in (SILENT, UNRECORDED)
    if not (differs or disagree or unclear):
        return None
    shown = " or ".join(map(_text, (letter, *source.also))) if paper is PRESET else paper.text
    return Deviation(
        job=job,
        key=key,
        ours=_text(ours),
        paper=shown,
        code_2019=_text(values["authors_2019"]),
        code_2020=_text(values["authors_2020"]) if "authors_2020" in values else NOT_COVERED,
        why=source.why,
        touches=source.touches or TOUCHES[type(config)],
        status=status,
        differs=differs,
    )


def _matters(entry: NotASetting, config: Config) -> bool:
    if type(config) not in entry.configs:
        return False
    if entry.only is None or not isinstance(config, SearchConfig):
        return True
    key, value = entry.only
    return bool(value_of(config, key) == value)


def _fixed(entry: NotASetting, config: Config, *, covered: bool, job: str) -> Deviation:
    """The line of something that has no setting.

    Args:
        covered: whether the 2020 code has such a job.
    """
    code_2019, code_2020 = entry.code_2019 or entry.ours, entry.code_2020 or entry.ours
    codes = [
        name
        for name, value in zip(PRESETS[1:], (code_2019, code_2020), strict=True)
        if value == entry.ours and (covered or name != "authors_2020")
    ]
    given, as_paper = entry.paper.value is not None, entry.paper.value == entry.ours
    status, differs = _status(entry.paper, given, as_paper, codes)
    return Deviation(
        job=job,
        key=entry.key,
        ours=entry.ours,
        paper=entry.paper.text,
        code_2019=code_2019,
        code_2020=code_2020 if covered else NOT_COVERED,
        why=entry.why,
        touches=entry.touches or TOUCHES[type(config)],
        status=status,
        differs=differs,
    )


def _status(paper: Says, given: bool, as_paper: bool, codes: list[Preset]) -> tuple[str, bool]:
    """How ours relates to its source, in words, and whether it differs from it.

    Args:
        given: whether the paper gives a value.
        codes: the authors' codes that have our value.
    """
    if given and as_paper:
        return "as the paper", False
    code = f"the {codes[0].removeprefix('authors_')} code" if codes else ""
    if given:
        return "not the paper's" + (f", but {code}'s" if code else ""), True
    said = "silent" if paper is SILENT else "not recorded" if paper is UNRECORDED else "unclear"
    if "authors_2019" in codes:
        return f"paper {said}; as {code}", False
    return f"paper {said}; not as the 2019 code" + (f", but as {code}" if code else ""), True


def value_of(config: Any, key: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        config = getattr(config, part)
    return config


def _text(value: object) -> str:
    match value:
        case None:
            return "not set"
        case float():
            return f"{value:g}"
        case tuple():
            return ", ".join(map(_text, value))
        case _:
            return str(value)
