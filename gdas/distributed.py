"""Workers of one training: this process's share of a batch, sums over all, DistributedDataParallel.

Everything works without `torch.distributed`, as one worker. Batch sizes are global.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Workers(NamedTuple):
    """This process among the workers."""

    rank: int
    size: int

    def share(self, batch: int) -> slice:
        """This worker's rows of a global batch; shares differ by one row at the most."""
        return slice(self.rank * batch // self.size, (self.rank + 1) * batch // self.size)

    def wrap(self, network: nn.Module) -> nn.Module:
        """Average gradients over the workers; batch norm uses each worker's own share."""
        if self.size == 1:
            return network
        # Running statistics stay each worker's own during an epoch; synchronise() makes them
        # worker 0's at its end.
        return DistributedDataParallel(network, broadcast_buffers=False)

    def synchronise(self, network: nn.Module) -> None:
        """Give every worker worker 0's batch-norm statistics."""
        if self.size > 1:
            state = network.state_dict()  # brings the counts of batches up to date
            for name, _ in network.named_buffers():
                dist.broadcast(state[name], 0)

    def add_up(self, values: Tensor) -> Tensor:
        """Sum of a CPU tensor over the workers."""
        if self.size == 1:
            return values
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        moved = values.to(device)
        dist.all_reduce(moved)
        return moved.cpu()


def workers() -> Workers:
    """This process's place; one worker where `torch.distributed` is not initialised."""
    if dist.is_available() and dist.is_initialized():
        return Workers(dist.get_rank(), dist.get_world_size())
    return Workers(0, 1)


def unwrap(network: nn.Module) -> nn.Module:
    """The network under torch.compile and DistributedDataParallel."""
    network = getattr(network, "_orig_mod", network)
    inner = network.module if isinstance(network, DistributedDataParallel) else network
    return getattr(inner, "_orig_mod", inner)
