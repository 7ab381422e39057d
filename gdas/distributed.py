"""The workers of one training: a process's share of a batch, sums over workers, gradient averages.

Without `torch.distributed`, everything works as one worker. Batch sizes are global.

What is meant for buffers, which here are batch norm's running statistics: workers begin with worker
0's, keep their own during an epoch, and have worker 0's again at its end. PyTorch from 2.13 names
that `forward_sync_buffers=False`. Before, `broadcast_buffers=False` also leaves the buffers as they
are when the replica is made (read in the source of 2.9.1, run with 2.13.0 and 2.14.1), so they are
copied here. Given both, a PyTorch that knows both ignores the older one and warns.
"""

from __future__ import annotations

from inspect import signature
from typing import NamedTuple

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Workers(NamedTuple):
    """This process among the workers.

    Attributes:
        rank: its number, from 0.
        size: how many workers there are.
    """

    rank: int
    size: int

    def share(self, batch: int) -> slice:
        """This worker's rows of a global batch; shares differ by at most one row."""
        return slice(self.rank * batch // self.size, (self.rank + 1) * batch // self.size)

    def wrap(self, network: nn.Module) -> nn.Module:
        """Wrap a network to average its gradients; batch norm uses each worker's own share.

        Weights and statistics become worker 0's now; no later forward pass copies statistics.
        """
        if self.size == 1:
            return network
        if "forward_sync_buffers" in signature(DistributedDataParallel).parameters:
            return DistributedDataParallel(network, forward_sync_buffers=False)
        self.synchronise(network)
        return DistributedDataParallel(network, broadcast_buffers=False)

    def synchronise(self, network: nn.Module) -> None:
        """Copy worker 0's batch norm statistics to every worker."""
        if self.size > 1:
            state = network.state_dict()  # brings the counts of batches up to date
            for name, _ in network.named_buffers():
                dist.broadcast(state[name], 0)

    def add_up(self, values: Tensor) -> Tensor:
        """The sum of a CPU tensor over the workers."""
        if self.size == 1:
            return values
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        moved = values.to(device)
        dist.all_reduce(moved)
        return moved.cpu()


def workers() -> Workers:
    """This process's place; one worker if `torch.distributed` is not initialised."""
    if dist.is_available() and dist.is_initialized():
        return Workers(dist.get_rank(), dist.get_world_size())
    return Workers(0, 1)
