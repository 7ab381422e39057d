"""Write experiments/README.md from the settings: their defaults and their sources.

    python -m orchestrator.settings_page > experiments/README.md

A test checks that the page is up to date.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gdas.cnn.config import Derivation, SearchConfig, SupernetConfig, TrainConfig
from gdas.config import AlphaUpdate, SamplerConfig, WeightUpdate
from gdas.data.settings import ImageData, PhotoData, TextData
from gdas.presets import SEARCH_PRESETS, TEXT_SEARCH_PRESETS, image_train_preset, text_train_preset
from gdas.rnn.config import Dropouts, TextSearchConfig, TextTrainConfig
from gdas.settings import Interval, ranges
from gdas.sources import NOT_SOURCED, SOURCES
from orchestrator.experiment.config import (
    CellSource,
    Experiment,
    FinalSpec,
    MeasureSpec,
    MlflowSpec,
    PaperRow,
    SearchSpec,
    TrainResources,
    TrialResources,
)
from orchestrator.experiment.load import EXPERIMENTS
from orchestrator.paper.deviations import value_of
from orchestrator.terminal.command import command_parser, run_command

HEAD = """# Experiments and settings

*Written by `python -m orchestrator.settings_page > experiments/README.md`; change the settings or
the experiments, not this page.*

An experiment is a YAML file. What a file does not set comes from its `preset` (default: `paper`),
and the command line changes any of it by its dotted key:

    python -m orchestrator.reproduce_paper FILE searches.NAME.recipe.epochs=5 final.recipe.lr=0.1

`search`, `proxy` and `final` have the settings that all searches, proxy trainings and finals on
images share; `text_search`, `text_proxy` and `text_final` have those for text. An unknown key, or a
value of the wrong type or out of range, is refused before anything starts.
"""

RECIPES: tuple[tuple[str, type, Mapping[Any, Any]], ...] = (
    ("A search on images: `searches.NAME.recipe`", SearchConfig, SEARCH_PRESETS),
    (
        "A training on images: `finals.NAME.recipe`, `searches.NAME.proxy`",
        TrainConfig,
        {name: image_train_preset(name, "cifar10") for name in SEARCH_PRESETS},
    ),
    ("A search on text: `searches.NAME.recipe`", TextSearchConfig, TEXT_SEARCH_PRESETS),
    (
        "A training on text: `finals.NAME.recipe`, `searches.NAME.proxy`",
        TextTrainConfig,
        {name: text_train_preset(name, "ptb") for name in TEXT_SEARCH_PRESETS},
    ),
)
PARTS: dict[str, type] = {
    "network": SupernetConfig,
    "weights": WeightUpdate,
    "alpha": AlphaUpdate,
    "sampler": SamplerConfig,
    "derivation": Derivation,
    "dropouts": Dropouts,
}
OTHERS: tuple[tuple[str, type], ...] = (
    ("The whole file", Experiment),
    ("`searches.NAME`", SearchSpec),
    ("`finals.NAME`", FinalSpec),
    ("`finals.NAME.cell`: exactly one of", CellSource),
    ("`finals.NAME.row`: the paper's numbers that it is compared with", PaperRow),
    ("`measures.NAME`", MeasureSpec),
    ("`searches.NAME.resources`, `proxy_resources`, `measures.NAME.resources`", TrialResources),
    ("`finals.NAME.resources`", TrainResources),
    ("`mlflow`", MlflowSpec),
    ("`data` of arrays (CIFAR, digits)", ImageData),
    ("`data` of photos", PhotoData),
    ("`data` of text", TextData),
)


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD, "\n## Experiments\n"]
    for path in sorted(EXPERIMENTS.glob("*.yaml")):
        parts.append(f"\n### [{path.stem}]({path.name})\n\n{_opening(path)}\n")
    parts.append("\n## Recipes\n\nEvery setting that can change a result, with its value in each ")
    parts.append("preset and where the default comes from.\n")
    for title, config, presets in RECIPES:
        parts.append(f"\n### {title}\n\n{_recipe(config, presets)}")
    parts.append("\n## Everything else\n\nResources and tracking do not change a job's id.\n")
    for title, settings in OTHERS:
        parts.append(f"\n### {title}\n\n{_first_line(settings)}\n\n{_fields(settings)}")
    return "".join(parts)


def _opening(path: Path) -> str:
    """The comment at the top of an experiment's file, as Markdown."""
    lines: list[str] = []
    fenced = False
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").removeprefix(" ")
        command = line.startswith("#   ")
        if command != fenced:
            lines.append("```sh" if command else "```")
            fenced = command
        if not line.startswith("#"):
            break
        lines.append(text.strip() if command else text)
    return "\n".join(lines)


