"""Searches as CUDA graphs, checked and timed on a card: `python -m tests.gpu.card_check --out DIR`.

Needs gdas, PyTorch and Triton alone. What is known is written to DIR/results.json at once; a check
that fails leaves its last lines there and the next one runs. `--device cpu` runs a tiny version in
Triton's interpreter (set TRITON_INTERPRET=1).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gdas.checkpoint import digest
from gdas.cnn.cell import SearchCell
from gdas.cnn.config import SearchConfig, SupernetConfig
from gdas.cnn.space import ImageSpace
from gdas.cnn.supernet import Supernet
from gdas.compute import open_device
from gdas.data.arrow import Images
from gdas.data.settings import IMAGE_DATA
from gdas.metrics import BatchLoss
from gdas.search import SearchSteps

# Place of a cell in a network of one normal cell a block, channels of the network, size of images.
PLACES = {"16 of 32": (0, 32), "32 halving": (1, 32), "32 of 16": (2, 16), "64 halving": (3, 16)}
PLACES["64 of 8"] = (4, 8)


@dataclass
class Report:
    """Results so far, on disk and as lines."""

    folder: Path
    device: torch.device
    end: float
    results: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, value: Any, line: str | None = None) -> None:
        self.results[name] = value
        (self.folder / "results.json").write_text(json.dumps(self.results, indent=1))
        print(line if line is not None else f"{name}: {value}", flush=True)

    def check(self, name: str, run: Callable[[Report], None]) -> None:
        if time.monotonic() > self.end:
            self.add(name, "not run: out of time")
            return
        begin = time.monotonic()
        try:
            run(self)
        except Exception:
            last = traceback.format_exc(limit=-4)[-1800:]
            self.add(f"{name} failed", last)
        self.add(f"{name}, seconds", round(time.monotonic() - begin, 1))


def sync(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


class Through(nn.Module):
    """In place of preprocessing: a cell by itself."""

    def forward(self, s0: Tensor, s1: Tensor) -> list[Tensor]:
        return [s0, s1]


def cell_errors(
    place: str, device: torch.device, drawn: list[int], *, batch: int, precision: str, tiny: bool
) -> dict[str, tuple[float, float]]:
    """For every result of a cell its error, ours and that of eager float32, against float64."""
    from gdas.cnn.graph.cell import apply_cell, graph_cell
    from gdas.cnn.graph.flat import flatten_weights

    torch.manual_seed(sum(drawn))
    i, size = PLACES[place]
    net = Supernet(10, channels=4 if tiny else 16, normals_per_block=1).to(device)
    net.to(memory_format=torch.channels_last)
    cell = net.cells[i]
    assert isinstance(cell, SearchCell)
    references = [(deepcopy(cell).double(), torch.float64), (deepcopy(cell), torch.float32)]
    flat = flatten_weights(net)
    graph = graph_cell(cell, i, flat, precision=precision)
    edges, c = graph.edges, graph.channels
    size = 6 if tiny else size
    inputs = [torch.randn(batch, c, size, size, device=device) for _ in range(2)]
    inputs = [x.contiguous(memory_format=torch.channels_last) for x in inputs]
    out_size = -(-size // graph.stride)
    weight = torch.randn(batch, graph.nodes * c, out_size, out_size, device=device)
    found: list[dict[str, Tensor]] = []
    for reference, dtype in references:
        reference.preprocess = Through()  # type: ignore[assignment]
        s = [x.to(dtype).requires_grad_() for x in inputs]
        gate = nn.functional.one_hot(torch.tensor(drawn, device=device), 8).to(dtype)
        gate.requires_grad_()
        out = reference(s[0], s[1], list(enumerate(drawn)), gate)
        # The sums are there so that a source that nothing reads has a gradient, of zero.
        ((out * weight.to(dtype)).sum() + 0 * (s[0].sum() + s[1].sum() + gate.sum())).backward()
        gates = gate.grad[torch.arange(edges), torch.tensor(drawn)]  # type: ignore[index]
        one = {"out": out.detach(), "s0": s[0].grad, "s1": s[1].grad, "gates": gates}
        one |= {
            f"d {n}": p.grad for n, p in reference.edges.named_parameters() if p.grad is not None
        }
        one |= {n: b for n, b in reference.edges.named_buffers() if b.numel() > 1}
        found.append(one)
    operations = torch.zeros(16, dtype=torch.int32, device=device)
    operations[:edges] = torch.tensor(drawn)
    s = [x.clone().requires_grad_() for x in inputs]
    gates = torch.ones(16, device=device).requires_grad_()
    out = apply_cell(graph, s[0], s[1], gates, operations, weights=True)
    of_s0, of_s1, of_gates = torch.autograd.grad((out * weight).sum(), [*s, gates])
    ours = {"out": out.detach(), "s0": of_s0, "s1": of_s1, "gates": of_gates[:edges]}
    by_id = {id(p): g for p, g in zip(net.parameters(), flat.gradient_of, strict=True)}
    ours |= {f"d {n}": by_id[id(p)] for n, p in cell.edges.named_parameters()}
    ours |= dict(cell.edges.named_buffers())
    errors = {}
    for name, exact in found[0].items():
        norm = exact.double().norm().clamp_min(1e-9)
        mine, eager = ((d[name].double() - exact).norm() / norm for d in (ours, found[1]))
        errors[name] = (float(mine), float(eager))
    return errors


def kernels_right(report: Report, precision: str, places: list[str], draws: int) -> None:
    tiny = report.device.type == "cpu"
    torch.backends.cudnn.allow_tf32 = False
    try:
        _kernels_right(report, precision, places, draws, tiny)
    finally:
        torch.backends.cudnn.allow_tf32 = True


def _kernels_right(
    report: Report, precision: str, places: list[str], draws: int, tiny: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    for place in places:
        worst = (0.0, 0.0, 0.0, "")
        for n in range(draws):
            drawn = torch.randint(0, 8, (14,), generator=generator).tolist()
            if n == 0:  # every operation at least once
                drawn[:8] = range(8)
            if n == 1:  # a node without any
                drawn[2:5] = [0, 0, 0]
            batch = 2 if tiny else 128
            errors = cell_errors(
                place, report.device, drawn, batch=batch, precision=precision, tiny=tiny
            )
            for name, (mine, eager) in errors.items():
                ratio = mine / (3 * eager + 1e-6)
                worst = max(worst, (ratio if ratio == ratio else 1e9, mine, eager, name))
        ratio, mine, eager, name = worst
        verdict = "right" if ratio <= 1 else "WRONG"
        line = f"  {verdict:5} {precision:6} {place:10} {name}: {mine:.1e}, eager {eager:.1e}"
        report.add(f"cell {precision} {place}", [verdict, *worst], line)


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
    return (2, 1, True) if report.device.type == "cpu" else (128, 8, False)


def begin(steps: Any, epoch: int = 0) -> None:
    steps.space.weights.train()
    steps.begin_epoch(steps.draw_epoch(epoch), 0.025, 5.0)


def steps_right(report: Report, reduction: str) -> None:
    """The first iterations beside today's: losses, weights, logits; and twice, bit for bit."""
    from gdas.cnn.graph.step import GraphSteps

    batch, count, tiny = step_sizes(report)
    config = config_of(reduction, batch, count, tiny)
    images = random_images(2 * batch * count, 8 if tiny else 32)
    torch.backends.cudnn.allow_tf32 = False
    try:
        eager: list[tuple[list[float], dict[str, Any]]] = []
        for c in (config, replace(config, channels_last=False)):
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


