"""Two workers train what one would: global batches, equal weights, exact resumption."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import gdas.cnn.train
from gdas.checkpoint import State
from gdas.data.arrow import Images
from gdas.distributed import Workers, workers
from gdas.errors import InputError
from tests.gdas.team import run_team
from tests.gdas.worker import CONFIG, run_whole, run_without_norm, tagged, training


class Team(NamedTuple):
    """What each of the two workers found, and the first one's state without batch norm."""

    found: list[dict[str, Any]]
    without_norm: State


@pytest.fixture(scope="module")
def team(digits: Images, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Team:
    """Two processes run every scenario once; `digits` has been converted before they start."""
    out = tmp_path_factory.mktemp("team")
    return Team(*run_team("tests.gdas.worker", data_folder, out))


@pytest.fixture(scope="module")
def alone(digits: Images) -> dict[str, Any]:
    """The same training by one worker, in this process."""
    return run_whole(tagged(digits))


@pytest.mark.slow
def test_every_worker_yields_equally_often_and_only_the_first_has_state(team: Team) -> None:
    first, second = (found["whole"]["epochs"] for found in team.found)
    assert [epoch["position"] for epoch in first] == [1, 2, 3]
    assert [epoch["position"] for epoch in second] == [1, 2, 3]
    assert all(epoch["state"] is not None for epoch in first)
    assert all(epoch["state"] is None for epoch in second)


@pytest.mark.slow
def test_both_workers_have_the_same_weights_and_metrics_after_every_epoch(team: Team) -> None:
    first, second = (found["whole"]["epochs"] for found in team.found)
    for key in ("weights", "metrics"):
        assert [epoch[key] for epoch in first] == [epoch[key] for epoch in second]
    assert len({epoch["weights"] for epoch in first}) == 3


@pytest.mark.slow
def test_two_interrupted_workers_end_as_two_uninterrupted_ones(team: Team) -> None:
    for found in team.found:
        assert found["interrupted"] == found["whole"]["epochs"]


@pytest.mark.slow
def test_both_together_use_the_images_and_moves_of_one_worker_in_every_step(
    team: Team, alone: dict[str, Any]
) -> None:
    shares = [found["whole"]["steps"] for found in team.found]
    assert [len(rows) for rows in alone["steps"]] == [15, 15, 15, 5] * 3
    assert len(shares[0]) == len(shares[1]) == 12
    assert [[len(rows) for rows in share[:4]] for share in shares] == [[7, 7, 7, 2], [8, 8, 8, 3]]
    for first, second, whole in zip(*shares, alone["steps"], strict=True):
        assert first + second == whole
    epochs = [list(chain(*alone["steps"][4 * e : 4 * e + 4])) for e in range(3)]
    for rows in epochs:
        assert sorted(row[0] for row in rows) == list(range(50)), "every image once an epoch"
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.slow
def test_without_batch_norm_two_workers_train_the_weights_that_one_does(
    team: Team, digits: Images
) -> None:
    """Losses weighted by uneven shares, averaged, cut and stepped: one worker's up to rounding."""
    alone, state = run_without_norm(tagged(digits))
    assert state is not None
    for found in team.found:
        assert found["without norm"]["metrics"] == pytest.approx(alone["metrics"], rel=1e-4)
    for name, weight in state["weights"].items():
        torch.testing.assert_close(
            team.without_norm["weights"][name], weight, rtol=1e-3, atol=1e-5, msg=name
        )
    for i, entry in state["optimizer"]["state"].items():
        torch.testing.assert_close(
            team.without_norm["optimizer"]["state"][i]["momentum_buffer"],
            entry["momentum_buffer"],
            rtol=1e-3,
            atol=1e-5,
        )


@pytest.mark.slow
def test_where_one_worker_diverges_all_stop_and_say_so(team: Team) -> None:
    for found in team.found:
        assert "GDAS_F1, epoch 1" in found["diverging"]


def test_one_worker_needs_no_process_group() -> None:
    assert workers() == Workers(0, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 16])
def test_shares_cover_every_row_exactly_once_and_are_even_to_one_row(size: int) -> None:
    for batch in [*range(70), 96, 127, 128, 1000]:
        rows = list(range(batch))
        shares = [rows[Workers(rank, size).share(batch)] for rank in range(size)]
        assert list(chain(*shares)) == rows
        lengths = [len(share) for share in shares]
        assert max(lengths) - min(lengths) <= 1


def test_fewer_images_than_two_a_worker_are_refused(
    digits: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gdas.cnn.train, "workers", lambda: Workers(0, 26))
    with pytest.raises(InputError, match="50 training images are too few for 26 workers"):
        next(training(CONFIG, tagged(digits)))
