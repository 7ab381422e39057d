"""What the paper of NAS-Bench-201 found with the methods that are compared here.

Source: Dong and Yang, "NAS-Bench-201", ICLR 2020, Table 5, as several later papers print it
(TE-NAS, 2021, among others). Accuracies of GDAS differ by a few tenths between versions and papers
that repeat them (93.2 to 93.6).
"""

from __future__ import annotations

from typing import NamedTuple

SIZE = (
    "at full size: 16 channels, five cells a stage, 250 epochs on a GPU, all images of CIFAR-10, "
    "three runs each"
)


class Found(NamedTuple):
    """A method's cells on CIFAR-10, trained for 200 epochs: top-1 on the test images, %."""

    method: str
    mean: float
    sd: float


CIFAR10 = (
    Found("GDAS", 93.61, 0.09),
    Found("DARTS, first order", 54.30, 0.00),
    Found("random search with shared weights (RSPS)", 87.66, 1.69),
)