def speed(report: Report, reduction: str, batch: int, eager: bool, precision: str) -> None:
    from gdas.cnn.graph.step import GraphSteps

    _, count, tiny = step_sizes(report)
    batch = 2 if tiny else batch
    config = config_of(reduction, batch, count, tiny)
    images = random_images(2 * batch * count, 8 if tiny else 32)
    space = ImageSpace(config, images, report.device)
    steps = GraphSteps(config, space, precision=precision)
    begin(steps)
    start = time.perf_counter()
    steps.take(0)
    sync(report.device)
    capture = time.perf_counter() - start
    rounds = []
    for epoch in range(1, 2 if tiny else 6):
        begin(steps, epoch)
        rounds.append(timed(steps.take, report.device, count))
    rounds.sort()
    ms, host = rounds[len(rounds) // 2]
    key = f"{reduction} {batch} {precision}"
    search = ms * -(-25000 // batch) * 240 / 60000
    peak = torch.cuda.max_memory_allocated() / 2**30 if report.device.type == "cuda" else 0.0
    line = (
        f"  {key}: {ms:.2f} ms an iteration ({rounds[0][0]:.2f} to {rounds[-1][0]:.2f}, "
        f"host {host:.2f}), a search {search:.1f} min; captured in {capture:.1f} s, {peak:.1f} GiB"
    )
    report.add(f"speed {key}", [ms, rounds, search, capture, peak], line)
    if eager:
        run = SearchSteps(config, ImageSpace(config, images, report.device))

        def take(step: int) -> None:
            run.weight_step(0, step, 5.0)
            run.alpha_step(0, step, 5.0)

        run.space.weights.train()
        take(0)
        plain, _ = timed(take, report.device, min(count, 5))
        line = f"  {key}: eager {plain:.1f} ms an iteration, {plain / ms:.1f} times as long"
        report.add(f"eager {key}", [plain, plain / ms], line)
    if report.device.type == "cuda":
        profile(report, steps, key)


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


def compile_ahead(report: Report) -> None:
    """Compile every shape of cell in a process of its own; Triton keeps the kernels on disk."""
    if report.device.type == "cpu":
        return
    here = [sys.executable, "-m", "tests.gpu.card_check", "--compile"]
    running = {p: subprocess.Popen([*here, p], stderr=subprocess.PIPE, text=True) for p in PLACES}
    for place, process in running.items():
        _, errors = process.communicate(timeout=150)
        if process.returncode:
            report.add(f"compile {place} failed", errors[-1500:])


def compile_place(place: str) -> None:
    begin_at = time.monotonic()
    device = torch.device("cuda")
    cell_errors(place, device, [4] * 14, batch=2, precision="tf32x3", tiny=False)
    still_compile(place, device)
    print(f"  compiled {place} in {time.monotonic() - begin_at:.0f} s", flush=True)


def still_compile(place: str, device: torch.device) -> None:
    """The kernels of an alpha step."""
    from gdas.cnn.graph.cell import graph_cell, run_backward, run_forward
    from gdas.cnn.graph.flat import flatten_weights

    i, size = PLACES[place]
    net = Supernet(10, normals_per_block=1).to(device)
    cell = net.cells[i]
    assert isinstance(cell, SearchCell)
    graph = graph_cell(cell, i, flatten_weights(net))
    x = torch.randn(2, graph.channels, size, size, device=device)
    operations = torch.zeros(16, dtype=torch.int32, device=device)
    out, kept = run_forward(graph, x, x, operations)
    run_backward(graph, kept, torch.ones_like(out), weights=False)
    torch.cuda.synchronize()


def ceilings(report: Report) -> None:
    """What the card moves a second, for comparison."""
    if report.device.type == "cpu":
        return
    x = torch.randn(1 << 28, device=report.device)
    y = torch.empty_like(x)
    y.copy_(x)

    def copy(step: int) -> None:
        y.copy_(x)

    ms, _ = timed(copy, report.device, 10)
    report.add("copy, TB/s", round(2 * x.numel() * 4 / ms / 1e9, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--only", default="", help="names of checks, separated by commas")
    parser.add_argument("--compile", choices=list(PLACES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.compile:
        compile_place(arguments.compile)
        return
    device = open_device(arguments.device, threads=1 if arguments.device == "cpu" else 8)
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = Report(arguments.out, device, time.monotonic() + arguments.seconds)
    import triton

    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, interpreted"
    report.add("versions", [name, sys.version.split()[0], torch.__version__, triton.__version__])
    places = list(PLACES)[:1] if device.type == "cpu" else list(PLACES)
    few = 1 if device.type == "cpu" else 3
    normal = [p for p in places if "of" in p]
    checks: dict[str, Callable[[Report], None]] = {
        "compile": compile_ahead,
        "cells": lambda r: kernels_right(r, "tf32x3", places, few),
        "fixed": lambda r: steps_right(r, "fixed"),
        "speed": lambda r: speed(r, "fixed", 128, True, "tf32x3"),
        "searched": lambda r: steps_right(r, "searched"),
        "speed of searched": lambda r: speed(r, "searched", 128, True, "tf32x3"),
        "speed at 64": lambda r: speed(r, "fixed", 64, False, "tf32x3"),
        "ceilings": ceilings,
        "speed of tf32": lambda r: speed(r, "fixed", 128, False, "tf32"),
        "cells of ieee": lambda r: kernels_right(r, "ieee", normal[-1:], 1),
    }
    for check, run in checks.items():
        if not arguments.only or check in arguments.only.split(","):
            report.check(check, run)


if __name__ == "__main__":
    main()
