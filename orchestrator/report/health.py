"""How decided a search is, edge by edge over its epochs, and alarms for the reader of its result.

Pure: it reads a search's records, whose details hold the logits of every epoch. Users of the
authors' code report searches that end in skip connections and pooling, and the logits of published
cells have hardly left uniform; random cells may then be as good. This module looks for both, and
for moves of the logits that one epoch makes and another does not.

Shapes: E edges of a cell (node by node, then by source), K operations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gdas.bench201.genotype import Bench201Genotype
from gdas.cnn.genotype import Genotype
from gdas.derive import PARAMETER_FREE, parameter_free
from gdas.genotype import any_from_json
from gdas.presets import AnySearchConfig
from gdas.rnn.genotype import RecurrentGenotype
from orchestrator.experiment.spaces import SPACES
from orchestrator.report.split_half import split_half
from orchestrator.store.results import Record

COLLAPSED = 3 / 4
"""The share of a cell at which it counts as collapsed: 6 of 8 operations, or 3/4 of the edges.

The published cells have 4 of 8.
"""

UNMOVED = 0.99
"""Mean entropy / log K above which the logits have hardly moved from uniform.

The published cells come from such searches: the probabilities stored with one of them are 0.127 to
0.131, against a uniform 0.125. So do the sixteen of `gdas` in NAS-Bench-201 (0.992 to 0.995), which
are far better than random cells: the largest logits may be right however small they are.
"""


@dataclass(frozen=True)
class EdgeHistory:
    """One cell type's edges over a search: one row per epoch, one value per edge.

    Attributes:
        positions: positions of the records, counted from 1.
        entropy: entropy of the edge's distribution, divided by log K: 1 is undecided, 0 decided.
        margin: probability of the best operation minus that of the next best, of all K.
    """

    positions: tuple[int, ...]
    entropy: tuple[tuple[float, ...], ...]
    margin: tuple[tuple[float, ...], ...]

    @property
    def mean_entropy(self) -> float:
        """The mean over the edges, after the last record."""
        return sum(self.entropy[-1]) / len(self.entropy[-1])

    @property
    def mean_margin(self) -> float:
        """The mean over the edges, after the last record."""
        return sum(self.margin[-1]) / len(self.margin[-1])


@dataclass(frozen=True)
class Alarm:
    """Something that a reader of a search's result should know.

    Attributes:
        kind: collapse, unmoved logits, a step decided by noise, or epochs that do not agree.
        text: a sentence for the report.
    """

    kind: Literal["collapse", "unmoved", "noise", "disagreement"]
    text: str


@dataclass(frozen=True)
class Health:
    """The health of one search.

    Attributes:
        edges: the history of the edges, by cell type.
        parameter_free: (position, operations without parameters) of the normal cell or the only
            cell.
        alarms: empty for a healthy search.
    """

    edges: dict[str, EdgeHistory]
    parameter_free: tuple[tuple[int, int], ...]
    alarms: tuple[Alarm, ...]


def search_health(records: Sequence[Record], config: AnySearchConfig) -> Health:
    """Judge a search from its records; empty if there are none yet."""
    return Health(
        edge_histories(records),
        tuple(parameter_free_counts(records)),
        tuple(alarms(records, config)),
    )


def edge_histories(records: Sequence[Record]) -> dict[str, EdgeHistory]:
    """Entropy and margin of every edge, by cell type; records without logits are skipped."""
    found = [(r["position"], logits) for r in records if (logits := _logits(r))]
    histories = {}
    for kind in found[0][1] if found else ():
        positions = tuple(position for position, _ in found)
        values = [[_decided(row) for row in logits[kind]] for _, logits in found]
        entropy = tuple(tuple(e for e, _ in edges) for edges in values)
        margin = tuple(tuple(m for _, m in edges) for edges in values)
        histories[kind] = EdgeHistory(positions, entropy, margin)
    return histories


def _logits(record: Record) -> dict[str, list[list[float]]]:
    logits: dict[str, list[list[float]]] = record.get("details", {}).get("logits", {})
    return logits


def _decided(logits_K: Sequence[float]) -> tuple[float, float]:
    """Entropy / log K and margin of one edge."""
    top = max(logits_K)
    weights = [math.exp(a - top) for a in logits_K]
    p_K = sorted((w / sum(weights) for w in weights), reverse=True)
    entropy = -sum(p * math.log(p) for p in p_K if p > 0) / math.log(len(p_K))
    return entropy, p_K[0] - p_K[1]


def parameter_free_counts(records: Sequence[Record]) -> list[tuple[int, int]]:
    """(position, operations without parameters) of the derived normal cell, or of the only cell."""
    return [
        (r["position"], int(r["metrics"][key]))
        for r in records
        for key in ("normal/parameter_free", "cell/parameter_free")
        if key in r["metrics"]
    ]


def alarms(records: Sequence[Record], config: AnySearchConfig) -> list[Alarm]:
    """What is suspicious in a search's last record."""
    histories = edge_histories(records)
    if not histories:
        return []
    found = [*_collapse(records, config), *_unmoved(histories)]
    found += _disagreement(records, histories, config)
    if SPACES[config.task].lone_first_edge and config.sampler.relaxation == "hard":
        found += _noise(histories)
    return found


