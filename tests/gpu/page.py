"""The page of results, RESULTS.md: written from results.json beside it and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gdas.files import write_text
from tests.gpu import findings

PAGE = "RESULTS.md"
INTRODUCTION = (
    "Written by `python -m tests.gpu`; every figure is in `results.json` beside this page. "
    "A median's spread, lowest to highest, and the number of repeats stand in brackets."
)
TRIAL = "**Not a measurement**: tiny sizes on a CPU, to try the pack out."
Figures = dict[str, Any]


def write(folder: Path) -> None:
    """Write the page of a folder's results."""
    write_text(folder / PAGE, render(findings.read(folder)))


def render(results: Figures) -> str:
    """The page as Markdown."""
    about = results.get("about", {})
    lines = ["# On a card", "", INTRODUCTION, ""]
    if about.get("device", "").startswith("CPU"):
        lines += [TRIAL, ""]
    lines += [f"- {key}: {value}" for key, value in about.items()]
    for part, title, write_part in PARTS:
        lines += ["", f"## {title}", ""]
        if part not in results:
            lines.append("Not run.")
            continue
        found = results[part]
        if "end" in found:
            lines += [f"Cut short: {found['end']}.", ""]
        lines += list(write_part(found["checks"]))
        lines += list(_missing(found["checks"]))
    return "\n".join(lines).rstrip() + "\n"


def _missing(checks: Figures) -> Iterator[str]:
    """Checks that failed, and those that were not run."""
    for name, found in checks.items():
        if "error" in found:
            yield from ("", f"**{name} failed**: `{' '.join(str(found['error']).split())}`")
    waiting = [name for name, found in checks.items() if "not_run" in found]
    if waiting:
        reasons = sorted({str(checks[name]["not_run"]) for name in waiting})
        yield from ("", f"Not run ({'; '.join(reasons)}): {', '.join(waiting)}.")


