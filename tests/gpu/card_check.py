"""Searches as CUDA graphs, checked and timed on a card: `python -m tests.gpu.card_check --out DIR`.

Needs gdas, PyTorch and Triton alone. What is known is written to DIR/results.json at once; a check
that fails leaves its last lines there and the next one runs. `--device cpu` runs a tiny version in
Triton's interpreter (set TRITON_INTERPRET=1).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gdas.checkpoint import Segment, digest, newest, save
from gdas.cnn.config import SearchConfig, SupernetConfig
from gdas.cnn.space import ImageSpace
from gdas.compute import open_device
from gdas.config import AlphaUpdate
from gdas.data.arrow import Images
from gdas.data.settings import IMAGE_DATA
from gdas.metrics import BatchLoss
from gdas.search import SearchSteps, search
from tests.gpu.card_cells import (
    PLACES,
    cells_right,
    compile_one,
    finish_compiling,
    start_compiling,
    time_variants,
)
from tests.gpu.card_report import Report


def sync(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def config_of(reduction: str, batch: int, steps: int, tiny: bool) -> SearchConfig:
    network = SupernetConfig(reduction=reduction)  # type: ignore[arg-type]
    if tiny:
        network = replace(network, channels=4, normals_per_block=1)
    return SearchConfig(
        data=IMAGE_DATA["cifar10"],
        batch_size=batch,
        train_images=batch * steps,
        valid_images=batch * steps,
        network=network,
    )


def random_images(count: int, size: int) -> Images:
    """Blobs with a class each: something can be learned."""
    g = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 10, (count,), generator=g)
    means = torch.randint(60, 200, (10, 3, 4, 4), generator=g).float()
    pictures = nn.functional.interpolate(means[labels], size=size)
    noise = torch.randn(pictures.shape, generator=g) * 30
    return Images((pictures + noise).clamp(0, 255).to(torch.uint8), labels, 10)


def step_sizes(report: Report) -> tuple[int, int, bool]:
    """Batch, steps, tiny."""
    return (2, 1, True) if report.device.type == "cpu" else (128, 4, False)


def begin(steps: Any, epoch: int = 0) -> None:
    steps.space.weights.train()
    steps.begin_epoch(steps.draw_epoch(epoch), 0.025, 5.0)


def steps_right(report: Report, reduction: str) -> None:
    """The first iterations beside eager ones: losses, weights, logits; and twice, bit for bit."""
    from gdas.cnn.graph.step import GraphSteps

    batch, count, tiny = step_sizes(report)
    config = config_of(reduction, batch, count, tiny)
    images = random_images(2 * batch * count, 8 if tiny else 32)
    torch.backends.cudnn.allow_tf32 = False
    try:
        eager: list[tuple[list[float], dict[str, Any]]] = []
        for c in (replace(config, channels_last=False), config):
            run = SearchSteps(c, ImageSpace(c, images, report.device))
            run.space.weights.train()
            run.weight_optimizer.param_groups[0]["lr"] = 0.025
            losses: list[BatchLoss] = []
            for step in range(count):
                losses += [run.weight_step(0, step, 5.0), run.alpha_step(0, step, 5.0)]
            eager.append(([float(b.loss.detach()) for b in losses], deepcopy(run.state())))
        digests, ours = [], []
        for _ in range(2):
            steps = GraphSteps(config, ImageSpace(config, images, report.device))
            first = deepcopy(steps.supernet.state_dict())
            first |= {kind: a.detach().clone() for kind, a in steps.run.logits.items()}
            begin(steps)
            seen = torch.zeros(2, dtype=torch.float64, device=report.device)
            losses_of_steps = []
            for step in range(count):
                steps.take(step)
                now = steps.loss_2.clone()
                losses_of_steps += ((now - seen) / batch).tolist()
                seen = now
            state = deepcopy(steps.state(0.025))
            digests.append(digest(state))
            ours.append((losses_of_steps, state))
            del steps
    finally:
        torch.backends.cudnn.allow_tf32 = True
    same = digests[0] == digests[1]
    report.add(f"{reduction}: twice the same bits", same)
    if not same:
        differing = [
            name
            for name, t in ours[0][1]["weights"].items()
            if not torch.equal(t, ours[1][1]["weights"][name])
        ]
        report.add(f"{reduction}: differing weights", [len(differing), differing[:5]])
    off = [abs(a - b) for a, b in zip(ours[0][0], eager[0][0], strict=True)]
    yard = [abs(a - b) for a, b in zip(eager[1][0], eager[0][0], strict=True)]
    report.add(f"{reduction}: losses", [ours[0][0], eager[0][0]], "")
    off_text = " ".join(f"{x:.0e}" for x in off)
    yard_text = " ".join(f"{x:.0e}" for x in yard)
    report.add(f"{reduction}: losses off", [off, yard], f"  losses off by {off_text}")
    print(f"  eager in the other layout {yard_text}")
    for part in ("weights", "logits"):
        mine, other = (moved(s[part], eager[0][1][part], first) for s in (ours[0][1], eager[1][1]))
        line = f"  {part} off by {mine:.1e} of their change; eager in the other layout {other:.1e}"
        report.add(f"{reduction}: {part} off", [mine, other], line)
    flags = [s["has_gradient"] for s in (ours[0][1], eager[0][1])]
    report.add(f"{reduction}: same weights have gradients", flags[0] == flags[1])


def moved(mine: dict[str, Tensor], theirs: dict[str, Tensor], first: dict[str, Tensor]) -> float:
    """Distance between two states over the distance from the first one."""
    off = change = 0.0
    for name, t in theirs.items():
        if not t.is_floating_point() or "running" in name:
            continue
        off += float((mine[name].double() - t.double()).square().sum())
        change += float((t.double() - first.get(name, torch.zeros_like(t)).double()).square().sum())
    return float((off / max(change, 1e-30)) ** 0.5)


def timed(run: Callable[[int], None], device: torch.device, count: int) -> tuple[float, float]:
    """Milliseconds a call, of the device (all calls together), and of the host to issue it."""
    sync(device)
    start = time.perf_counter()
    for step in range(count):
        run(step)
    issued = time.perf_counter()
    sync(device)
    return (time.perf_counter() - start) / count * 1e3, (issued - start) / count * 1e3


def speed(report: Report, reduction: str, batch: int) -> None:
    from gdas.cnn.graph.step import GraphSteps

    _, count, tiny = step_sizes(report)
    batch = 2 if tiny else batch
    config = config_of(reduction, batch, count, tiny)
    images = random_images(2 * batch * count, 8 if tiny else 32)
    space = ImageSpace(config, images, report.device)
    steps = GraphSteps(config, space)
    begin(steps)
    start = time.perf_counter()
    steps.take(0)
    sync(report.device)
    capture = time.perf_counter() - start
    rounds = []
    for epoch in range(1, 2 if tiny else 8):
        begin(steps, epoch)
        rounds.append(timed(steps.take, report.device, count))
    rounds.sort()
    ms, host = rounds[len(rounds) // 2]
    key = f"{reduction} {batch}"
    search = ms * -(-25000 // batch) * 240 / 60000
    peak = torch.cuda.max_memory_allocated() / 2**30 if report.device.type == "cuda" else 0.0
    line = (
        f"  {key}: {ms:.2f} ms an iteration ({rounds[0][0]:.2f} to {rounds[-1][0]:.2f}, "
        f"host {host:.2f}), a search {search:.1f} min; captured in {capture:.1f} s, {peak:.1f} GiB"
    )
    report.add(f"speed {key}", [ms, rounds, search, capture, peak], line)
    if report.device.type == "cuda":
        profile(report, steps, key)


def eager_speed(report: Report, reduction: str) -> None:
    """Today's search, for comparison."""
    batch, count, tiny = step_sizes(report)
    config = config_of(reduction, batch, count, tiny)
    images = random_images(2 * batch * count, 8 if tiny else 32)
    run = SearchSteps(config, ImageSpace(config, images, report.device))

    def take(step: int) -> None:
        run.weight_step(0, step, 5.0)
        run.alpha_step(0, step, 5.0)

    run.space.weights.train()
    take(0)
    plain, _ = timed(take, report.device, count)
    report.add(f"eager {reduction} {batch}", plain, f"  {reduction}: eager {plain:.1f} ms")


