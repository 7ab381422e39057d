"""Search cells as kernels on a card: right beside float64, compiled ahead, timed in variants."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from gdas.cnn.cell import SearchCell
from gdas.cnn.supernet import Supernet
from tests.gpu.card_report import Report

# Place of a cell in a network of one normal cell a block, channels of the network, size of images.
PLACES = {"16 of 32": (0, 32), "32 halving": (1, 32), "32 of 16": (2, 16), "64 halving": (3, 16)}
PLACES["64 of 8"] = (4, 8)
VARIANTS = {  # numbers of a tile, warps, most registers of a thread
    "2048 8 128": (2048, 8, 128),
    "2048 8 80": (2048, 8, 80),
    "2048 4 128": (2048, 4, 128),
    "4096 8 128": (4096, 8, 128),
    "1024 4 128": (1024, 4, 128),
    "1024 8 64": (1024, 8, 64),
}
"""How the kernels of a cell may run; the first is the default."""
TIMED = ("16 of 32",)


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
    # The references are in the usual layout: PyTorch 2.11's average pooling goes back wrongly on
    # CUDA in channels-last layout with padding.
    cell = net.cells[i]
    assert isinstance(cell, SearchCell)
    references = [(deepcopy(cell).double(), torch.float64), (deepcopy(cell), torch.float32)]
    net.to(memory_format=torch.channels_last)
    flat = flatten_weights(net)
    graph = graph_cell(cell, i, flat, precision=precision)
    edges, c = graph.edges, graph.channels
    size = 6 if tiny else size
    inputs = [torch.randn(batch, c, size, size, device=device) for _ in range(2)]
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
    last = torch.channels_last
    s = [x.contiguous(memory_format=last).clone().requires_grad_() for x in inputs]
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
        if name.endswith("running_mean"):  # which may be next to zero by itself
            norm = norm.clamp_min(0.01 * exact.numel() ** 0.5)
        mine, eager = ((d[name].double() - exact).norm() / norm for d in (ours, found[1]))
        errors[name] = (float(mine), float(eager))
    return errors


def cells_right(report: Report, precision: str, places: list[str], draws: int) -> None:
    tiny = report.device.type == "cpu"
    torch.backends.cudnn.allow_tf32 = False
    try:
        _cells_right(report, precision, places, draws, tiny)
    finally:
        torch.backends.cudnn.allow_tf32 = True


def _cells_right(report: Report, precision: str, places: list[str], draws: int, tiny: bool) -> None:
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


def start_compiling(report: Report) -> None:
    """Compile every shape of cell in a process of its own; Triton keeps the kernels on disk."""
    if report.device.type == "cpu":
        return
    here = [sys.executable, "-m", "tests.gpu.card_check", "--compile"]
    wanted = [f"{place}/{variant}" for place in PLACES for variant in list(VARIANTS)[:1]]
    wanted += [f"{place}/{variant}" for place in TIMED for variant in list(VARIANTS)[1:]]
    for one in wanted:
        report.compiling[one] = subprocess.Popen([*here, one], stderr=subprocess.PIPE, text=True)


def finish_compiling(report: Report) -> None:
    for place, process in report.compiling.items():
        _, errors = process.communicate(timeout=120)
        if process.returncode:
            report.add(f"compile {place} failed", errors[-1500:])


def compile_one(wanted: str) -> None:
    began = time.monotonic()
    place, variant = wanted.split("/")
    run = cell_run(place, variant, torch.device("cuda"), 2)
    for weights in (True, False):
        run(weights)
    torch.cuda.synchronize()
    print(f"  compiled {wanted} in {time.monotonic() - began:.0f} s", flush=True)


def cell_run(place: str, variant: str, device: torch.device, batch: int) -> Callable[[bool], None]:
    """Both passes of a cell, with or without the weights' gradients."""
    from gdas.cnn.graph.cell import graph_cell, run_backward, run_forward
    from gdas.cnn.graph.flat import flatten_weights

    i, size = PLACES[place]
    tile, warps, registers = VARIANTS[variant]
    small = device.type == "cpu"
    net = Supernet(10, channels=4 if small else 16, normals_per_block=1).to(device)
    cell = net.cells[i]
    assert isinstance(cell, SearchCell)
    graph = graph_cell(cell, i, flatten_weights(net), tile=tile, warps=warps)
    graph.registers = registers
    size = 4 if small else size
    x = torch.randn(batch, graph.channels, size, size, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    drawn = [4, 5, 6, 7, 1, 2, 3, 4, 5, 6, 7, 1, 2, 0]
    operations = torch.tensor([*drawn, 0, 0], dtype=torch.int32, device=device)

    def run(weights: bool) -> None:
        out, kept = run_forward(graph, x, x, operations, weights=weights)
        run_backward(graph, kept, torch.ones_like(out), weights=weights)

    return run


def time_variants(report: Report) -> None:
    """Milliseconds of a cell's two passes in both steps, for every variant, by turns."""
    cuda = report.device.type == "cuda"
    names = list(VARIANTS) if cuda else list(VARIANTS)[:1]
    for place in TIMED if cuda else TIMED[:1]:
        rows: dict[str, list[float]] = {}
        for variant in names:
            try:
                run = cell_run(place, variant, report.device, 128 if cuda else 2)
                rows[variant] = [_graph_ms(run, weights, cuda) for weights in (True, False)]
            except Exception as error:  # one variant may not run
                report.add(f"variant {place}, {variant} failed", str(error)[-300:])
        report.add(f"variants of {place}", rows, f"  {place}, ms of both passes, W and alpha:")
        for variant, (of_weights, of_alpha) in rows.items():
            print(f"    {variant:12} {of_weights:.3f} {of_alpha:.3f}")


def _graph_ms(run: Callable[[bool], None], weights: bool, cuda: bool) -> float:
    if not cuda:
        run(weights)
        return 0.0
    for _ in range(2):
        run(weights)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run(weights)
    best = []
    for _ in range(5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(4):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        best.append(start.elapsed_time(end) / 4)
    return float(sorted(best)[2])
