"""Two workers train the language model that one would; interrupted is uninterrupted."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gdas.checkpoint import State
from tests.gdas.team import run_team
from tests.gdas.text_worker import training

Team = tuple[list[dict[str, Any]], State]


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Team:
    """Two processes run every scenario once."""
    out = tmp_path_factory.mktemp("team")
    return run_team("tests.gdas.text_worker", out, out)


def test_both_workers_yield_the_same_epochs_and_only_the_first_has_state(team: Team) -> None:
    first, second = (found["whole"] for found in team[0])
    assert [epoch[0] for epoch in first] == [1, 2, 3, 4, 5]
    assert [epoch[:3] for epoch in first] == [epoch[:3] for epoch in second]
    assert all(epoch[3] is not None for epoch in first)
    assert all(epoch[3] is None for epoch in second)
    assert [epoch[1]["averaging"] for epoch in first] == [0, 0, 1, 1, 1]
    assert "test/perplexity" in first[-1][1]


def test_interrupted_before_and_after_the_switch_they_end_as_if_left_alone(team: Team) -> None:
    for found in team[0]:
        assert found["interrupted"] == found["whole"]


def test_they_train_what_one_worker_does(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses weighted by uneven shares, averaged, cut and stepped: one worker's up to rounding."""
    monkeypatch.setattr("gdas.rnn.train.averaging_begins", None)  # the training sets its own
    alone = list(training())
    for segment, (_, metrics, details, _) in zip(alone, team[0][0]["whole"], strict=True):
        assert metrics == pytest.approx(segment.metrics, rel=1e-4)
        assert details == segment.details
    state: Any = alone[-1].state
    for kind in ("weights", "best"):
        for name, weight in state[kind].items():
            torch.testing.assert_close(team[1][kind][name], weight, rtol=1e-3, atol=1e-5, msg=name)
    for name, weight in state["mean"]["weights"].items():
        torch.testing.assert_close(
            team[1]["mean"]["weights"][name], weight, rtol=1e-3, atol=1e-5, msg=name
        )
