"""Look at a single cell: `python -m orchestrator.cell show|draw|count|convert CELL`. No Ray."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gdas.bench201.genotype import EDGES, Bench201Genotype
from gdas.cell_json import Edge
from gdas.cnn.genotype import EDGES_PER_NODE, PUBLISHED, Genotype, all_nodes, operations_of
from gdas.errors import InputError
from gdas.files import write_text
from gdas.genotype import AnyGenotype
from gdas.genotype_text import darts_text
from gdas.outside import check_named
from gdas.rnn.genotype import PUBLISHED_RECURRENT, RecurrentGenotype
from orchestrator.store.cells import find_cell
from orchestrator.terminal.command import (
    add_operations,
    command_parser,
    refuse_no_folder,
    run_command,
    say_next,
)
from orchestrator.terminal.words import columns

if TYPE_CHECKING:  # the help needs no PyTorch
    from gdas.other_counts import Counter

FIXED = "fixed-reduction"
COUNTERS = ("thop", "fvcore", "ptflops", "torchinfo")
STEMS = ("cifar", "imagenet")
FORMATS = (".svg", ".png", ".pdf")


def _names(names: Sequence[str], indent: str) -> str:
    """Names, wrapped to the width of the help text."""
    return textwrap.fill(
        ", ".join(names), 98, initial_indent=indent, subsequent_indent=indent
    ).strip()


CONVERSIONS = {".json": "gdas", ".txt": "darts"}
"""The format of a file, by its ending."""

MORE = f"""CELL is one of
  a published name     {_names([*PUBLISHED, *PUBLISHED_RECURRENT], " " * 23)}
  a genotype file      cell.json: ours, or what other projects write: the text Genotype(normal=...)
                       of DARTS and its followers, such as a line of a log; its fields as a
                       dictionary or as JSON; a NAS-Bench-201 cell |op~0|+|op~0|op~1|+...
  FILE:NAME            one of several in a Python file: genotypes.py:PC_DARTS_cifar
  the text itself      "Genotype(normal=[...], normal_concat=range(2, 6), reduce=[...], ...)"
  OUT:SEARCH           the cell that a study selected, such as runs/smoke:gdas-frc or
                       s3://BUCKET/runs/paper:gdas-frc
  {FIXED}      the hand-made reduction cell of the paper's Fig. 3 (show and draw)

examples:
  python -m orchestrator.cell show GDAS_V1
  python -m orchestrator.cell show runs/smoke:gdas-frc --json > cell.json
  python -m orchestrator.cell draw runs/smoke:gdas-frc --to cell.svg
  python -m orchestrator.cell convert log.txt --to cell.json    what DARTS printed, as our file
  python -m orchestrator.cell convert GDAS_V1                   as the text that DARTS reads
  python -m orchestrator.cell count GDAS_F1                     the paper's CIFAR network
  python -m orchestrator.cell count GDAS_F1 --stem imagenet     and its ImageNet network
  python -m orchestrator.cell count cell.json --channels 16 --normals-per-block 2 --image-size 64

Multiply-adds count convolutions and linear layers; parameters leave out the auxiliary head. The
authors count in the same way, so the figures can be compared with the paper's."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser(
        "orchestrator.cell",
        "Show a cell's edges, draw it, count its network's parameters and multiply-adds, or "
        "convert it from and to the text of other projects.",
        MORE,
        done="done",
    )
    parser.add_argument("what", choices=("show", "draw", "count", "convert"))
    parser.add_argument("cell", metavar="CELL", help="see below")
    parser.add_argument("--json", action="store_true", help="show: as a genotype file")
    parser.add_argument(
        "--to",
        type=Path,
        metavar="FILE",
        help="draw: .svg (default), .png or .pdf; convert: .json or .txt (default: print it)",
    )
    parser.add_argument(
        "--as",
        dest="form",
        choices=(*CONVERSIONS.values(), *COUNTERS),
        help="convert: gdas, our JSON file (default for .json), or darts, the text Genotype(...), "
        "for a NAS-Bench-201 cell its string (default); count, image cells: what that program "
        "counts, to compare a number from elsewhere",
    )
    count = parser.add_argument_group("count")
    count.add_argument("--stem", choices=STEMS, default="cifar", help="default: cifar")
    count.add_argument(
        "--channels", type=int, metavar="C", help="of the first cells (default: the paper's, "
        "36; ImageNet 50, or 52 with the fixed reduction cell)"
    )  # fmt: skip
    count.add_argument("--normals-per-block", type=int, metavar="N", help="default: 6; ImageNet 4")
    count.add_argument("--image-size", type=int, metavar="PIXELS", help="default: 32; ImageNet 224")
    count.add_argument("--classes", type=int, help="default: 10; ImageNet 1000")
    count.add_argument("--hidden", type=int, default=850, help="recurrent cells (default: 850)")
    count.add_argument("--vocabulary", type=int, default=10_000, help="recurrent (default: 10000)")
    add_operations(count)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(parser(), _cell, arguments)


