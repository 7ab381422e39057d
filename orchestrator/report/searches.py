"""The searches: every seed, the selection, and whether searching was better than random cells."""

from __future__ import annotations

import statistics

from gdas.bench201.genotype import Bench201Genotype
from gdas.cnn.genotype import Genotype
from gdas.derive import parameter_free
from gdas.genotype import any_from_json
from orchestrator.experiment.config import SearchSpec
from orchestrator.experiment.kinds import load
from orchestrator.experiment.spaces import SPACES
from orchestrator.experiment.study import Job
from orchestrator.report.comparison import Comparison, compare
from orchestrator.report.figures.curves import History, curves, draw
from orchestrator.report.figures.over_epochs import over_epochs
from orchestrator.report.figures.probabilities import probability_figure
from orchestrator.report.health import edge_figure, search_health
from orchestrator.report.markup import NOT_RUN
from orchestrator.report.parts import Cell, Measured, Part, Shown, Table, measured
from orchestrator.report.split_half import split_half
from orchestrator.report.spread import caveat, spread_parts
from orchestrator.report.statistics import better_of, p_is, paired_p, summary
from orchestrator.report.view import Results
from orchestrator.store.results import FinalResult, GenotypeJson, ProxyResult, Record, SearchResult


def track(name: str, results: Results) -> list[Part]:
    """The report's part on one search: its seeds, curves, edges, alarms and the selected cell."""
    spec, folder = results.experiment.searches[name], results.folder
    parts: list[Part] = [f"## {_title(name, spec)}\n", f"{size_of_search(spec)}\n"]
    parts += _seeds(name, spec, results)
    histories = {
        f"seed {job.recipe['config']['seed']}": results.records(job)
        for job in results.study.searches(name)
    }
    histories = {label: records for label, records in histories.items() if records}
    if histories:
        space = SPACES[spec.recipe.task]
        kind, metric = space.main_cell, space.metric
        cell = kind if kind == "cell" else f"{kind} cell"
        parts.append(
            curves(
                folder / f"search-{name}.svg",
                f"Search curves of {name}",
                {label: History(records) for label, records in histories.items()},
                [
                    ("valid/loss", "loss of sampled cells on D_V"),
                    (metric, f"{metric} of sampled cells"),
                    (f"{kind}/entropy", f"entropy / log K, {cell}"),
                ],
            )
        )
        figure = f"edges-{name}.png"
        if edge_figure(folder / figure, histories):
            parts.append(f"\n![Entropy of every edge of {name}]({figure})\n")
        parts += _probabilities(name, spec, results)
        parts += _alarms(spec, histories)
    parts += _drawn_against_uniform(name, results)
    record = results.selection(name)
    if record is not None:
        figure = cell_figure(name)
        draw(record["winner"]["genotype"], folder / figure)
        parts.append(f"\nThe selected cell (seed {record['winner']['seed']}):\n")
        parts.append(f"\n![The cell selected from {name}]({figure})\n")
    return parts


def cell_figure(name: str) -> str:
    """The file of the drawing of a search's selected cell."""
    return f"cell-{name}.svg"


def _probabilities(name: str, spec: SearchSpec, results: Results) -> list[Part]:
    """Heat maps of the selected seed, or of the first one if nothing is selected yet."""
    record = results.selection(name)
    winner = record["winner"]["seed"] if record else None
    jobs = {job.recipe["config"]["seed"]: job for job in results.study.searches(name)}
    seed = winner if winner in jobs else next(iter(jobs), None)
    parts: list[Part] = []
    if seed is None:
        return parts
    records = results.records(jobs[seed])
    done = results.result(jobs[seed], SearchResult)
    chosen = done.get("epoch") if done else None
    space = SPACES[spec.recipe.task]
    names = space.operations(spec.recipe)
    for kind in space.heat_maps or (space.main_cell,):
        page = over_epochs(records, kind, names, chosen)
        if page is None:
            continue
        word = "" if kind == "cell" else "reduction " if kind == "reduce" else f"{kind} "
        which = f"the {word}cell's edges over the epochs, seed {seed}"
        parts.append(f"\nProbabilities of {which} (in blue: what the derived cell keeps):\n")
        figure = f"probabilities-{name}-{kind}.png"
        drawn = kind in space.heat_maps
        if drawn:
            probability_figure(results.folder / figure, records, kind, names, chosen)
        parts.append(Shown("", page))
        if drawn:
            parts.append(f"\n![Probabilities of {which}, of {name}]({figure})\n")
    return parts


def _title(name: str, spec: SearchSpec) -> str:
    return f"Search {name}" if spec.cells == "searched" else f"Random cells {name}"


