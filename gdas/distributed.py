"""The workers of one training: a process's share of a batch, sums over workers, gradient averages.

Without `torch.distributed`, everything works as one worker. Batch sizes are global.
"""

from __future__ import annotations

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
        """Wrap a network to average its gradients; batch norm uses each worker's own share."""
        if self.size == 1:
            return network
        # During an epoch each worker keeps its own running statistics; at the end,
        # synchronise() replaces them by worker 0's.
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
