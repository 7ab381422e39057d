"""experiments/README.md is what the settings say now."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from gdas.cnn.config import SearchConfig
from gdas.config import WeightUpdate
from gdas.rnn.config import TextTrainConfig
from orchestrator.experiment.config import FinalSpec, TrialResources
from orchestrator.experiment.load import EXPERIMENTS
from orchestrator.settings_page import alternatives, comments, intervals, page


def test_the_page_is_up_to_date() -> None:
    written = (EXPERIMENTS / "README.md").read_text(encoding="utf-8")
    hint = "run: python -m orchestrator.settings_page > experiments/README.md"
    assert written == page(), hint


def test_every_setting_and_every_experiment_is_on_the_page() -> None:
    text = page()
    for settings in (SearchConfig, TextTrainConfig, FinalSpec, TrialResources):
        for field in dataclasses.fields(settings):
            if field.name not in ("task",):
                assert f"`{field.name}`" in text or f"`{field.name}." in text, field.name
    for path in Path(EXPERIMENTS).glob("*.yaml"):
        assert f"]({path.name})" in text


def test_notes_are_the_comments_beside_and_above_a_field() -> None:
    assert comments(WeightUpdate)["lr_min"] == "cosine, per epoch"
    assert comments(WeightUpdate)["undrawn"].startswith("Whether weight decay and momentum")
    assert "lr" not in comments(WeightUpdate)


def test_ranges_are_beside_types_and_names_of_ranges_are_not_on_the_page() -> None:
    assert intervals(TrialResources) == {
        "cpus": "more than 0",
        "gpus": "0 or more",
        "threads": "1 or more, or null",
    }
    assert alternatives(WeightUpdate) == {
        "clip_scope": "weights or all",
        "undrawn": "decay or skip",
    }
    text = page()
    assert (
        "| `threads` | null | int \\| None | 1 or more, or null | null: as many as cpus |" in text
    )
    assert "| `hue` | 0.2 | float | from 0 to 0.5 |" in text
    assert "tuple[float, float, float]" in text
    assert not {"Positive", "OneOrMore", "Interval"} & set(re.findall(r"\w+", text))