def _seeds(name: str, spec: SearchSpec, results: Results) -> list[Part]:
    """A line per seed, and the spread of their scores."""
    record = results.selection(name)
    scores = {c["seed"]: c["score"] for c in record["candidates"]} if record else {}
    winner = record["winner"]["seed"] if record else None
    space, searched = SPACES[spec.recipe.task], spec.cells == "searched"
    metric, shared = space.metric, "shared_weights" in space.select_by
    rows: list[list[Cell]] = []
    unit = "%" if metric.endswith("top1") else ""
    for job, *_ in results.study.cells(name):
        seed = job.seed
        score = measured([scores[seed]], unit) if seed in scores else NOT_RUN
        selected = "**selected**" if seed == winner else ""
        cell = _of_cell(job, spec, results, shared=shared)
        rows.append([str(seed), score, *cell, selected])
    of = f", {space.main_cell} cell" if space.main_cell != "cell" else ""
    header = [
        "seed",
        f"selection score: {metric} ({_selected_by(spec)})",
        *(
            ["with shared weights, top-1 on D_V", f"operations without parameters{of}"]
            if shared
            else ["epoch of the cell (lowest validation loss)"]
        ),
        "entropy / log K",
        "mean margin",
        f"split-half correlation{of}",
        "outcome",
    ]
    parts: list[Part] = [Table(f"seeds-{name}", header, rows)]
    if record is not None and len(scores) > 1:
        spread = summary(list(scores.values())).text
        parts.append(
            f"\nSelected by: {record['method']}. {metric} over the seeds: {spread}, from "
            f"{min(scores.values()):.2f} to {max(scores.values()):.2f}.\n"
        )
    if searched:
        parts.append(
            "\nAn entropy near 1 and a margin near 0 mean that the logits have hardly left "
            "uniform; only random cells beside it then tell whether the cell is more than chance. "
            "The split-half correlation compares what the logits gained in the odd and in the even "
            "ones of the epochs in which they moved: near 0, noise chose the cell; near 1, another "
            "run of these epochs would choose alike, which does not say that it chooses well.\n"
        )
    return parts


def _selected_by(spec: SearchSpec) -> str:
    times = spec.proxy_trainings
    return spec.select_by if times == 1 else f"{spec.select_by}, mean of {times} trainings"


def _of_cell(job: Job, spec: SearchSpec, results: Results, *, shared: bool) -> list[Cell]:
    """One seed's cell: score and free operations, or epoch; then entropy, margin and split halves.

    A random cell has free operations and nothing else.

    Args:
        shared: whether cells of this space can be scored with shared weights.
    """
    search = results.study.search_of(job)
    if search is None:
        drawn = results.result(job, ProxyResult)
        free = NOT_RUN if drawn is None else _free(drawn["genotype"]) if shared else ""
        return [*([""] if shared else []), free, "", "", ""]
    cell = results.result(search, SearchResult)
    if cell is None:
        return [*([NOT_RUN] if shared else []), NOT_RUN, "", "", ""]
    also: list[Cell]
    if shared:
        top1 = cell["shared_weights"]["valid/top1"]
        also = [measured([top1], "%", f"{top1:.2f} %"), _free(cell["genotype"])]
    else:
        also = [str(cell["epoch"])]
    margins = [m for kind in cell["margins"].values() for m in kind]
    entropy = statistics.mean(cell["entropy"].values())
    halves = split_half(results.records(search), spec.recipe)
    agreement = "" if halves is None else f"{halves.correlation:.2f}"
    return [*also, f"{entropy:.4f}", f"{statistics.mean(margins):.4f}", agreement]


def _free(genotype: GenotypeJson) -> Measured:
    """How many operations of the normal cell, or of the only cell, have no parameters."""
    cell = any_from_json(genotype)
    if isinstance(cell, Bench201Genotype):
        edges = tuple((operation, 0) for operation in cell.operations)
    else:
        assert isinstance(cell, Genotype)
        edges = cell.normal
    free = parameter_free(edges)
    return measured([free], f"of {len(edges)}", f"{free} of {len(edges)}")


def _alarms(spec: SearchSpec, histories: dict[str, list[Record]]) -> list[str]:
    """The alarms of these searches; equal ones of several seeds are printed once."""
    seeds: dict[str, list[str]] = {}
    for label, records in histories.items():
        for alarm in search_health(records, spec.recipe).alarms:
            seeds.setdefault(alarm.text, []).append(label.removeprefix("seed "))
    if not seeds:
        return ["\nNo alarm: no collapse to skip or pooling, and the logits have moved.\n"]
    lines = [f"- **Alarm** (seed {', '.join(where)}): {text}\n" for text, where in seeds.items()]
    return ["\n", *lines]


