"""What the measurement of one iteration counts."""

from __future__ import annotations

import torch

from gdas.cnn.measure import _Saved, measure_iterations
from gdas.data.arrow import Images
from tests.gdas.tiny import CPU, search_config


def test_running_all_operations_costs_more_time_and_keeps_more_memory(
    small_digits: Images,
) -> None:
    costs = measure_iterations(search_config(), small_digits, CPU, 2)
    fast, slow = costs["accelerated"], costs["all_operations"]
    assert set(fast) == {"seconds", "cpu_seconds", "saved_mib"}
    assert slow["saved_mib"] > 3 * fast["saved_mib"]
    assert slow["cpu_seconds"] > 2 * fast["cpu_seconds"]


def test_saved_memory_is_that_of_activations_each_counted_once() -> None:
    layer = torch.nn.Linear(256, 256, bias=False)
    x = torch.randn(1024, 256, requires_grad=True)
    count = _Saved(layer)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda kept: kept):
        out = (layer(x) + layer(x)).exp()
    assert count.mib == 2.0  # x once and the exponential, not the weights
    out.sum().backward()
