"""Searches of NAS-Bench-201 against the truth: where each derived cell ranks among all cells.

This part is made from the results of lookups, so the report does not read the table. Every method
gives one cell per seed, and is compared with cells drawn uniformly, by the exact distribution of
the mean percentile of as many such cells.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gdas.bench201.functions import FUNCTIONS
from gdas.bench201.genotype import IMAGES_OF, Accuracy
from gdas.config import differences
from orchestrator.experiment.config import SearchSpec
from orchestrator.experiment.study import Job
from orchestrator.report.benchmark_paper import benchmark_paper
from orchestrator.report.figures.truth import Row, distribution_figure, epochs_figure
from orchestrator.report.markup import NOT_RUN, lasted
from orchestrator.report.no_path import no_path
from orchestrator.report.paired import FEWEST, Contest, Way, contests, contests_table
from orchestrator.report.parts import Cell, Measured, Part, PValue, Table, measured
from orchestrator.report.statistics import (
    LEVEL,
    p_is,
    permutation_p,
    splits_in_words,
    summary,
    uniform_p,
)
from orchestrator.report.view import Results
from orchestrator.store.results import Distribution, Figure, LookupResult, Standing

RELAXATIONS = {
    "hard": "hard draws, as GDAS",
    "soft": "relaxed samples",
    "softmax": "softmax weights, as DARTS",
}


@dataclass(frozen=True)
class Method:
    """A way to obtain a cell, tried once per seed.

    Attributes:
        name: as the report prints it.
        standings: the standing of its cell, by seed.
        seconds: the cost of a seed; None if it is not known.
        chosen: whether it is what a search chose, and not something to compare that with.
    """

    name: str
    standings: Mapping[int, Standing]
    seconds: float | None
    chosen: bool = False

    def values(self, key: Figure) -> list[float]:
        """One number of the standings, for every seed."""
        return [float(standing[key]) for standing in self.standings.values()]


class Against(NamedTuple):
    """A search compared with uniform draws, by a column of the table."""

    name: str
    column: Accuracy
    p: float


def against_uniform(results: Results) -> list[Against]:
    """The comparison with uniform draws of every search that was looked up."""
    found = []
    for name, spec in results.experiment.searches.items():
        jobs = results.study.lookups_of(name)
        done = results.done(jobs, LookupResult)
        if spec.lookup is not None and done:
            cells = _distribution({name: jobs}, results)["cells"]
            p = uniform_p(cells, [choice(spec, r)["percentile"] for r in done])
            found.append(Against(name, spec.lookup.accuracy, p))
    return found


class Contests(NamedTuple):
    """The first search of those looked up in a column, compared with uniform draws and the others.

    Attributes:
        first: its name.
        found: the comparisons that were run.
        missing: the other searches that too few seeds have ended of.
    """

    column: Accuracy
    first: str
    found: list[Contest]
    missing: list[str]


def contests_of(results: Results) -> list[Contests]:
    """The comparisons of every column that is looked up."""
    every = []
    for column, specs in _columns(results).items():
        jobs, done = _lookups(specs, results)
        first = next(iter(specs))
        if len(done[first]) >= FEWEST:
            worst_first = _distribution(jobs, results)["cells"]
            ours, *others = _ways(_methods(specs, done))
            found = contests(ours, others, worst_first)
            missing = [name for name in specs if len(done[name]) < FEWEST]
            every.append(Contests(column, first, found, missing))
    return every


def truth(results: Results) -> list[Part]:
    """The report's part on all searches that are looked up; empty if there is none."""
    columns = _columns(results)
    if not columns:
        return []
    parts: list[Part] = ["## Do the searches find good cells? The truth of NAS-Bench-201\n"]
    for column, specs in columns.items():
        parts += _column(column, specs, results)
    looked_up = [name for name, s in results.experiment.searches.items() if s.lookup is not None]
    parts += no_path(looked_up, results)
    return parts


def _columns(results: Results) -> dict[Accuracy, dict[str, SearchSpec]]:
    """The searches that are looked up in each column, by name."""
    found: dict[Accuracy, dict[str, SearchSpec]] = {}
    for name, spec in results.experiment.searches.items():
        if spec.lookup is not None:
            found.setdefault(spec.lookup.accuracy, {})[name] = spec
    return found


def _lookups(
    names: Iterable[str], results: Results
) -> tuple[dict[str, list[Job]], dict[str, list[LookupResult]]]:
    """The searches' lookups by name, and the results of those that are done."""
    jobs = {name: results.study.lookups_of(name) for name in names}
    return jobs, {name: results.done(of_name, LookupResult) for name, of_name in jobs.items()}


