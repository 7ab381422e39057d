"""One of two workers with statistics of its own: what test_replica.py starts and reads.

`tests.gdas.team` forks both and calls `main`.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gdas.cnn.norm import BatchNorm
from gdas.distributed import workers
from tests.gdas.team import joined


class Older(DistributedDataParallel):
    """As before PyTorch 2.13: `broadcast_buffers` alone, which leaves buffers as they are."""

    def __init__(self, module: nn.Module, broadcast_buffers: bool = True) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            super().__init__(module, broadcast_buffers=broadcast_buffers)


def means(older: bool) -> dict[str, list[float]]:
    """The running means of a network that is wrapped, trained for two steps and synchronised."""
    team = workers()
    norm = BatchNorm(3, momentum=0.5)
    norm.running_mean = torch.full((3,), 1.0 + team.rank)
    norm.weight = nn.Parameter(torch.full((3,), 1.0 + team.rank))
    wrapper = Older if older else DistributedDataParallel
    with patch("gdas.distributed.DistributedDataParallel", wrapper), warnings.catch_warnings():
        warnings.simplefilter("error")
        replica = team.wrap(norm)
    assert norm.running_mean is not None
    found = {"made": norm.running_mean.tolist(), "weight": norm.weight.tolist()}
    for _ in range(2):
        replica(torch.full((4, 3, 2, 2), 8.0 * team.rank)).sum().backward()
    found["trained"] = norm.running_mean.tolist()
    team.synchronise(norm)
    return found | {"synchronised": norm.running_mean.tolist()}


def main(rank: int, size: int, data_folder: Path, out: Path) -> None:
    with joined(rank, size, out):
        found = {"as installed": means(older=False), "older": means(older=True)}
    (out / f"worker{rank}.json").write_text(json.dumps(found))
    if rank == 0:
        torch.save({}, out / "without_norm.pt")
