"""Searches of NAS-Bench-201 against the truth: where each derived cell stands among all cells.

From the results of lookups alone, so that the report needs no table. Every method gives one cell a
seed; all are held against cells drawn uniformly, by the exact distribution of the mean percentile
of as many such cells.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gdas.bench201.genotype import all_bench201_cells, reaches_output
from gdas.bench201.network import picks_of
from orchestrator.evidence import LEVEL, permutation_p, summary, uniform_p
from orchestrator.experiment import Experiment, SearchSpec
from orchestrator.report.figures import COLOURS
from orchestrator.report.markup import NOT_RUN, duration, table
from orchestrator.store import JobFolder, Record, Store
from orchestrator.study import Study

Result = dict[str, Any]

LOWEST_SHOWN = 1 / 20
"""Share of the worst cells that the figure gathers at its left edge."""

RELAXATIONS = {
    "hard": "hard draws, as GDAS",
    "soft": "relaxed samples",
    "softmax": "softmax weights, as DARTS",
}


@dataclass(frozen=True)
class Method:
    """One way to come to a cell, tried once a seed.

    Attributes:
        name: for the reader.
        standings: of its cells, by seed.
        seconds: a seed's cost, where it is known.
    """

    name: str
    standings: dict[int, Result]
    seconds: float | None

    def values(self, key: str) -> list[float]:
        return [float(standing[key]) for standing in self.standings.values()]


def truth(experiment: Experiment, study: Study, store: Store, folder: Path) -> list[str]:
    """All searches that are looked up; nothing where there is none."""
    specs = {name: s for name, s in experiment.searches.items() if s.lookup is not None}
    if not specs:
        return []
    parts = ["## Do the searches find good cells? The truth of NAS-Bench-201\n"]
    for column in dict.fromkeys(s.lookup.column for s in specs.values() if s.lookup):
        of_column = {n: s for n, s in specs.items() if s.lookup and s.lookup.column == column}
        parts += _column(column, of_column, study, store, folder)
    parts += _no_path(specs, study, store)
    return parts


def _column(
    column: str, specs: dict[str, SearchSpec], study: Study, store: Store, folder: Path
) -> list[str]:
    folders = {name: [store.folder(job) for job in study.lookups_of(name)] for name in specs}
    found = {name: _results(of_name) for name, of_name in folders.items()}
    parts = [f"\n### True accuracy: {column}\n"]
    if not any(found.values()):
        return [*parts, f"{NOT_RUN}: no lookup has ended.\n"]
    every = _distribution(folders)
    methods = _methods(specs, found)
    total, worst_first = sum(every["cells"]), every["cells"]
    mean = sum(a * c for a, c in zip(every["accuracies"], worst_first, strict=True)) / total
    parts.append(
        f"Every one of the {total:,} cells has been trained; what a search derives is looked up "
        f"once the search has ended. All cells: mean {mean:.2f} %, best "
        f"{every['accuracies'][-1]:.2f} %. A percentile is the share of all cells that are worse, "
        "half of equal ones counted: 50 on average for a uniformly drawn cell. p: how often as "
        "many uniformly drawn cells have a mean percentile this high (exact, one-sided).\n"
    )
    parts.append(_table(methods, worst_first))
    parts += [f"\n{sentence}\n" for sentence in _sentences(methods, found, worst_first)]
    figure = f"truth-{column}.png"
    distribution_figure(folder / figure, every, methods, column)
    parts.append(f"\n![All cells, and where each seed landed]({figure})\n")
    parts += _correlations(specs, found)
    figure = f"truth-epochs-{column}.png"
    epochs_figure(folder / figure, found)
    parts += [
        "\n### The derived cell's true standing over the epochs\n",
        "What would have been derived after each epoch, looked up after the search.\n",
        f"\n![Percentile of the derived cell over the epochs]({figure})\n",
    ]
    return parts


def _results(folders: list[JobFolder]) -> list[Result]:
    return [result for folder in folders if (result := folder.result()) is not None]


def _distribution(folders: dict[str, list[JobFolder]]) -> dict[str, list[Any]]:
    """The table's column, as the first lookup that is done left it."""
    done = (f for of_name in folders.values() for f in of_name if f.result() is not None)
    found: dict[str, list[Any]] = json.loads((next(done).path / "distribution.json").read_text())
    return found