def _column(column: Accuracy, specs: dict[str, SearchSpec], results: Results) -> list[Part]:
    jobs, found = _lookups(specs, results)
    parts: list[Part] = [f"\n### True accuracy: {column}\n"]
    if not any(found.values()):
        return [*parts, f"{NOT_RUN}: no lookup has ended.\n"]
    every = _distribution(jobs, results)
    methods = _methods(specs, found)
    total, worst_first = sum(every["cells"]), every["cells"]
    mean = sum(a * c for a, c in zip(every["accuracies"], worst_first, strict=True)) / total
    parts.append(
        f"Every one of the {total:,} cells has been trained; what a search derives is looked up "
        f"once the search has ended. All cells: mean {mean:.2f} %, best "
        f"{every['accuracies'][-1]:.2f} %. A percentile is the share of all {total:,} cells that "
        "are worse, half of equal ones counted: 50 on average for a uniformly drawn cell. p: how "
        "often as many uniformly drawn cells have a mean percentile this high (exact, one-sided). "
        f"Many cells compute the same: they are {FUNCTIONS:,} functions. Among functions, each "
        "counted once with the mean accuracy of its cells, a uniformly drawn cell stands at "
        f"percentile {every['function_percentile']:.1f} on average.\n"
    )
    parts += _other_images(column, specs)
    parts += _settings(column, specs)
    parts.append(_table(f"truth-{column}", methods, worst_first))
    parts += benchmark_paper(column, every)
    parts += [f"\n{sentence}\n" for sentence in _sentences(methods, found, worst_first)]
    first, *others = _ways(methods)
    parts += contests_table(column, first, others, worst_first, len(specs))
    figure = f"truth-{column}.png"
    rows = [_row(method, worst_first) for method in methods]
    distribution_figure(results.folder / figure, every, rows, column)
    parts.append(f"\n![All cells, and where each seed landed]({figure})\n")
    parts += _correlations(column, specs, found)
    figure = f"truth-epochs-{column}.png"
    percentiles = {
        name: [[epoch["percentile"] for epoch in r["epochs"]] for r in seeds]
        for name, seeds in found.items()
        if seeds and not _is_random(specs[name])
    }
    if not percentiles:
        return parts  # random search derives no cell
    held = {name: spec.recipe.alpha.warmup_epochs for name, spec in specs.items()}
    epochs_figure(results.folder / figure, percentiles, held)
    parts += [
        "\n### The derived cell's true standing over the epochs\n",
        "What would have been derived after each epoch, looked up after the search.\n",
        f"\n![Percentile of the derived cell over the epochs]({figure})\n",
    ]
    return parts


def _distribution(jobs: dict[str, list[Job]], results: Results) -> Distribution:
    """The table's column, as a finished lookup recorded it."""
    folders = (results.store.folder(job) for of_name in jobs.values() for job in of_name)
    done = next(folder for folder in folders if folder.result() is not None)
    found: Distribution = json.loads((done.path / "distribution.json").read_text())
    return found


def _methods(specs: dict[str, SearchSpec], found: dict[str, list[LookupResult]]) -> list[Method]:
    """For every search the cells that it chose, and the best by its shared weights; uniform cells.

    What a random search chooses are these best; it derives nothing.
    """
    methods: list[Method] = []
    uniform: dict[int, Standing] = {}
    for name, spec in specs.items():
        results = found[name]
        if not results:
            continue
        seconds = statistics.fmean(r["search_seconds"] for r in results)
        sampler = spec.recipe.sampler
        if not _is_random(spec):
            how = sampler.method or RELAXATIONS[sampler.relaxation]
            derived = {r["seed"]: r["derived"] for r in results}
            methods.append(Method(f"{name}: derived cell ({how})", derived, seconds, chosen=True))
        k = results[0]["best_of"]["k"]
        methods.append(
            Method(
                f"{name}: best of {k} uniform cells by its shared weights",
                {r["seed"]: r["best_of"] for r in results},
                seconds + statistics.fmean(r["best_of_seconds"] for r in results),
                chosen=_is_random(spec),
            )
        )
        for result in results:  # a seed draws the same uniform cell in every search
            uniform.setdefault(result["seed"], result["uniform"])
    return [*methods, Method("a uniformly drawn cell", uniform, 0.0)]


def _is_random(spec: SearchSpec) -> bool:
    return spec.recipe.sampler.method == "random"


def choice(spec: SearchSpec, result: LookupResult) -> Standing:
    """The standing of the cell that a search chose."""
    return result["best_of"] if _is_random(spec) else result["derived"]


