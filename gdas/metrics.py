"""What the paper's tables count: parameters, multiply-adds, top-k.

Decision: parameters leave out the auxiliary head; multiply-adds count only convolutions and
products of matrices (with their biases, without batch norm and pooling), at batch 1 in evaluation
mode. The authors' code counts in the same way, so the figures can be compared with the paper's.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gdas.counting import evaluating, multiply_adds


def count_parameters(module: nn.Module, *, without: str | None = "auxiliary") -> int:
    """The number of parameters, leaving out the child module called `without`."""
    return sum(
        p.numel()
        for name, p in module.named_parameters()
        if without is None or not name.startswith(f"{without}.")
    )


def count_multiply_adds(module: nn.Module, *inputs: object) -> int:
    """The multiply-adds of one forward pass in evaluation mode.

    Args:
        module: any module; it and its parts return to the modes that they were in.
        inputs: its arguments, such as an image tensor of batch 1, possibly on the meta device.

    Raises:
        InputError: the module has an operation that is neither counted nor known to multiply
            nothing; the error names it.
    """
    with evaluating(module):
        return multiply_adds(module, *inputs)


def correct_top_k(scores_BK: Tensor, labels_B: Tensor, k: int) -> Tensor:
    """How many samples have their label among the `k` highest scores; a scalar on the device."""
    top_Bk = scores_BK.topk(k, dim=1).indices
    return (top_Bk == labels_B[:, None]).any(dim=1).sum()


class BatchLoss(NamedTuple):
    """A batch's mean loss, and what an epoch sums up; tensors are scalars on the device.

    Attributes:
        loss: the loss that is minimised.
        samples: how many images or tokens there are.
        correct: how many are classified correctly; None for language models.
        reported: the loss without regularisation, if it differs from `loss`.
        correct5: how many labels are among the five highest scores, if that is counted.
        draws: how many networks were drawn for the batch, in spaces that have the operation `none`.
        no_path: in how many of these no path reaches the output, so that the loss has no gradient.
    """

    loss: Tensor
    samples: int
    correct: Tensor | None = None
    reported: Tensor | None = None
    correct5: Tensor | None = None
    draws: int = 0
    no_path: int = 0


class EpochSums:
    """The loss and hits of an epoch, summed on the device and read once, at its end.

    Args:
        top5: whether every batch counts `correct5` too.
        classifies: whether batches count `correct`; a worker without any batch cannot see that.
    """

    def __init__(self, *, top5: bool = False, classifies: bool = True) -> None:
        self.top5 = top5
        self.classifies = classifies
        self.loss: Tensor | float = 0.0
        self.correct: Tensor | int = 0
        self.correct5: Tensor | int = 0
        self.samples = 0
        self.draws = 0
        self.no_path = 0

    def add(self, batch: BatchLoss) -> None:
        """Add a batch, without waiting for the device."""
        reported = batch.loss if batch.reported is None else batch.reported
        self.loss = self.loss + reported.detach().double() * batch.samples
        if batch.correct is None:
            self.classifies = False
        else:
            self.correct = self.correct + batch.correct
        if batch.correct5 is not None:
            self.correct5 = self.correct5 + batch.correct5
        self.samples += batch.samples
        self.draws += batch.draws
        self.no_path += batch.no_path

    def totals(self) -> Tensor:
        """Sums of losses, hits, hits among five, and samples, for workers to add; on the CPU."""
        hits = (float(self.correct), float(self.correct5))
        values = (float(self.loss), *hits, float(self.samples))
        return torch.tensor(values, dtype=torch.float64)

    def metrics(self, split: str, totals_4: Tensor | None = None) -> dict[str, float]:
        """Mean loss with top-1 (and top-5) in percent or perplexity, and draws if they are counted.

        Args:
            split: the first part of the metrics' names, such as "train".
            totals_4: the sum of all workers' totals, if there are several workers.
        """
        totals = self.totals() if totals_4 is None else totals_4
        loss, correct, correct5, samples = totals.tolist()
        mean = loss / samples
        found: dict[str, float] = {}
        if self.draws:
            found = {f"{split}/draws": float(self.draws), f"{split}/no_path": float(self.no_path)}
        if self.classifies:
            found |= {f"{split}/loss": mean, f"{split}/top1": 100.0 * correct / samples}
            return found | ({f"{split}/top5": 100.0 * correct5 / samples} if self.top5 else {})
        perplexity = math.exp(mean) if mean < 700 else math.inf
        return found | {f"{split}/loss": mean, f"{split}/perplexity": perplexity}


def require_finite(metrics: dict[str, float], where: str, rates: str) -> None:
    """Raise FloatingPointError if a metric is NaN or infinite.

    Args:
        where: the loop and its epoch, for the error.
        rates: the settings of the learning rates with their values in this epoch.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise FloatingPointError(f"{where}: {name} is {value}{diverged(rates)}")


def diverged(rates: str) -> str:
    """The end of an error's sentence: the likely cause, and what to change."""
    return f" at {rates}: the run has diverged; lower the rate"
