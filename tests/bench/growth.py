"""How a search step's cost grows over C, N and batch, beside its multiply-adds.

One of the three is changed at a time. Multiply-adds are those of the architectures that the
measured steps draw: a W step is a forward and twice that backward, an alpha step a forward and
once that backward, which needs no gradients of weights. What grows faster than its arithmetic is
found by kind of operation, from a profile of each size.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from gdas.architecture import draw_architecture
from gdas.cnn.space import ImageSpace
from gdas.metrics import count_multiply_adds
from gdas.randomness import generator
from tests.bench.operation_times import group_seconds
from tests.bench.plain import PlainSupernet
from tests.bench.search_step import (
    CLASSES,
    CPU,
    TAU,
    random_images,
    search_contenders,
    search_settings,
)
from tests.bench.timing import Size, compare, words

W_STEP, ALPHA_STEP = 3, 2
"""Passes of a forward pass's arithmetic."""
FASTER = 1.15
"""A cost that grows by this factor more than the multiply-adds is named."""
LEAST_SHARE = 0.03
"""Kinds of operations that take less of the time are not named: noise."""


def multiply_adds(size: Size, indices: range) -> float:
    """Multiply-adds of a W step and an alpha step, a mean over the draws of steps `indices`."""
    network = PlainSupernet(CLASSES, channels=size["channels"], normals_per_block=size["normals"])
    config = search_settings(**size)
    space = ImageSpace(config, random_images(2 * size["batch"]), CPU)
    logits = space.initial_logits(generator(config.seed, "logits"))
    image = torch.zeros(1, 3, 32, 32)
    totals = []
    for index in indices:
        total = 0
        for stream, passes in (("weights", W_STEP), ("alpha", ALPHA_STEP)):
            draw = generator(config.seed, f"gumbel of {stream}", 0, index)
            one = draw_architecture(
                logits, space.cell_types, config.sampler, TAU, draw, gate_device=CPU
            )
            total += passes * count_multiply_adds(network, image, one.picks, one.gates)
        totals.append(size["batch"] * total)
    return statistics.mean(totals)


def changed(base: Size, factors: Sequence[float]) -> list[tuple[str, Size]]:
    """The base, and it with each of its numbers changed."""
    sizes = [("base", base)]
    for key, value in base.items():
        sizes += [(key, {**base, key: max(1, round(value * factor))}) for factor in factors]
    return sizes


def measure(base: Size, *, factors: Sequence[float] = (2.0, 4.0), repeats: int) -> dict[str, Any]:
    """A row for every size, the sizes by turns; with one thread."""
    torch.set_num_threads(1)
    sizes = changed(base, factors)
    every = range(1, repeats + 1)  # step 0 warms up
    steps = {}
    for number, (_, size) in enumerate(sizes):
        built = search_contenders(**size, steps=repeats + 1, of=("ours",))
        steps[str(number)] = built["ours"]
    times = compare(steps, repeats=repeats, warm_up=1)
    rows = []
    for number, (key, size) in enumerate(sizes):
        groups: Counter[str] = Counter()
        for index in every:
            groups.update(group_seconds(steps[str(number)], index))
        timed = times[str(number)]
        # The draws differ from step to step: the mean time belongs to the mean multiply-adds.
        cpu = statistics.mean(map(sum, timed["cpu_seconds_of_repeats"]))
        row = {
            "changed": key,
            "size": size,
            "cpu_seconds": cpu,
            "wall_seconds": timed["wall_seconds"],
        }
        row["multiply_adds"] = multiply_adds(size, every)
        row["profile_seconds"] = {name: spent / repeats for name, spent in groups.items()}
        rows.append(row)
    for row in rows:
        row["cost_growth"] = row["cpu_seconds"] / rows[0]["cpu_seconds"]
        row["arithmetic_growth"] = row["multiply_adds"] / rows[0]["multiply_adds"]
        row["faster"] = faster(rows[0], row)
    return {"repeats": repeats, "threads": 1, "rows": rows}


def faster(base: dict[str, Any], row: dict[str, Any]) -> dict[str, float]:
    """The kinds of operations whose time grew more than the multiply-adds, and how much more."""
    arithmetic = row["multiply_adds"] / base["multiply_adds"]
    total = sum(row["profile_seconds"].values())
    found = {}
    for name, spent in row["profile_seconds"].items():
        before = base["profile_seconds"].get(name, 0.0)
        if before > 0 and spent / total >= LEAST_SHARE:
            more = spent / before / arithmetic
            if more >= FASTER:
                found[name] = more
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def show(result: dict[str, Any]) -> None:
    print(f"\na search step's growth; threads 1, mean of {result['repeats']} repeats")
    print(f"{'':>24}{'CPU s':>10}{'G mult-adds':>13}{'cost':>8}{'arithmetic':>12}  faster than it")
    for row in result["rows"]:
        named = ", ".join(f"{name} ({more:.1f})" for name, more in row["faster"].items()) or "-"
        print(
            f"{words(row['size']):>24}{row['cpu_seconds']:10.3f}{row['multiply_adds'] / 1e9:13.2f}"
            f"{row['cost_growth']:8.2f}{row['arithmetic_growth']:12.2f}  {named}",
            flush=True,
        )
