"""What a card does with this project: right, exact, fast, shared by seeds, and for real.

    python -m tests.gpu --minutes 8 --out DIR [--parts right,exact,fast,shared,graph,real]

needs `gdas`, PyTorch and one GPU; no Ray, no network. Writes DIR/results.json as it goes, and at
the end DIR/RESULTS.md. Parts come in the order of their worth, each within its share of the
minutes; what one does not use goes to the next. On a GPU every part is a process of its own, so
that what breaks one does not break the others.

right: float32, TensorFloat32 and bfloat16 beside float64, piece by piece and whole. exact: the same
bits again, and after an interruption. fast: time, memory, kernels and waits of every step, beside a
plain baseline. shared: one, two and four seeds on the card. graph: searches whose steps are CUDA
graphs, beside eager ones. real: a short search on real images (--cifar FILE, which tests.gpu.carry
writes).

With --device cpu everything is tiny: to try the pack out, no measurement.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from gdas.compute import open_device
from gdas.errors import InputError
from tests.bench.timing import ROOT
from tests.gpu import carry, exact, fast, findings, graph, page, real, right, shared
from tests.gpu.findings import Findings
from tests.gpu.sizes import PAPER, TRIAL

PARTS = {"right": 0.9, "exact": 1.0, "fast": 1.6, "shared": 0.5, "graph": 2.0, "real": 2.0}
"""Every part and its share of the time: as many minutes, where all have 8."""
GRACE = 20.0
"""Seconds after its deadline at which a part's process is stopped."""


def about(device: torch.device, minutes: float) -> dict[str, str]:
    """What the figures depend on."""
    versions = [f"Python {platform.python_version()}", f"PyTorch {torch.__version__}"]
    found = {
        "device": "CPU, a trial" if device.type == "cpu" else torch.cuda.get_device_name(device),
        "cores": str(os.cpu_count()),
        "minutes": f"{minutes:g}",
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        found["memory"] = f"{memory:.0f} GiB"
        found["driver"] = _driver()
        versions += [f"CUDA {torch.version.cuda}", f"cuDNN {torch.backends.cudnn.version()}"]
    return found | {"versions": ", ".join(versions)}


def _driver() -> str:
    line = ["nvidia-smi", "--query-gpu=driver_version,power.limit", "--format=csv,noheader"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip().split("\n")[0]


def run_part(part: str, args: argparse.Namespace, deadline: float) -> None:
    """Run one part in this process."""
    device = open_device(args.device, threads=args.threads)
    sizes = PAPER if device.type == "cuda" else TRIAL
    of = Findings(args.out, part, deadline)
    if part in ("real", "graph"):
        {"real": real, "graph": graph}[part].run(of, device, sizes, args.cifar)
    else:
        {"right": right, "exact": exact, "fast": fast, "shared": shared}[part].run(
            of, device, sizes
        )


def _in_process_of_its_own(part: str, args: argparse.Namespace, deadline: float) -> None:
    line = [sys.executable, "-m", "tests.gpu", "--out", str(args.out), "--device", args.device]
    line += ["--cifar", str(args.cifar), "--threads", str(args.threads), "--one", part]
    seconds = deadline - time.monotonic()
    try:
        done = subprocess.run(
            [*line, "--seconds", f"{seconds:.1f}"], cwd=ROOT, timeout=seconds + GRACE
        )
        end = f"its process ended with code {done.returncode}" if done.returncode else None
    except subprocess.TimeoutExpired:
        end = "its process was stopped after its time"
    if end is not None:
        results = findings.read(args.out)
        results.setdefault(part, {"checks": {}})["end"] = end
        findings.write(args.out, results)
        print(f"{part}: {end}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts and write the page."""
    began = time.monotonic()
    args = _arguments(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    args.out, args.cifar = args.out.resolve(), args.cifar.resolve()
    if args.one is not None:
        run_part(args.one, args, began + args.seconds)
        return
    try:
        device = open_device(args.device, threads=args.threads)
    except InputError as error:
        raise SystemExit(f"tests.gpu: {error}") from None
    results = {part: of for part, of in findings.read(args.out).items() if part not in args.parts}
    findings.write(args.out, results | {"about": about(device, args.minutes)})
    shares, passed = sum(PARTS[part] for part in args.parts), 0.0
    each = {part: f"{60 * args.minutes * PARTS[part] / shares:.0f} s" for part in args.parts}
    print("Shares: " + ", ".join(f"{part} {share}" for part, share in each.items()), flush=True)
    for part in args.parts:
        passed += PARTS[part]
        deadline = began + 60 * args.minutes * passed / shares
        if args.isolate:
            _in_process_of_its_own(part, args, deadline)
        else:
            run_part(part, args, deadline)
        page.write(args.out)
    print(f"{args.out / page.PAGE}: written after {(time.monotonic() - began) / 60:.1f} minutes")


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", default=",".join(PARTS), help="some, separated by commas")
    parser.add_argument("--cifar", type=Path, default=ROOT / carry.FILE, metavar="FILE")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch on the CPU")
    parser.add_argument(
        "--isolate",
        action=argparse.BooleanOptionalAction,
        help="every part in a process of its own (default: on a GPU)",
    )
    parser.add_argument("--one", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    args.parts = args.parts.split(",")
    if unknown := [part for part in args.parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; known are {', '.join(PARTS)}")
    if args.isolate is None:
        args.isolate = args.device != "cpu"
    return args


if __name__ == "__main__":
    main()