def _done(checks: Figures) -> Iterator[tuple[str, Figures]]:
    for name, found in checks.items():
        if "error" not in found and "not_run" not in found:
            yield name, found


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of Markdown; nothing where there are no rows."""
    if not rows:
        return []
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def _small(value: float | str) -> str:
    return f"{value:.1e}" if isinstance(value, float) else str(value)


def _cosine(value: float | str) -> str:
    return f"{value:.5f}" if isinstance(value, float) else str(value)


# Right


def _right(checks: Figures) -> Iterator[str]:
    yield (
        "Beside float64 from the same weights, inputs and draws: the norm of the gradients' error "
        "over their norm, all gradients together."
    )
    yield ""
    done = dict(_done(checks))
    for name, of in done.items():
        if "pieces" in of:
            yield from (f"{name[0].upper()}{name[1:]}, batch {of['batch']}:", "")
            yield from _pieces(of["pieces"])
    done = {name: of for name, of in done.items() if "pieces" not in of}
    ways = list(dict.fromkeys(way for of in done.values() for way in of if _is_way(of[way])))
    rows = [
        [name, *(_small(of[way]["gradient"]) if way in of else "" for way in ways)]
        for name, of in done.items()
    ]
    yield from table(["", *ways], rows)
    yield "The direction of the gradient (cosine with float64's; of a search's logits first):"
    yield ""
    rows = [
        [
            name + "".join(f", {of[way]['n']} draws" for way in ways[:1] if "n" in of.get(way, {})),
            *(_direction(of[way]) if way in of else "" for way in ways),
            _cosine(of["between batches"]) if "between batches" in of else "",
        ]
        for name, of in done.items()
        if "step" in name
    ]
    yield from table(["", *ways, "another batch, float64"], rows)


COARSE = {"float32": 1e-4, "TensorFloat32": 1e-2, "bfloat16": 0.5}
"""Errors of a piece that are no rounding: shown in bold."""


def _pieces(pieces: Figures) -> Iterator[str]:
    """The worst error by input or by weights, over the sizes."""
    done = {name: of for name, of in pieces.items() if "error" not in of}
    ways = list(dict.fromkeys(way for of in done.values() for way in of))
    rows = [[name, *(_worst(way, of[way]) for way in ways)] for name, of in done.items()]
    yield from table(["", *ways], rows)
    for name, of in pieces.items():
        if "error" in of:
            yield from (f"**{name} failed**: `{of['error']}`", "")


def _worst(way: str, of: Figures) -> str:
    errors = (of["input"], of["weights"])
    numbers = [error for error in errors if isinstance(error, float)]
    if len(numbers) < len(errors):  # not a number
        return f"**{of['input']}, {of['weights']}** ({of['size']})"
    text = _small(max(numbers))
    bound = COARSE[way.split(",")[0]]
    return text if max(numbers) <= bound else f"**{text}** ({of['size']})"


def _is_way(value: Any) -> bool:
    return isinstance(value, dict) and "gradient" in value


def _direction(of: Figures) -> str:
    lowest = f" (lowest {_cosine(of['lowest cosine'])})" if "lowest cosine" in of else ""
    return _cosine(of["cosine"]) + lowest


# Exact


def _exact(checks: Figures) -> Iterator[str]:
    yield "Two epochs of every training loop, twice, and resumed after the first from disk."
    yield ""
    rows = [
        [
            name,
            "equal" if all(of["again"]) else _differs(of.get("again, difference", {})),
            "equal" if of["resumed"] else _differs(of.get("resumed, difference", {})),
            f"{of['run_seconds']:.2f}",
            "; ".join(of.get("vary", [])),
        ]
        for name, of in _done(checks)
        if "again" in of
    ]
    heads = ["", "run again", "resumed", "s a run", "PyTorch warns of"]
    yield from table(heads, rows)
    for name, of in _done(checks):
        if "operations" not in of:
            continue
        yield f"{name[0].upper()}{name[1:]}: {of['n']} backward passes of the same."
        yield ""
        rows = [
            [
                operation,
                "equal" if one["equal"] else "**differ**",
                "equal" if one["equal, deterministic"] else "**differ**",
                f"{one['ms']:.3f}",
                f"{one['deterministic_ms'] / one['ms']:.2f}",
                "warns" if one["warns"] else "",
            ]
            for operation, one in of["operations"].items()
            if "error" not in one
        ]
        heads = ["", "usual", "deterministic algorithms", "ms", "their time, ratio", ""]
        yield from table(heads, rows)
        for operation, one in of["operations"].items():
            if "error" in one:
                yield from (f"**{operation} failed**: `{one['error']}`", "")


def _differs(of: Figures) -> str:
    if not of:
        return "**differs**"
    largest, where = of["by up to"], of["in"]
    return f"**differs**: {of['tensors that differ']} tensors, by {_small(largest)} in `{where}`"


# Fast


def _fast(checks: Figures) -> Iterator[str]:
    for name, of in _done(checks):
        if "ways" in of:
            batch = f", batch {of['batch']}" if "batch" in of and "batch" not in name else ""
            yield from (f"### {name[0].upper()}{name[1:]}{batch}", "")
            yield from _ways(of["ways"])
        if name == "acceleration":
            memory = f" and {of['memory']:.1f} times the memory" if "memory" in of else ""
            yield from (
                f"All operations take {of['time']:.1f} times the time{memory} (paper: 8).",
                "",
            )
        if "compiling_seconds" in of:
            yield from (f"Compiling and the first steps: {of['compiling_seconds']:.0f} s.", "")
        if "top" in of:
            yield from (f"### {name[0].upper()}{name[1:]}, batch {of['batch']}", "")
            yield from _kernels(of)
        for way, profile in of.get("kernels", {}).items() if "ways" in of else ():
            yield from (f"Kernels, {way}:", "")
            yield from _kernels(profile)
        if of.get("waits"):
            places = ", ".join(f"`{place}` {count}" for place, count in of["waits"].items())
            yield from (f"The CPU waits for the card in: {places}.", "")


def _ways(ways: Figures) -> list[str]:
    extra = {
        "times_faster": ("beside plain", "{:.2f}×"),  # noqa: RUF001
        "step_mib": ("memory, MiB", "{:.0f}"),
        "search_minutes": ("search, minutes", "{:.0f}"),
        "images_a_second": ("images/s", "{:.0f}"),
        "tokens_a_second": ("tokens/s", "{:.0f}"),
    }
    shown = {key: of for key, of in extra.items() if any(key in way for way in ways.values())}
    rows = []
    for name, way in ways.items():
        ms = way["ms"]
        spread = f"{ms['median']:.2f} ({ms['lowest']:.2f} to {ms['highest']:.2f}, n={ms['n']})"
        parts = " + ".join(f"{part:.2f}" for part in way["parts_ms"])
        rows.append(
            [
                name,
                spread,
                parts,
                f"{way['cpu_ms']:.2f}",
                *(form.format(way[key]) if key in way else "" for key, (_, form) in shown.items()),
            ]
        )
    heads = ["", "ms a step", "parts", "CPU ms", *(head for head, _ in shown.values())]
    return table(heads, rows)


def _kernels(of: Figures) -> Iterator[str]:
    parts = "".join(
        f"; part {i + 1}: {part['kernels']:.0f} kernels, {part['kernel_ms']:.2f} ms"
        for i, part in enumerate(of.get("parts", []))
    )
    yield (
        f"{of['kernels']:.0f} kernels a step, {of['kernel_ms']:.2f} ms of them; the card waits "
        f"{100 * of['waiting']:.0f} % of the step{parts}."
    )
    yield ""
    rows = [[f"`{name}`", f"{ms:.3f}", f"{n:.1f}"] for name, ms, n in of["top"]]
    yield from table(["kernel", "ms a step", "times"], rows)
    calls = ", ".join(f"{name} {count:.0f}" for name, count in of["calls"].items())
    if calls:
        yield from (f"CUDA's functions a step: {calls}.", "")


# Shared


def _shared(checks: Figures) -> Iterator[str]:
    rows = []
    for precision, of in _done(checks):
        alone = of["1"]["steps_a_second"]
        for count in ("1", "2", "4"):
            if count in of:
                rate = of[count]["steps_a_second"]
                rows.append([precision, count, f"{rate:.2f}", f"{rate / alone:.2f}"])
        yield f"{precision}: FRC, batch {of['batch']}, {of['run_seconds']:g} s each."
    yield ""
    yield from table(["", "seeds at once", "steps/s, all", "beside one"], rows)


# Real


def _real(checks: Figures) -> Iterator[str]:
    for name, of in _done(checks):
        yield (
            f"{name[0].upper()}{name[1:]}: {of['images']} images, batch {of['batch']}, "
            f"{of['epochs']} epochs planned."
        )
        yield ""
        keys = ["train/loss", "train/top1", "valid/loss", "valid/top1", "tau", "at_seconds"]
        rows = [
            [str(i + 1), *(f"{epoch[key]:.2f}" for key in keys)]
            for i, epoch in enumerate(of["curve"])
        ]
        yield from table(["epoch", *keys], rows)
        if "cell_top1" in of:
            yield f"The derived cell with the shared weights: {of['cell_top1']:.2f} % on D_V."


def _graph(checks: Figures) -> Iterator[str]:
    yield "Iterations, of W and of alpha, as CUDA graphs; a search is the paper's 240 epochs."
    yield ""
    rows = []
    for name, of in _done(checks):
        for way in ("graph", "eager", "plain"):
            if way not in of:
                continue
            ms, minutes = of[way]["ms"], of[way]["search_minutes"]
            spread = f"{ms['median']:.2f} ({ms['lowest']:.2f} to {ms['highest']:.2f}, n={ms['n']})"
            rows.append([f"{name}, batch {of['batch']}", way, spread, f"{minutes:.0f}"])
    yield from table(["", "", "ms an iteration", "search, minutes"], rows)
    for name, of in _done(checks):
        if "memory_gib" in of:
            heads = ["seeds at once", "iterations/s, all", "beside one"]
            alone = of["1"]["steps_a_second"]
            rates = {n: of[n]["steps_a_second"] for n in ("1", "2", "4") if n in of}
            rows = [[n, f"{rate:.1f}", f"{rate / alone:.2f}"] for n, rate in rates.items()]
            yield from table(heads, rows)
            yield f"A seed holds {max(of['memory_gib']):.1f} GiB of the card."
        if "again" in of:
            bits = [
                f"{key} {'equal' if of[key] else '**differs**'}" for key in ("again", "resumed")
            ]
            yield f"Bits: {', '.join(bits)}."
        if "curve" in of:
            yield f"An epoch of {name}: {of['epoch_seconds']:.2f} s."
            yield ""
            yield from _real({name: of})


PARTS = (
    ("right", "Right", _right),
    ("exact", "Exact", _exact),
    ("fast", "Fast", _fast),
    ("shared", "Shared", _shared),
    ("graph", "Graphs", _graph),
    ("real", "For real", _real),
)