def _drawn_against_uniform(name: str, results: Results) -> list[str]:
    """Cells drawn from the final logits against uniform ones, with the same shared weights."""
    gains = [
        drawn - uniform
        for result in results.searches(name)
        for drawn, uniform in result.get("drawn_against_uniform", [])
    ]
    if not gains:
        return []
    s, p = summary(gains), paired_p(gains)
    meaning = "better" if s.mean > 0 and p < 0.05 else "not better"
    return [
        f"\nCells drawn from the final logits against cells drawn uniformly with the same noise, "
        f"top-1 on D_V by the same shared weights (recalibrated), in percentage points: "
        f"{s.text}, one-sided sign-flip {p_is(p)}. The logits' cells are {meaning}.\n"
    ]


def size_of_search(spec: SearchSpec) -> str:
    """What a search searches, and its size, in a sentence."""
    r = spec.recipe
    cell, size = load(SPACES[r.task].search_size)(r)
    if spec.cells == "random":
        kind = cell.replace("both cells searched", "both cells drawn")
        return f"{kind}; every operation and source drawn uniformly; no search."
    return f"{cell}; {size}, batch {r.batch_size}, alpha rate {r.alpha.lr:g}."


def comparisons(results: Results) -> list[Part]:
    """Searched cells against random ones, and searches against each other, as `against` says."""
    random: list[Part] = []
    others: list[Part] = []
    experiment = results.experiment
    for name, spec in experiment.searches.items():
        if spec.against is not None:
            drawn = experiment.searches[spec.against].cells == "random"
            part = _comparison(name, spec.against, results)
            (random if drawn else others).extend(part)
    parts: list[Part] = []
    if random:
        parts += ["## Is searching better than drawing at random?\n", *random]
    if others:
        parts += ["## One way of searching against another\n", *others]
    return parts


def compared(name: str, other: str, results: Results) -> Comparison:
    """A search's cells compared with those of another one, or with random ones."""
    experiment = results.experiment
    task = experiment.searches[name].recipe.task
    ours, theirs = (results.scores(which) for which in (name, other))
    drawn = experiment.searches[other].cells == "random"
    names = ("search", "random cells") if drawn else (name, other)
    return compare(ours, theirs, better_of(SPACES[task].best), names)


def _comparison(name: str, other: str, results: Results) -> list[Part]:
    experiment = results.experiment
    task = experiment.searches[name].recipe.task
    metric, best = SPACES[task].metric, SPACES[task].best
    found, unit = compared(name, other, results), "%" if metric.endswith("top1") else ""
    rows: list[list[Cell]] = []
    for which, side in ((name, found.searched), (other, found.random)):
        values = ", ".join(f"{value:.2f}" for value in results.scores(which)) or NOT_RUN
        rows.append([which, values, Measured(side.text, side, unit) if side else NOT_RUN])
    parts: list[Part] = [
        f"\n### {name} against {other}\n",
        "Every cell trained anew under the same budget, on D_T, and scored on D_V "
        f"({metric}, {best} is best){_times(experiment.searches[name])}:\n",
        Table(
            f"{name}-against-{other}",
            ["cells", "each cell", "mean ± standard deviation"],
            rows,
        ),
        f"\n{found.sentence[0].upper()}{found.sentence[1:]}\n",
        *caveat(name, other, found, results),
        *spread_parts(name, other, found, better_of(best), metric, results),
    ]
    finals = {
        which: [
            (final, result)
            for final, spec in experiment.finals.items()
            if spec.cell.searched == which
            for result in results.finals(final)
        ]
        for which in (name, other)
    }
    rows = [
        [which, final, measured([_test(result)])]
        for which, found_finals in finals.items()
        for final, result in found_finals
    ]
    if all(finals.values()):
        parts += [
            "\nBest of these seeds against best of those (each chosen on D_V), on the test set "
            f"({SPACES[task].outcome}, lower is better); one pair a "
            "final, so no interval:\n",
            Table(f"{name}-against-{other}-test", ["best of", "final", "test"], rows),
        ]
    return parts


def _times(spec: SearchSpec) -> str:
    """How often each cell is trained, unless once."""
    times = spec.proxy_trainings
    return "" if times == 1 else f", {times} times with different seeds, whose mean is its score"


def _test(result: FinalResult) -> float:
    metrics = result["metrics"]
    if "test/top1" in metrics:
        return 100 - metrics["test/top1"]
    return metrics["test/perplexity"]
