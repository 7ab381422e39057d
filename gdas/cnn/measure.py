"""Measure what one search iteration costs, with the paper's acceleration and without it.

Paper section 3.2, "Acceleration": running only the drawn operation saves a factor of K = 8 in time
and memory. Both ways run here alternately, on the same weights and images, with one W step and one
alpha step each. The median iteration counts.

Memory is what the backward pass keeps from the forward pass (activations), counted tensor by
tensor, so that it can be compared between devices. On a GPU, the allocator's peak is given too.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from gdas.cnn.config import SearchConfig
from gdas.cnn.space import ImageSpace
from gdas.compute import device_of
from gdas.data.source import ImageSource
from gdas.search import SearchSteps


def measure_iterations(
    config: SearchConfig, images: ImageSource, device: torch.device | str, iterations: int
) -> dict[str, dict[str, Any]]:
    """Measure the cost of an iteration, "accelerated" and with "all_operations".

    Args:
        iterations: how many of each are measured, after a first one that is not counted.

    Returns:
        For each way: `seconds` (median wall-clock time), `cpu_seconds` (median processor time of
        this process), `saved_mib` (the larger step's activations) and, on a GPU, `peak_mib`.
    """
    device = device_of(device)
    sampler = dataclasses.replace(config.sampler, scope="cell_instance", relaxation="hard")
    ways = {}
    for name, acceleration in (("accelerated", True), ("all_operations", False)):
        own = dataclasses.replace(
            config,
            sampler=dataclasses.replace(sampler, acceleration=acceleration),
            kernels="plain",  # fused ones run drawn operations alone, which would be no comparison
        )
        ways[name] = SearchSteps(own, ImageSpace(own, images, device))
    spent: dict[str, dict[str, list[float]]] = {
        name: {"seconds": [], "cpu_seconds": [], "saved_mib": [], "peak_mib": []} for name in ways
    }
    for i in range(iterations + 1):
        for name, way in ways.items():
            cost = _iteration(way, i, device)
            if i > 0:  # the first one warms up
                for key, value in cost.items():
                    spent[name][key].append(value)
    return {
        name: {
            key: max(values) if key.endswith("mib") else statistics.median(values)
            for key, values in lists.items()
            if values
        }
        for name, lists in spent.items()
    }


def _iteration(way: SearchSteps, i: int, device: torch.device) -> dict[str, float]:
    """The cost of one W step and one alpha step."""
    cuda = device.type == "cuda"
    steps = way.space.steps(0)
    tau = way.config.sampler.tau_start
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    saved = 0.0
    wall, processor = time.perf_counter(), time.process_time()
    for take in (way.weight_step, way.alpha_step):
        count = _Saved(way.space.weights)
        with saved_tensors_hooks(count, lambda kept: kept):
            take(0, i % steps, tau)
        saved = max(saved, count.mib)
    if cuda:
        torch.cuda.synchronize(device)
    cost = {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - processor,
        "saved_mib": saved,
    }
    if cuda:
        cost["peak_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    return cost


class _Saved:
    """Counts the memory that autograd keeps, each storage once, without the weights."""

    def __init__(self, weights: nn.Module) -> None:
        self.seen = {p.untyped_storage().data_ptr() for p in weights.parameters()}
        self.mib = 0.0

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.seen:
            self.seen.add(storage.data_ptr())
            self.mib += storage.nbytes() / 2**20
        return tensor
