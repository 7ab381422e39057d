"""A network among workers: whose statistics count at the start, during an epoch and at its end."""

from __future__ import annotations

from typing import Any

import pytest
import torch.distributed as dist
from torch import nn

import gdas.distributed
from gdas.distributed import Workers
from tests.gdas.team import run_team


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each of two workers found; a warning of PyTorch's is an error there."""
    out = tmp_path_factory.mktemp("replicas")
    return run_team("tests.gdas.replica_worker", out, out)[0]


@pytest.mark.slow
@pytest.mark.parametrize("version", ["as installed", "older"])
def test_statistics_are_the_first_workers_at_both_ends_of_an_epoch_and_own_ones_between(
    version: str, both: list[Any]
) -> None:
    first, second = (found[version] for found in both)
    assert first["weight"] == second["weight"] == [1.0] * 3
    assert first["made"] == second["made"] == [1.0] * 3
    # Two steps of momentum 0.5 from 1 towards 0, and towards 8.
    assert (first["trained"], second["trained"]) == ([0.25] * 3, [6.25] * 3)
    assert first["synchronised"] == second["synchronised"] == [0.25] * 3


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The broadcasts, as (shape, from); nothing is sent."""
    log: list[Any] = []
    monkeypatch.setattr(dist, "broadcast", lambda x, rank: log.append((list(x.shape), rank)))
    return log


def test_a_newer_pytorch_copies_statistics_when_the_replica_is_made(
    happened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the signature of 2.14.1, where the older option warns, and is ignored beside the newer."""

    def newer(
        module: nn.Module,
        *,
        broadcast_buffers: bool | None = None,
        forward_sync_buffers: bool | None = None,
    ) -> nn.Module:
        happened.append({"older": broadcast_buffers, "newer": forward_sync_buffers})
        return module

    monkeypatch.setattr(gdas.distributed, "DistributedDataParallel", newer)
    Workers(1, 2).wrap(nn.BatchNorm2d(2))
    assert happened == [{"older": None, "newer": False}]


def test_an_older_pytorch_leaves_that_copy_to_us(
    happened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the signature of 2.9.1."""

    def older(module: nn.Module, broadcast_buffers: bool = True) -> nn.Module:
        happened.append(broadcast_buffers)
        return module

    monkeypatch.setattr(gdas.distributed, "DistributedDataParallel", older)
    Workers(1, 2).wrap(nn.BatchNorm2d(2))
    assert happened == [([2], 0), ([2], 0), ([], 0), False]