def _collapse(records: Sequence[Record], config: AnySearchConfig) -> list[Alarm]:
    space = SPACES[config.task]
    last = next(r for r in reversed(records) if _logits(r))
    match any_from_json(last["details"]["genotype"]):
        case Genotype() as cell:
            edges, word = cell.normal, "normal cell"
        case Bench201Genotype() as bench201:
            edges = tuple((operation, 0) for operation in bench201.operations)
            word = "cell"
        case recurrent:
            return _linear(recurrent)
    found = []
    free, kept = parameter_free(edges), len(edges)
    if free >= COLLAPSED * kept:
        text = f"collapsed: {free} of {kept} operations of the {word} have no parameters."
        found.append(Alarm("collapse", text))
    rows_EK = _logits(last).get(space.main_cell, [])
    names, can_be_kept = space.operations(config), space.kept(config)
    columns = [k for k, name in enumerate(names) if name in can_be_kept]
    best = [names[max(columns, key=row.__getitem__)] for row in rows_EK]
    for operation in PARAMETER_FREE:
        count = best.count(operation)
        if best and count >= COLLAPSED * len(best):
            text = (
                f"collapsed: {operation} is the most probable operation on {count} of {len(best)} "
                f"edges of the {word}."
            )
            found.append(Alarm("collapse", text))
    return found


def _linear(cell: RecurrentGenotype) -> list[Alarm]:
    """Whether a recurrent cell is nearly linear, as those of DARTS, ENAS and GDAS are not."""
    functions = [function for function, _ in cell.recurrent]
    count = functions.count("identity")
    if count < COLLAPSED * len(functions):
        return []
    text = f"collapsed: {count} of {len(functions)} functions of the recurrent cell are identity."
    return [Alarm("collapse", text)]


def _words(kind: str) -> str:
    return kind if kind == "cell" else f"{kind} cell"


def _unmoved(histories: dict[str, EdgeHistory]) -> list[Alarm]:
    return [
        Alarm(
            "unmoved",
            f"the logits of the {_words(kind)} have hardly moved (mean entropy / log K "
            f"{history.mean_entropy:.4f}): only random cells tell whether this one is more than "
            "chance.",
        )
        for kind, history in histories.items()
        if history.mean_entropy > UNMOVED
    ]


def _noise(histories: dict[str, EdgeHistory]) -> list[Alarm]:
    return [
        Alarm(
            "noise",
            "step 1 has one incoming term, and the shared batch norm without affine removes nearly "
            "all of the gate's gradient there, so its function is decided by noise (margin "
            f"{history.margin[-1][0]:.4f}; mean of all edges {history.mean_margin:.4f}).",
        )
        for history in histories.values()
    ]


def _disagreement(
    records: Sequence[Record], kinds: Iterable[str], config: AnySearchConfig
) -> list[Alarm]:
    halves = {kind: split_half(records, config, kind) for kind in kinds}
    return [
        Alarm(
            "disagreement",
            f"what the logits of the {_words(kind)} gained in odd and in even epochs agrees no "
            "more than by chance: its operations may be chosen by noise.",
        )
        for kind, agreement in halves.items()
        if agreement is not None and agreement.is_noise
    ]


def edge_figure(path: Path, histories: Mapping[str, Sequence[Record]]) -> bool:
    """Draw every edge's entropy over the epochs: one column per seed, one row per cell type.

    Args:
        path: PNG or SVG file.
        histories: the records of every seed, by its label.

    Returns:
        Whether there was anything to draw.
    """
    seeds = {label: edge_histories(records) for label, records in histories.items()}
    seeds = {label: kinds for label, kinds in seeds.items() if kinds}
    if not seeds:
        return False
    kinds = list(next(iter(seeds.values())))
    edges = {kind: len(next(iter(seeds.values()))[kind].entropy[0]) for kind in kinds}
    figure = Figure(
        figsize=(1.6 + 1.9 * len(seeds), 0.9 + sum(1.0 + 0.1 * edges[kind] for kind in kinds)),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(
        len(kinds), len(seeds), squeeze=False, height_ratios=[10 + edges[k] for k in kinds]
    )
    # One scale for all panels, down to the most decided edge, since most searches stay close to 1.
    least = min(e for found in seeds.values() for h in found.values() for r in h.entropy for e in r)
    for row, kind in enumerate(kinds):
        starts, word = _node_starts(edges[kind]), "step" if kind == "recurrent" else "node"
        for column, (label, found) in enumerate(seeds.items()):
            axes, history = grid[row, column], found[kind]
            first, last = history.positions[0], history.positions[-1]
            image = axes.imshow(
                list(zip(*history.entropy, strict=True)),
                aspect="auto",
                interpolation="nearest",
                cmap="Blues_r",
                vmin=min(least, 1 - 1e-4),
                vmax=1,
                extent=(first - 0.5, last + 0.5, edges[kind] - 0.5, -0.5),
            )
            for start in starts[1:]:
                axes.axhline(start - 0.5, color="#8c959f", lw=0.6)
            axes.set_title(f"{label}, {_words(kind)}", size=8)
            if column == 0:
                axes.set_yticks(starts, [f"{word} {i}" for i in range(1, 1 + len(starts))])
            else:
                axes.set_yticks([])
            axes.tick_params(labelsize=7)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
            if row == len(kinds) - 1:
                axes.set_xlabel("epoch", size=8)
    bar = figure.colorbar(image, ax=grid, fraction=0.05, pad=0.02)
    bar.set_label("entropy / log K of an edge; 1: undecided", size=8)
    bar.ax.tick_params(labelsize=7)
    figure.savefig(path, dpi=120)
    return True


def _node_starts(edges: int) -> list[int]:
    """The rows at which a node's edges begin.

    Every node has one edge more than the one before. The first has two (image cells) or one
    (recurrent cells), and no number of edges is possible in both cases.
    """
    for first in (1, 2):
        ends = list(accumulate(range(first, first + edges)))
        if edges in ends:
            return [0, *ends[: ends.index(edges)]]
    return [0]