def profile(report: Report, steps: Any, key: str) -> None:
    """Time by kernel of one iteration."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    begin(steps)
    steps.take(0)
    torch.cuda.synchronize()
    with profiler(activities=[ProfilerActivity.CUDA]) as seen:
        steps.take(1)
        torch.cuda.synchronize()
    by_name: dict[str, list[float]] = {}
    for event in seen.events():
        if event.device_type.name == "CUDA":
            name = event.name.split("<")[0].split("(")[0][-60:]
            found = by_name.setdefault(name, [0.0, 0.0])
            found[0] += event.device_time / 1e3
            found[1] += 1
    rows = sorted(((t, int(n), name) for name, (t, n) in by_name.items()), reverse=True)
    total, launches = sum(r[0] for r in rows), sum(r[1] for r in rows)
    report.add(f"profile {key}", rows, f"  {key}: {launches} kernels, {total:.2f} ms in kernels")
    for t, n, name in rows[:22]:
        print(f"    {t:7.3f} ms {n:5d} x {name}")


def resumed(report: Report, reduction: str) -> None:
    """Interrupted and gone on with from disk, against left alone; and on from an eager search."""
    from gdas.cnn.graph.search import run_epochs
    from gdas.cnn.graph.step import GraphSteps

    batch, count, tiny = step_sizes(report)
    config = config_of(reduction, batch, count, tiny)
    config = replace(config, epochs=2, alpha=AlphaUpdate(lr=0.05))
    images = random_images(2 * batch * count, 8 if tiny else 32)

    def graphs(state: Any) -> list[Segment]:
        space = ImageSpace(config, images, report.device)
        steps = GraphSteps(config, space)
        if state is not None:
            steps.load(state)
        return [replace(x, state=deepcopy(x.state)) for x in run_epochs(config, space, steps)]

    def plain(state: Any) -> list[Segment]:
        own = replace(config, channels_last=False)
        space = ImageSpace(own, images, report.device)
        run = search(own, space, checkpoint=state)
        return [replace(x, state=deepcopy(x.state)) for x in run]

    whole = graphs(None)
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), whole[0], [])
        kept, _ = newest(Path(folder))
        assert kept is not None
    after = graphs(kept.state)
    same = digest(after[0].state) == digest(whole[1].state)
    report.add(f"{reduction}: resumed to the same bits", same)
    on_from_ours, todays = plain(kept.state), plain(None)
    on_from_todays = graphs(todays[0].state)
    losses = {
        "graphs": whole[1].metrics,
        "eager after graphs": on_from_ours[0].metrics,
        "eager": todays[1].metrics,
        "graphs after eager": on_from_todays[0].metrics,
    }
    shown = {name: [m["train/loss"], m["valid/loss"]] for name, m in losses.items()}
    text = ", ".join(f"{name} {a:.4f} {b:.4f}" for name, (a, b) in shown.items())
    report.add(f"{reduction}: losses of epoch 2", shown, f"  losses of epoch 2: {text}")


def fixed_cells(report: Report) -> None:
    """Both passes of a fixed reduction cell, dense and grouped, with TensorFloat32 and without."""
    from gdas.cnn.cell import FixedReductionCell
    from gdas.cnn.graph.fixed import fixed_cell
    from gdas.cnn.operations import Style

    if report.device.type == "cpu":
        return
    last = torch.channels_last
    cell = FixedReductionCell(64, 64, 32, Style(True), last_reduced=False)
    cell.to(report.device).to(memory_format=last)
    x = torch.randn(128, 64, 32, 32, device=report.device).contiguous(memory_format=last)
    x.requires_grad_()
    rows = {}
    before = torch.backends.cudnn.allow_tf32
    for tf32 in (True, False):
        torch.backends.cudnn.allow_tf32 = tf32
        for name, run in (
            ("dense", lambda: fixed_cell(cell, x, x)),
            ("grouped", lambda: cell(x, x, None)),
        ):

            def both(_: int, run: Callable[[], Tensor] = run) -> None:
                run().sum().backward()

            both(0)
            rows[f"{name}, TF32 {tf32}"] = timed(both, report.device, 10)[0]
    torch.backends.cudnn.allow_tf32 = before
    text = ", ".join(f"{name} {ms:.2f}" for name, ms in rows.items())
    report.add("fixed cell, ms", rows, f"  a fixed cell, ms of both passes: {text}")


def ceilings(report: Report) -> None:
    """What the card moves a second, for comparison."""
    if report.device.type == "cpu":
        return
    x = torch.randn(1 << 28, device=report.device)
    y = torch.empty_like(x)

    def copy(_: int) -> None:
        y.copy_(x)

    copy(0)
    ms, _ = timed(copy, report.device, 10)
    report.add("copy, TB/s", round(2 * x.numel() * 4 / ms / 1e9, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--only", default="", help="names of checks, separated by commas")
    parser.add_argument("--compile", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.compile:
        compile_one(arguments.compile)
        return
    device = open_device(arguments.device, threads=1 if arguments.device == "cpu" else 8)
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = Report(arguments.out, device, time.monotonic() + arguments.seconds)
    import triton

    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, interpreted"
    report.add("versions", [name, sys.version.split()[0], torch.__version__, triton.__version__])
    places = list(PLACES)[:1] if device.type == "cpu" else list(PLACES)
    few = 1 if device.type == "cpu" else 2
    checks: dict[str, Callable[[Report], None]] = {
        "start": start_compiling,
        "ceilings": ceilings,
        "fixed cells": fixed_cells,
        "eager": lambda r: eager_speed(r, "fixed"),
        "compile": finish_compiling,
        "cells": lambda r: cells_right(r, "tf32x3", places, few),
        "speed": lambda r: speed(r, "fixed", 128),
        "variants": time_variants,
        "speed of searched": lambda r: speed(r, "searched", 128),
        "fixed": lambda r: steps_right(r, "fixed"),
        "resumed": lambda r: resumed(r, "searched"),
        "speed at 64": lambda r: speed(r, "fixed", 64),
    }
    for check, run in checks.items():
        if not arguments.only or check in arguments.only.split(","):
            report.check(check, run)


if __name__ == "__main__":
    main()
