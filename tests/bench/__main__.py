"""Benchmarks, by parts:

    python -m tests.bench [search train text data threads growth orchestration imagenet
                           fused waiting]
                          [--size paper]

Without names all parts but `imagenet`, `fused` and `waiting`. Prints tables and, with --page,
writes them to a page and all figures to results.json beside it; parts that are not measured now
stay as they are there.

search, train, imagenet, text: steps beside plain PyTorch: time, memory, what takes the time.
data: augmentation and reading beside torchvision. threads: one process or two on two cores.
growth: a search step's cost over C, N and batch, a training step's over workers. orchestration:
four searches by the command: start, waiting, saving, memory. fused: steps with the fused kernels
and without, under ten minutes. waiting: threads that spin or sleep, alone and beside others.

Nothing else should run meanwhile. All run in the environment of a job's process.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from gdas.compute import spare_what_is_loaded
from orchestrator.run import AT_START
from tests.bench import (
    data,
    fused,
    growth,
    orchestration,
    page,
    steps,
    threads,
    timing,
    waiting,
    workers,
)
from tests.bench.steps import KINDS, SizeName

STEPS = {
    "search": ("search step",),
    "train": ("training step",),
    "imagenet": ("ImageNet step",),
    "text": ("language-model step", "recurrent search step"),
}
USUAL = ("search", "train", "text", "data", "threads", "growth", "orchestration")
SELDOM = ("imagenet", "fused", "waiting")
GIVEN = "GDAS_BENCH_STARTED"
GROWTH = {"tiny": (4, 1, 2), "default": (8, 1, 16), "paper": (16, 1, 32)}
ARRAYS = {"tiny": 256, "default": 10_000, "paper": 50_000}


def measure(part: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure and print one part."""
    size: SizeName = args.size
    results: list[dict[str, Any]] = []
    if part in STEPS:
        for kind in STEPS[part]:
            for count in args.threads:
                result = steps.measure(
                    kind,
                    KINDS[kind].sizes[size],
                    threads=count,
                    repeats=args.repeats,
                    memory=args.memory,
                )
                timing.show(result)
                results.append(result)
    elif part == "data":
        results.append(data.measure(arrays=ARRAYS[size], repeats=args.repeats))
        data.show(results[0])
    elif part == "threads":
        results.append(threads.measure(KINDS["search step"].sizes[size], repeats=args.repeats))
        threads.show(results[0])
    elif part == "fused":
        results += fused.measure(size, repeats=args.repeats)
        fused.show(results)
    elif part == "waiting":
        results.append(waiting.measure(KINDS["search step"].sizes[size], repeats=args.repeats))
        waiting.show(results[0])
    elif part == "orchestration":
        for _ in range(args.starts):
            results.append(orchestration.measure(orchestration.SIZES[size]))
            orchestration.show(results[-1])
    else:
        base = dict(zip(("channels", "normals", "batch"), GROWTH[size], strict=True))
        results.append(growth.measure(base, repeats=args.repeats))
        growth.show(results[0])
        results.append(workers.measure(KINDS["training step"].sizes[size], repeats=args.repeats))
        workers.show(results[1])
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join((*USUAL, *SELDOM)))
    parser.add_argument("--size", choices=get_args(SizeName), default="default")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of the steps")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--starts", type=int, default=1, help="of the orchestration's study")
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--page", type=Path, default=None, help="such as tests/bench/RESULTS.md")
    args = parser.parse_args(arguments)
    parts = args.parts or list(USUAL)
    if unknown := set(parts) - {*USUAL, *SELDOM}:
        known = ", ".join((*USUAL, *SELDOM))
        parser.error(f"unknown part {sorted(unknown)[0]}; known are {known}")
    for part in parts:
        about = page.machine()
        content = {"machine": about, "size_name": args.size, "results": measure(part, args)}
        if args.page is not None:
            every = page.keep(args.page.with_name("results.json"), part, content)
            args.page.write_text(page.render(every))


def _as_a_job_starts() -> None:
    """Begin once more if this process lacks what a job's process has from its start."""
    if GIVEN not in os.environ:
        line = [sys.executable, "-m", "tests.bench", *sys.argv[1:]]
        os.execve(sys.executable, line, AT_START | dict(os.environ) | {GIVEN: "1"})
    spare_what_is_loaded()


if __name__ == "__main__":
    _as_a_job_starts()
    main()
