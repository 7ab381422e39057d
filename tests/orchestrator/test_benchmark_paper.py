"""What the paper of NAS-Bench-201 found stands beside ours, only where accuracies are the same."""

from __future__ import annotations

import pytest

from orchestrator.report.benchmark_paper import benchmark_paper, percentile_of
from orchestrator.report.parts import Table
from orchestrator.store.results import Distribution

EVERY: Distribution = {
    "accuracies": [54.30, 90.0, 93.61, 94.0],
    "cells": [2, 5, 1, 2],
    "function_percentile": 40.0,
}


@pytest.mark.parametrize(
    ("accuracy", "percentile"),
    [(10.0, 0.0), (54.30, 10.0), (87.66, 20.0), (93.61, 75.0), (99.0, 100.0)],
)
def test_a_percentile_is_the_share_of_worse_cells_with_half_of_equal_ones(
    accuracy: float, percentile: float
) -> None:
    assert percentile_of(accuracy, EVERY) == percentile


def test_its_figures_stand_beside_the_accuracies_that_they_are_of() -> None:
    said, table = benchmark_paper("cifar10_test_200", EVERY)
    assert isinstance(said, str) and "250 epochs" in said
    assert isinstance(table, Table)
    assert table.rows[0] == ["GDAS", "93.61 ± 0.09", "75.0"]
    assert table.rows[1] == ["DARTS, first order", "54.30 ± 0.00", "10.0"]
    assert benchmark_paper("cifar10_test_12", EVERY) == []
