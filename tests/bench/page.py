"""The results' page, tests/bench/RESULTS.md: written from the JSON beside it and nothing else.

Every part keeps the machine and the versions that it was measured with, so that parts can be
measured again one by one. What was not measured is not on the page.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torchvision

from gdas.files import write_json
from tests.bench import fused
from tests.bench.orchestration import lines
from tests.bench.threads import WAYS
from tests.bench.timing import headline, words

INTRODUCTION = (
    "Written by `make bench`; every figure, of every repeat, is in `results.json` beside this "
    "page. What was not measured is not here."
)
TRIAL = (
    "**Not a measurement**: sizes to try the benchmark out. `make bench` writes this page with "
    "figures that mean something."
)

REMARKS = {
    "search": (
        "Done about the profile: dilated and wide depthwise convolutions go back on denser tensors "
        "(`gdas.cnn.rearrange`), a cell's output is made dense and activated once, gates of value "
        "one cost no product, the alpha step computes no weights' gradients. Left are passes bound "
        "by memory: pointwise convolutions, batch norm, ReLU, additions. Tried without gain: "
        "pointwise convolutions as products of matrices, batch norm folded into them by their "
        "input's covariance, one ReLU of a state for all operations on it, "
        "`torch.compile` of every operation (0.6 to 2 times its CPU time, mostly more)."
    ),
    "train": "The same was done as for the search step; drop path costs a product for each branch.",
    "text": (
        "`aten::mm` is the cell's and the decoder's own arithmetic. A matrix of the cell gets its "
        "gradient from one product over all time steps (`gdas.rnn.over_time`), not one for each. "
        "In a search the W step takes no gates and the alpha step no weights' gradients."
    ),
    "waiting": (
        "Jobs have `OMP_WAIT_POLICY=passive`. By the default a thread that waits for another one "
        "spins, and takes the core from the very thread that it waits for."
    ),
    "threads": (
        "So a job has one thread unless its resources give it more CPUs: `threads` follows `cpus`."
    ),
}
"""What was done about what a part shows."""
UNMEASURED = (
    "For GPUs there are the settings `precision: bfloat16`, `channels_last` and `compile`; none of "
    "them was measured on one. Steps wait for the device nowhere (W) and once (alpha), by a test."
)


def machine() -> dict[str, str]:
    """What the figures depend on."""
    return {
        "processor": _processor(),
        "cores": f"{os.cpu_count()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "versions": (
            f"Python {platform.python_version()}, PyTorch {torch.__version__}, torchvision "
            f"{torchvision.__version__}, NumPy {np.__version__}, Arrow {pa.__version__}"
        ),
        "load": f"{os.getloadavg()[0]:.1f} at the start",
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or "unknown"


def keep(path: Path, part: str, content: dict[str, Any]) -> dict[str, Any]:
    """Put one part into the JSON file, beside those that are there; returns all."""
    parts: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    parts[part] = content
    write_json(path, parts)
    return parts


def render(parts: dict[str, Any]) -> str:
    """The page."""
    blocks = ["# Benchmarks", INTRODUCTION, UNMEASURED]
    sections = {
        "search": _steps,
        "train": _steps,
        "imagenet": _steps,
        "text": _steps,
        "data": _data,
        "threads": _threads,
        "growth": _growth,
        "orchestration": _orchestration,
        "fused": _fused,
        "waiting": _waiting,
    }
    for part, section in sections.items():
        if part in parts:
            content = parts[part]
            trial = [TRIAL] if content["size_name"] == "tiny" else []
            blocks += [f"## {part}", *trial, _about(content["machine"]), *section(content)]
            blocks += [REMARKS[part]] if part in REMARKS else []
            blocks += [content["note"]] if "note" in content else []
    return "\n\n".join(blocks) + "\n"


def _about(of: dict[str, str]) -> str:
    return (
        f"{of['processor']}, {of['cores']} cores, {of['memory']}, {of['system']}; load "
        f"{of['load']}. {of['versions']}. {of['measured']}."
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _steps(content: dict[str, Any]) -> list[str]:
    blocks = []
    for result in content["results"]:
        blocks.append(
            f"**{result['title']}**, threads {result['threads']}, medians of "
            f"{result['repeats']} repeats"
        )
        rows = []
        for name in ("plain", "ours", "every operation"):
            if name not in result:
                continue
            row, memory = result[name], result[name].get("memory")
            times = [f"{s:.3f}" for s in row.get("cpu_seconds_of_parts", [])]
            times += [f"{row[key]:.3f}" for key in ("cpu_seconds", "wall_seconds") if key in row]
            blank = ["not timed"] * (len(result["parts"]) + 2 - len(times))
            peaks = [f"{memory[key]:.0f}" if memory else "" for key in ("peak_mib", "step_mib")]
            rows.append([name, *times, *blank, *peaks])
        heads = ["", *(f"{part}, CPU s" for part in result["parts"]), "CPU s", "wall s"]
        blocks.append(_table([*heads, "peak MiB", "of it the step's"], rows))
        blocks.append(
            f"`{headline(result)}` ({result['ratio_lowest']:.2f} to {result['ratio_highest']:.2f})"
        )
        if "every operation" in result:
            of = {n: result[n]["memory"]["step_mib"] for n in ("every operation", "ours")}
            factor = of["every operation"] / of["ours"]
            blocks.append(f"The paper's acceleration saves a factor of {factor:.1f} in memory.")
        if "top" in result:
            named = ", ".join(f"{name} {100 * share:.0f} %" for name, share in result["top"])
            blocks.append(f"Ours spends its time in: {named}.")
    return blocks


def _data(content: dict[str, Any]) -> list[str]:
    blocks = []
    for result in content["results"]:
        titles = {
            "augmentation": f"Augmentation of {result['arrays']} CIFAR-sized images",
            "reading": f"Reading {result['photos']} small photos (the built-in digits)",
        }
        for key, title in titles.items():
            rows = [
                [name, f"{r['images_per_second']:.0f}", f"{r['images_per_cpu_second']:.0f}"]
                for name, r in result[key].items()
            ]
            blocks.append(f"**{title}**, medians of {result['repeats']} repeats")
            blocks.append(_table(["", "images/s", "images/s per core"], rows))
    return blocks


def _threads(content: dict[str, Any]) -> list[str]:
    blocks = []
    for result in content["results"]:
        rows = [
            [n, f"{result[n]['steps_per_second']:.3f}", f"{result[n]['cpu_seconds_per_step']:.3f}"]
            for n in WAYS
        ]
        blocks.append(f"Search steps of {words(result['size'])}; {result['repeats']} rounds")
        blocks.append(_table(["", "steps/s", "CPU s a step"], rows))
        factor = result["two_processes_over_one"]
        blocks.append(f"Two processes with one thread each do {factor:.2f} times one's work.")
    return blocks


def _growth(content: dict[str, Any]) -> list[str]:
    blocks = []
    for result in content["results"]:
        if "workers" in result:
            blocks += _workers(result)
            continue
        rows = [
            [
                words(row["size"]),
                f"{row['cpu_seconds']:.3f}",
                f"{row['multiply_adds'] / 1e9:.2f}",
                f"{row['cost_growth']:.2f}",
                f"{row['arithmetic_growth']:.2f}",
                ", ".join(f"{name} ({more:.1f})" for name, more in row["faster"].items()) or "-",
            ]
            for row in result["rows"]
        ]
        heads = ["search step", "CPU s", "10⁹ multiply-adds", "cost grew", "they grew"]
        blocks.append(_table([*heads, "grew faster than they (how much more)"], rows))
    return blocks


def _workers(result: dict[str, Any]) -> list[str]:
    rows = [
        [f"{row['workers']}", *(f"{row[key]:.3f}" for key in ("cpu_seconds", "wall_seconds"))]
        + [f"{row[key]:.2f}" for key in ("cost_growth", "speed")]
        for row in result["workers"]
    ]
    heads = ["workers", "CPU s", "wall s", "cost grew", "speed grew"]
    title = (
        f"**A training step of one batch, shared out: {words(result['size'])}**, one thread each"
    )
    return [f"{title}, medians of {result['repeats']} rounds", _table(heads, rows)]


def _fused(content: dict[str, Any]) -> list[str]:
    blocks: list[str] = []
    for result in content["results"]:
        if "kernels" in result and not blocks:
            blocks.append(f"Kernels: {result['kernels'].rpartition(',')[0]}.")
        blocks.append("\n".join(f"- {line}" for line in fused.lines(result)))
    return blocks


def _waiting(content: dict[str, Any]) -> list[str]:
    blocks = []
    for result in content["results"]:
        blocks.append(
            f"A search step in plain PyTorch of {words(result['size'])} with 2 threads; "
            f"{result['repeats']} rounds, medians"
        )
        rows = [
            [
                f"{row['way']}, beside {row['busy']} busy processes",
                f"{row['cpu']:.2f} ({row['cpu_lowest']:.2f} to {row['cpu_highest']:.2f})",
                f"{row['wall']:.2f}",
            ]
            for row in result["rows"]
        ]
        blocks.append(_table(["waiting threads", "CPU s a step", "wall s"], rows))
    return blocks


def _orchestration(content: dict[str, Any]) -> list[str]:
    return ["\n".join(f"- {line}" for line in lines(result)) for result in content["results"]]