def _ways(methods: Sequence[Method]) -> list[Way]:
    """What the searches chose, without what that is compared with beside it."""
    return [
        Way(m.name, {seed: float(s["percentile"]) for seed, s in m.standings.items()})
        for m in methods
        if m.chosen
    ]


def _other_images(column: Accuracy, specs: dict[str, SearchSpec]) -> list[str]:
    """A sentence for each search whose images are not those of the looked-up accuracies."""
    images = IMAGES_OF[column]
    return [
        f"\n**{name} searched on {spec.recipe.data.name} and is looked up on {images}**: "
        "percentile, p and rank correlation say how good cells found on the one are on the other.\n"
        for name, spec in specs.items()
        if spec.recipe.data.name != images
    ]


def _settings(column: Accuracy, specs: dict[str, SearchSpec]) -> list[Part]:
    """The settings in which the searches differ."""
    recipes = {name: spec.recipe for name, spec in specs.items()}
    first = next(iter(recipes.values()))
    keys = dict.fromkeys(
        key for recipe in recipes.values() for key, _, _ in differences(recipe, first)
    )
    if not keys:
        return []
    rows = [[f"`{key}`", *(str(_value(r, key)) for r in recipes.values())] for key in keys]
    differ = Table(f"settings-{column}", ["setting", *recipes], rows)
    return ["The searches differ in these settings:\n", differ, "\n"]


def _value(recipe: object, key: str) -> object:
    """The value at a dotted key."""
    for part in key.split("."):
        recipe = getattr(recipe, part)
    return recipe


def _row(method: Method, cells: list[int]) -> Row:
    percentiles = method.values("percentile")
    end = f"{statistics.fmean(percentiles):.0f}, {p_is(uniform_p(cells, percentiles))}"
    return Row(method.name, method.values("accuracy"), end)


def _table(name: str, methods: list[Method], cells: list[int]) -> Table:
    rows: list[list[Cell]] = []
    for method in methods:
        accuracy, percentile = summary(method.values("accuracy")), method.values("percentile")
        spread = "" if accuracy.sd is None else f" ± {accuracy.sd:.2f}"
        rows.append(
            [
                method.name,
                str(accuracy.n),
                Measured(f"{accuracy.mean:.2f}{spread}", accuracy, "%"),
                ", ".join(f"{a:.2f}" for a in method.values("accuracy")),
                f"{statistics.fmean(percentile):.1f}",
                f"{statistics.fmean(method.values('function_percentile')):.1f}",
                f"{statistics.median(method.values('rank')):,.0f}",
                f"{statistics.fmean(method.values('regret')):.2f}",
                PValue(uniform_p(cells, percentile)),
                lasted([method.seconds]) if method.seconds else "-",
            ]
        )
    header = [
        "method",
        "seeds",
        "accuracy, %: mean ± sd",
        "each seed",
        "mean percentile",
        "among functions",
        "median rank",
        "mean regret, points",
        "p against uniform",
        "time a seed",
    ]
    return Table(name, header, rows)


def _sentences(
    methods: list[Method], found: dict[str, list[LookupResult]], cells: list[int]
) -> list[str]:
    """Whether each search is better than uniform draws, and the first search than the others."""
    by_name = {method.name.partition(":")[0]: method for method in methods if method.chosen}
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
            f"percentile {mean:.1f} against 50 over {len(percentiles)} seeds, {p_is(p)}."
        )
    first, *others = found
    for other in others:
        if found[first] and found[other]:
            ours, theirs = by_name[first].values("percentile"), by_name[other].values("percentile")
            p = permutation_p(ours, theirs, "higher")
            sentences.append(
                f"{first} against {other}: mean percentile {statistics.fmean(ours):.1f} against "
                f"{statistics.fmean(theirs):.1f}; that chance alone makes {first} this much "
                f"better: {p_is(p)} (permutation test, {splits_in_words(len(ours), len(theirs))})."
            )
    return sentences


def _correlations(
    column: Accuracy, specs: dict[str, SearchSpec], found: dict[str, list[LookupResult]]
) -> list[Part]:
    rows: list[list[Cell]] = []
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
                measured(values, text=summary(values).text) if values else NOT_RUN,
            ]
        )
    return [
        "\n### Do shared weights order cells rightly?\n",
        "Spearman's rank correlation of top-1 on D_V with shared weights (batch norm collected "
        "anew for every cell) with the true accuracy, over uniformly drawn cells, others for "
        "every seed. 1: the same order; 0: none.\n",
        Table(
            f"correlation-{column}",
            ["search", "over", "each seed", "mean ± standard deviation"],
            rows,
        ),
    ]
