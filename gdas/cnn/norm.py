"""Batch norm that counts its batches on the host.

PyTorch's version adds 1 to a number on the device in every forward pass. In a step of the paper's
search these are 133 kernel launches, for a count that only a checkpoint reads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the same results, bit for bit, and the right count in its state_dict.

    Attributes:
        counts_on_host: False if captured graphs are replayed, which the host does not notice.
        uncounted: batches since `num_batches_tracked` was last brought up to date.
    """

    counts_on_host = True
    uncounted = 0

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Normalise as nn.BatchNorm2d does, over the batch while training."""
        # A compiled graph counts on the device, where this costs nothing; a count on the host would
        # make it compile again for every value.
        if not self.training or not self.counts_on_host or torch.compiler.is_compiling():
            return super().forward(x_BCHW)
        momentum = self.count_batch()
        return F.batch_norm(
            x_BCHW,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            True,
            momentum,
            self.eps,
        )

    def count_batch(self) -> float:
        """Count a batch, and return its weight in the running statistics.

        A momentum of None means a plain average over the batches.
        """
        self.uncounted += 1
        if self.momentum is not None:
            return self.momentum
        self.settle()
        assert self.num_batches_tracked is not None
        return 1.0 / float(self.num_batches_tracked)

    def settle(self) -> None:
        """Bring `num_batches_tracked` up to date."""
        if self.uncounted:
            assert self.num_batches_tracked is not None
            with torch.no_grad():
                self.num_batches_tracked.add_(self.uncounted)
            self.uncounted = 0

    def reset_running_stats(self) -> None:
        """Reset the statistics and both counts of batches."""
        super().reset_running_stats()
        self.uncounted = 0

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.settle()
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.uncounted = 0