def _recipe(config: type, presets: Mapping[Any, Any]) -> str:
    sources = {source.key: source for source in SOURCES.get(config, ())}
    without = NOT_SOURCED.get(config, {})
    meaning, allowed = comments(config), alternatives(config) | intervals(config)
    for part, settings in PARTS.items():
        meaning |= {f"{part}.{key}": text for key, text in comments(settings).items()}
        of_part = alternatives(settings) | intervals(settings)
        allowed |= {f"{part}.{key}": text for key, text in of_part.items()}
    rows = []
    for key in _keys(next(iter(presets.values()))):
        values = [_text(value_of(preset, key)) for preset in presets.values()]
        source = sources.get(key)
        paper = source.paper.text if source else ""
        why = source.why if source else without.get(key, "")
        range_and_note = allowed.get(key, ""), meaning.get(key, "")
        rows.append([f"`{key}`", *values, paper, why, *range_and_note])
    names = [f"`{name}`" for name in presets]
    return _table(["setting", *names, "the paper says", "source", "range", "note"], rows)


def _keys(settings: Any, prefix: str = "") -> list[str]:
    """The dotted keys of settings; of a data set's constants, only the name."""
    keys = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name == "data":
            keys.append(f"{prefix}data.name")
        elif dataclasses.is_dataclass(value):
            keys += _keys(value, f"{prefix}{field.name}.")
        elif field.name != "task":
            keys.append(f"{prefix}{field.name}")
    return keys


def _fields(settings: type) -> str:
    meaning, allowed = comments(settings), intervals(settings)
    rows = []
    for field in dataclasses.fields(settings):
        if field.default is not dataclasses.MISSING:
            default = _text(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            default = "its own defaults"
        else:
            default = "no default"
        key = field.name
        of_type = _type(str(field.type), settings), allowed.get(key, "")
        rows.append([f"`{key}`", default, *of_type, meaning.get(key, "")])
    return _table(["setting", "default", "type", "range", "note"], rows)


def intervals(settings: type) -> dict[str, str]:
    """The interval of each field that has one, as text."""
    return {
        key: f"{interval}, or null" if optional else str(interval)
        for key, (interval, optional) in ranges(settings).items()
    }


def alternatives(settings: type) -> dict[str, str]:
    """The values of each field that takes one of a few words."""
    hints = get_type_hints(settings)
    return {
        key: " or ".join(map(str, get_args(hint)))
        for key, hint in hints.items()
        if get_origin(hint) is Literal
    }


def _type(written: str, settings: type) -> str:
    """A field's type as in the source, without its interval, which has its own column."""
    written = re.sub(r"Annotated\[(\w+), Interval\([^)]*\)\]", r"\1", written)
    for name, value in vars(sys.modules[settings.__module__]).items():
        plain, *about = get_args(value) or (None,)
        if any(isinstance(part, Interval) for part in about):
            written = re.sub(rf"\b{name}\b", plain.__name__, written)
    return written


def comments(settings: type) -> dict[str, str]:
    """The comment beside or above each field of a dataclass, from the source."""
    found: dict[str, str] = {}
    names = {field.name for field in dataclasses.fields(settings)}
    above: list[str] = []
    for raw in inspect.getsource(settings).splitlines():
        line = raw.strip()
        name = line.partition(":")[0]
        if line.startswith("#"):
            above.append(line.lstrip("# "))
        elif name in names and name not in found:
            beside = line.partition("  # ")[2]
            found[name] = beside or " ".join(above)
            above = []
        else:
            above = []
    return {name: text for name, text in found.items() if text}


def _first_line(settings: type) -> str:
    return inspect.cleandoc(settings.__doc__ or "").splitlines()[0]


def _text(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(header: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"

    return line(header) + line(["---"] * len(header)) + "".join(map(line, rows))


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    return command_parser(
        "orchestrator.settings_page",
        "Print experiments/README.md, made from the experiments and the settings.",
        "example:\n  python -m orchestrator.settings_page > experiments/README.md",
        done="printed",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(parser(), _print, arguments)


def _print(_: argparse.Namespace) -> int:
    sys.stdout.write(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