def _methods(specs: dict[str, SearchSpec], found: dict[str, list[Result]]) -> list[Method]:
    """Of every search its cells and the best by its weights; of the first its uniform cells."""
    methods: list[Method] = []
    uniform: dict[int, Result] = {}
    for name, spec in specs.items():
        results = found[name]
        if not results:
            continue
        seconds = statistics.fmean(r["search_seconds"] for r in results)
        how = RELAXATIONS[spec.recipe.sampler.relaxation]
        derived = {r["seed"]: r["derived"] for r in results}
        methods.append(Method(f"{name}: derived cell ({how})", derived, seconds))
        k = results[0]["best_of"]["k"]
        methods.append(
            Method(
                f"{name}: best of {k} uniform cells by its shared weights",
                {r["seed"]: r["best_of"] for r in results},
                seconds + statistics.fmean(r["best_of_seconds"] for r in results),
            )
        )
        for result in results:  # a seed draws the same uniform cell in every search
            uniform.setdefault(result["seed"], result["uniform"])
    return [*methods, Method("a uniformly drawn cell", uniform, 0.0)]


def _table(methods: list[Method], cells: list[int]) -> str:
    rows = []
    for method in methods:
        accuracy, percentile = summary(method.values("accuracy")), method.values("percentile")
        spread = "" if accuracy.sd is None else f" ± {accuracy.sd:.2f}"
        rows.append(
            [
                method.name,
                str(accuracy.n),
                f"{accuracy.mean:.2f}{spread}",
                ", ".join(f"{a:.2f}" for a in method.values("accuracy")),
                f"{statistics.fmean(percentile):.1f}",
                f"{statistics.median(method.values('rank')):,.0f}",
                f"{statistics.fmean(method.values('regret')):.2f}",
                f"{uniform_p(cells, percentile):.4f}",
                duration(method.seconds) if method.seconds else "-",
            ]
        )
    header = [
        "method",
        "seeds",
        "accuracy, %: mean ± sd",
        "each seed",
        "mean percentile",
        "median rank",
        "mean regret, points",
        "p against uniform",
        "time a seed",
    ]
    return table(header, rows)


def _sentences(
    methods: list[Method], found: dict[str, list[Result]], cells: list[int]
) -> list[str]:
    """Whether each search is better than uniform draws, and searches than one another."""
    by_name = {method.name.partition(":")[0]: method for method in reversed(methods)}
    sentences = []
    for name, results in found.items():
        if not results:
            sentences.append(f"**{name}: {NOT_RUN}.**")
            continue
        percentiles = by_name[name].values("percentile")
        mean, p = statistics.fmean(percentiles), uniform_p(cells, percentiles)
        better = p < LEVEL
        sentences.append(
            f"**{name} is {'better' if better else 'not better'} than uniform draws here**: mean "
            f"percentile {mean:.1f} against 50 over {len(percentiles)} seeds, p = {p:.4f}."
        )
    for a, b in zip(list(found), list(found)[1:], strict=False):
        if found[a] and found[b]:
            ours, theirs = by_name[a].values("percentile"), by_name[b].values("percentile")
            p = permutation_p(ours, theirs, "higher")
            sentences.append(
                f"{a} against {b}: mean percentile {statistics.fmean(ours):.1f} against "
                f"{statistics.fmean(theirs):.1f}; that chance alone makes {a} this much better: "
                f"p = {p:.3f} (exact permutation test)."
            )
    return sentences


def _correlations(specs: dict[str, SearchSpec], found: dict[str, list[Result]]) -> list[str]:
    rows = []
    for name, results in found.items():
        lookup = specs[name].lookup
        assert lookup is not None
        values = [r["correlation"] for r in results if r["correlation"] is not None]
        rows.append(
            [
                name,
                f"{lookup.cells} cells, {lookup.images:,} images of D_V",
                ", ".join(
                    "not defined" if r["correlation"] is None else f"{r['correlation']:.2f}"
                    for r in results
                )
                or NOT_RUN,
                summary(values).text if values else NOT_RUN,
            ]
        )
    return [
        "\n### Do shared weights order cells rightly?\n",
        "Spearman's rank correlation of top-1 on D_V with shared weights (batch norm collected "
        "anew for every cell) with the true accuracy, over uniformly drawn cells, others for "
        "every seed. 1: the same order; 0: none.\n",
        table(["search", "over", "each seed", "mean ± standard deviation"], rows),
    ]


def _no_path(specs: dict[str, SearchSpec], study: Study, store: Store) -> list[str]:
    """Draws in which no path reaches the output."""
    rows = []
    for name in specs:
        records = [r for job in study.searches(name) for r in store.folder(job).records()]
        counts = [_share(records, half) for half in ("train", "valid")]
        if records:
            rows.append([name, *counts])
    if not rows:
        return []
    cells = [reaches_output([k for _, k in picks_of(cell)]) for cell in all_bench201_cells()]
    none = 100 * cells.count(False) / len(cells)
    return [
        "\n### Draws in which no path reaches the output\n",
        "With `none` on the wrong edges the output does not depend on the image, and the step "
        f"learns nothing of it. Of all cells {none:.1f} % are so; a network whose cells draw apart "
        "is cut where any of them is.\n",
        table(["search", "W steps", "alpha steps"], rows),
    ]


