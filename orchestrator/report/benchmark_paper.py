"""What the benchmark's own paper found, beside ours. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from gdas.bench201.genotype import Accuracy
from orchestrator.paper.benchmark import CIFAR10, SIZE
from orchestrator.report.parts import Part, Table
from orchestrator.store.results import Distribution

COLUMN: Accuracy = "cifar10_test_200"
"""The accuracies in which that paper gives them."""


def benchmark_paper(column: Accuracy, every: Distribution) -> list[Part]:
    """A table of its figures with the percentile of each mean; empty for other accuracies."""
    if column != COLUMN:
        return []
    rows = [
        [f.method, f"{f.mean:.2f} ± {f.sd:.2f}", f"{percentile_of(f.mean, every):.1f}"]
        for f in CIFAR10
    ]
    return [
        f"\nThe benchmark's own paper (ICLR 2020, Table 5) {SIZE}. Our searches are smaller and "
        "shorter, so these figures are beside ours, not against them. The last column is where a "
        "cell of the mean accuracy would stand.\n",
        Table(f"published-{column}", ["method", "accuracy, %: mean ± sd", "percentile"], rows),
    ]


def percentile_of(accuracy: float, every: Distribution) -> float:
    """The share of all cells that are worse, in percent, half of equal ones counted."""
    accuracies, cells = every["accuracies"], every["cells"]
    worse = sum(cells[: bisect_left(accuracies, accuracy)])
    as_good = sum(cells[: bisect_right(accuracies, accuracy)])
    return 50.0 * (worse + as_good) / sum(cells)