USED = {"show": ("json",), "draw": ("to",), "convert": ("to", "form")}
"""The options that apply to each; to `count` all but these, and `form`."""
RECURRENT = ("hidden", "vocabulary")
"""The options of `count` for recurrent cells; the others are for cells of images."""


def _cell(options: argparse.Namespace) -> int:
    own = [name for names in USED.values() for name in names]
    counted = [name for name in vars(parser().parse_args(["count", ""])) if name not in own]
    unused = {*own, *counted} - {*USED.get(options.what, (*counted, "form")), "what", "cell"}
    _refuse_unused(options, unused, f"to {options.what}")
    return COMMANDS[options.what](options)


def _refuse_unused(options: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Refuse options that do not apply, unless they have their default."""
    usual = vars(parser().parse_args(["count", ""]))
    for name in sorted(names):
        if getattr(options, name) != usual[name]:
            word = "--as" if name == "form" else f"--{name.replace('_', '-')}"
            raise InputError(f"{word}: does not apply {why}; leave it out")


def _show(options: argparse.Namespace) -> int:
    if options.cell == FIXED:
        from gdas.drawing.draw import FIXED_REDUCTION  # here: the help needs no matplotlib

        for name, source, layers in FIXED_REDUCTION:
            print(f"{name} = {SOURCES[source]}: {', '.join(layers)}")
        print("output: X0, X1, X2, X3, concatenated")
        say_next(f"python -m orchestrator.cell draw {FIXED}")
        return 0
    cell = find_cell(options.cell)
    if options.json:
        print(json.dumps(cell.to_json(), indent=1))
        return 0
    print("\n".join([cell.name, *in_words(cell)]))
    say_next(f"python -m orchestrator.cell draw {_word(options.cell)}")
    return 0


def _word(named: str) -> str:
    """Quote a CELL for a command line."""
    return shlex.quote(named)


def _convert(options: argparse.Namespace) -> int:
    if options.cell == FIXED:
        raise InputError(f"{FIXED}: is a part of a genotype; name a cell, such as GDAS_F1")
    path: Path | None = options.to
    if path is not None and path.suffix not in CONVERSIONS:
        raise InputError(f"--to {path}: must end with {' or '.join(CONVERSIONS)}")
    if path is not None:
        refuse_no_folder(path)
    value = find_cell(options.cell).to_json()
    if options.form in COUNTERS:
        raise InputError(
            f"--as {options.form}: is for count; convert takes --as gdas or --as darts"
        )
    form = options.form or (CONVERSIONS[path.suffix] if path is not None else "darts")
    text = json.dumps(value, indent=1) if form == "gdas" else darts_text(value)
    if path is None:
        print(text)
        return 0
    try:
        write_text(path, text + "\n")
    except OSError as error:
        raise InputError(f"--to {path}: cannot write ({error.strerror})") from None
    print(f"written: {path}")
    say_next(f"python -m orchestrator.cell show {_word(str(path))}")
    return 0


SOURCES = ("c_{k-2}", "c_{k-1}")


def in_words(cell: AnyGenotype) -> list[str]:
    """Describe a cell, with one line per node or state."""
    if isinstance(cell, RecurrentGenotype):
        lines = [
            f"  state {i + 1} = {name} of state {source}"
            for i, (name, source) in enumerate(cell.recurrent)
        ]
        states = ", ".join(map(str, cell.concat))
        return [*lines, f"  output = mean of states {states}"]
    if isinstance(cell, Bench201Genotype):
        edges = zip(EDGES, cell.operations, strict=True)
        return [f"  node {node} adds {name} of node {source}" for (node, source), name in edges]
    lines = ["normal cell", *_nodes(cell.normal, cell.normal_concat)]
    if cell.reduce is None:
        return [*lines, f"reduction cell: fixed (paper Fig. 3; see {FIXED})"]
    return [*lines, "reduction cell", *_nodes(cell.reduce, cell.reduce_concat)]


def _nodes(edges: Sequence[Edge], concat: Sequence[int]) -> list[str]:
    names = [*SOURCES, *(f"node {i}" for i in range(len(edges) // EDGES_PER_NODE))]
    rows = []
    for node in range(len(edges) // EDGES_PER_NODE):
        pair = edges[EDGES_PER_NODE * node : EDGES_PER_NODE * (node + 1)]
        terms = [f"{operation} of {names[source]}" for operation, source in pair]
        rows.append((f"  node {node}", "=", terms[0], "+", terms[1]))
    lines = columns(rows)
    if concat != all_nodes(edges):
        lines.append(f"  output = {', '.join(names[node] for node in concat)}, concatenated")
    return lines


def _draw(options: argparse.Namespace) -> int:
    if options.to is not None:
        refuse_no_folder(options.to)
    from gdas.drawing.draw import draw, draw_fixed_reduction

    cell = None if options.cell == FIXED else find_cell(options.cell)
    stem = options.cell.rpartition(":")[2] if ":" in options.cell else Path(options.cell).stem
    if cell is not None and not re.fullmatch(r"[\w. -]{1,100}", stem):  # a genotype's text
        stem = cell.name if re.fullmatch(r"[\w-]{1,100}", cell.name) else "cell"
    path = options.to or Path(f"{stem}.svg")
    if path.suffix not in FORMATS:
        raise InputError(f"--to {path}: must end with {', '.join(FORMATS)}")
    try:
        draw_fixed_reduction(path) if cell is None else draw(cell, path)
    except OSError as error:
        raise InputError(f"--to {path}: cannot write ({error.strerror})") from None
    print(f"drawn: {path}")
    # Neither of the two that are only shown can be counted.
    then = "show" if cell is None or isinstance(cell, Bench201Genotype) else "count"
    say_next(f"python -m orchestrator.cell {then} {_word(options.cell)}")
    return 0


MOST = {
    "channels": 10_000,
    "normals_per_block": 1000,
    "image_size": 10_000,
    "classes": 10_000_000,
    "hidden": 100_000,
    "vocabulary": 100_000_000,
}
"""Larger values overflow the sizes of tensors, or counting takes too long."""


def _count(options: argparse.Namespace) -> int:
    if options.cell == FIXED:
        raise InputError(f"{FIXED}: counted as a part of a network; name a cell, such as GDAS_F1")
    cell = find_cell(options.cell)
    if isinstance(cell, Bench201Genotype):
        raise InputError(
            f"{options.cell}: a NAS-Bench-201 cell; its benchmark has its figures, and a cell of "
            "the paper's spaces is counted, such as GDAS_F1"
        )
    if options.form is not None and options.form not in COUNTERS:
        raise InputError(f"--as {options.form}: is for convert; count takes {', '.join(COUNTERS)}")
    if options.form is not None and isinstance(cell, RecurrentGenotype):
        raise InputError(f"--as {options.form}: is for image cells; leave it out for {cell.name}")
    others = {*MOST, "stem", "operations"} - set(RECURRENT)
    recurrent = isinstance(cell, RecurrentGenotype)
    unused = others if recurrent else RECURRENT
    kind = "a recurrent cell" if recurrent else "a cell of images"
    _refuse_unused(options, unused, f"to {kind} ({cell.name})")
    for key, most in MOST.items():
        if (value := getattr(options, key)) is not None and not 1 <= value <= most:
            raise InputError(f"--{key.replace('_', '-')} {value}: must be from 1 to {most}")
    if isinstance(cell, RecurrentGenotype):
        import torch

        from gdas.metrics import count_parameters
        from gdas.rnn.language_model import LanguageModel

        with torch.device("meta"):
            model = LanguageModel(cell, options.vocabulary, options.hidden)
        rows = [
            ("network", f"language model, hidden {options.hidden}, {options.vocabulary:,} words"),
            ("parameters", f"{count_parameters(model):,}"),
        ]
    else:
        rows = _count_images(cell, options)
    print("\n".join([cell.name, *columns(rows)]))
    say_next(f"python -m orchestrator.cell draw {_word(options.cell)}")
    return 0


def _count_images(cell: Genotype, options: argparse.Namespace) -> list[tuple[str, str]]:
    import torch  # here: the help needs no PyTorch

    from gdas.cnn.network import Network
    from gdas.metrics import count_multiply_adds, count_parameters
    from gdas.other_counts import RULES, multiply_adds_as

    imagenet = options.stem == "imagenet"
    wide = 52 if cell.reduce is None else 50
    channels = options.channels or (wide if imagenet else 36)
    normals = options.normals_per_block or (4 if imagenet else 6)
    size = options.image_size or (224 if imagenet else 32)
    classes = options.classes or (1000 if imagenet else 10)
    if imagenet and channels % 2:
        raise InputError(
            f"--channels {channels}: the ImageNet stem needs an even number, such as {channels + 1}"
        )
    check_named(operations_of(cell), options.operations, cell.name, "--operations {}")
    with torch.device("meta"):
        network = Network(
            cell,
            classes,
            channels=channels,
            normals_per_block=normals,
            stem=options.stem,
            operations=options.operations,
        )
        image = torch.zeros(1, 3, size, size)
        adds, parameters = count_multiply_adds(network, image), count_parameters(network)
        theirs: list[tuple[str, str]] = []
        if options.form is not None:
            counter = cast("Counter", options.form)
            other = multiply_adds_as(counter, network, image)
            theirs = [
                (f"as {counter}", f"{other:,} ({100 * (other / adds - 1):+.1f} %)"),
                ("it counts", f"{counter} {RULES[counter]}"),
            ]
    return [
        (
            "network",
            f"{options.stem}, C={channels}, N={normals}, {size} x {size}, {classes} classes",
        ),
        ("parameters", f"{parameters:,}"),
        ("multiply-adds", f"{adds:,}"),
        *theirs,
    ]


COMMANDS = {"show": _show, "draw": _draw, "count": _count, "convert": _convert}


if __name__ == "__main__":
    sys.exit(main())