def _share(records: list[Record], half: str) -> str:
    draws = sum(int(r["metrics"].get(f"{half}/draws", 0)) for r in records)
    lost = sum(int(r["metrics"].get(f"{half}/no_path", 0)) for r in records)
    return f"{lost:,} of {draws:,} ({100 * lost / draws:.1f} %)" if draws else "nothing is drawn"


def distribution_figure(
    path: Path, every: dict[str, list[Any]], methods: list[Method], column: str
) -> None:
    """All cells as a histogram, under it a row a method with a mark for every seed.

    The worst cells lie far below the others: LOWEST_SHOWN of them are gathered at the left edge.
    """
    accuracies, cells = every["accuracies"], every["cells"]
    total, below, left = sum(cells), 0, 0.0
    for accuracy, count in zip(accuracies, cells, strict=True):
        left = float(accuracy)
        if below + count > LOWEST_SHOWN * total:
            break
        below += count
    right = float(accuracies[-1])
    margin = 0.02 * (right - left) or 1.0
    figure = Figure(figsize=(9, 3.2 + 0.42 * len(methods)), layout="constrained")
    FigureCanvasAgg(figure)
    top, rows = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 0.3 + 0.42 * len(methods)])
    shown = [max(a, left) for a in accuracies]
    top.hist(shown, bins=70, range=(left, right), weights=cells, color="#c8d1da")
    for name, value in (
        ("median", _quantile(every, 0.5)),
        ("best 1 %", _quantile(every, 0.99)),
        ("best", right),
    ):
        top.axvline(value, color="#57606a", lw=0.9, ls=":")
        top.annotate(
            name,
            (value, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-2, -3),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="top",
            size=7,
            color="#57606a",
        )
    top.set_ylabel("cells", size=8)
    top.set_title(
        f"{total:,} cells by {column}; the {100 * below / total:.0f} % below {left:.1f} % at the "
        "left edge",
        size=9,
        loc="left",
    )
    for i, method in enumerate(methods):
        values = [max(v, left) for v in method.values("accuracy")]
        colour = COLOURS[i % len(COLOURS)]
        rows.plot(values, [i] * len(values), "o", color=colour, ms=6, alpha=0.65, mec="none")
        rows.plot(
            [max(statistics.fmean(method.values("accuracy")), left)],
            [i],
            "|",
            color=colour,
            ms=20,
            mew=2,
        )
    rows.set_yticks(range(len(methods)), [method.name for method in methods])
    rows.set_ylim(len(methods) - 0.4, -0.6)
    rows.set_xlim(left - margin, right + margin)
    rows.set_xlabel("true accuracy, %; a dot a seed, a bar the mean", size=8)
    for axes in (top, rows):
        axes.tick_params(labelsize=7)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _quantile(every: dict[str, list[Any]], share: float) -> float:
    """The accuracy that `share` of the cells do not exceed."""
    reached, total = 0, sum(every["cells"])
    for accuracy, count in zip(every["accuracies"], every["cells"], strict=True):
        reached += count
        if reached >= share * total:
            return float(accuracy)
    return float(every["accuracies"][-1])


def epochs_figure(path: Path, found: dict[str, list[Result]]) -> None:
    """Percentile of the derived cell over the epochs: a panel a search, a line a seed."""
    shown = {name: results for name, results in found.items() if results}
    figure = Figure(figsize=(5.0 * len(shown), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axes, (name, results) in zip(panels, shown.items(), strict=True):
        for i, result in enumerate(results):
            x = [epoch["epoch"] for epoch in result["epochs"]]
            y = [epoch["percentile"] for epoch in result["epochs"]]
            axes.plot(
                x, y, color=COLOURS[i % len(COLOURS)], lw=0.9, alpha=0.7, label=str(result["seed"])
            )
        means = [
            statistics.fmean(epoch["percentile"] for epoch in epochs)
            for epochs in zip(*(result["epochs"] for result in results), strict=False)
        ]
        axes.plot(range(1, 1 + len(means)), means, color="#1b1f24", lw=2.2, label="mean")
        axes.axhline(50, color="#57606a", lw=0.9, ls=":")
        axes.set_title(f"{name}: percentile of the derived cell", size=9)
        axes.set_xlabel("epoch", size=8)
        axes.set_ylim(0, 100)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(title="seed", title_fontsize=7, fontsize=7, frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)
