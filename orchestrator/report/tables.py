"""Tables 1 to 5 of the paper, every row, with our finals below the rows that they reproduce."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.experiment.config import Experiment, FinalSpec
from orchestrator.experiment.kinds import load
from orchestrator.experiment.spaces import SPACES
from orchestrator.paper import tables as paper
from orchestrator.paper.config import papers_final, papers_search, size_differences
from orchestrator.report.figures.curves import curves
from orchestrator.report.markup import NOT_RUN, duration, table
from orchestrator.report.statistics import summary
from orchestrator.report.verdict import (
    DIGITS,
    VERDICT_RULE,
    verdict,
)
from orchestrator.report.view import Results
from orchestrator.store.results import FinalResult, Provenance

CHECKED_ON_TEST = (
    "The last epoch decides; for language models, the weights of the best validation epoch do. "
    "The best epoch on the test set, in brackets, is chosen by looking at the test set, as the "
    "authors' logs do, and is shown for that comparison only. Parameters leave out the auxiliary "
    "head. Several runs of one row differ in their seed: mean ± standard deviation.\n"
)


def papers_tables(results: Results) -> list[str]:
    """All tables of the paper that this experiment has a final for, then the verdicts."""
    experiment = results.experiment
    parts = ["## The paper's tables and ours\n"]
    verdicts: list[list[str]] = []
    for number in paper.MEASURES:
        finals = {
            name: spec
            for name, spec in experiment.finals.items()
            if spec.row is not None and spec.row.table == number
        }
        if finals:
            parts += _table(number, finals, results, verdicts)
    others = {name: spec for name, spec in experiment.finals.items() if spec.row is None}
    if others:
        parts += ["### Not in the paper\n", _others(others, results)]
    if len(parts) == 1:
        parts.append("No final of this experiment stands in one of the paper's tables.\n")
    else:
        parts.append(f"\n{CHECKED_ON_TEST}")
    if verdicts:
        header = ["final", "measure", "paper", "verdict", "why", "size of our run"]
        parts += ["\n### Verdicts\n", f"{VERDICT_RULE}\n", table(header, verdicts)]
    return parts


def _table(
    number: int,
    finals: dict[str, FinalSpec],
    results: Results,
    verdicts: list[list[str]],
) -> list[str]:
    measures = paper.MEASURES[number]
    counted = paper.COUNTED[number]
    rows = []
    for row in paper.tables()[number]["rows"]:
        name = paper.name_of(row)
        printed = [_printed(row.get(column), number) for column in measures]
        rows.append([name, *printed, *(_printed(row.get(column)) for column in counted), "paper"])
        beside = {
            final: spec
            for final, spec in finals.items()
            if spec.row is not None and spec.row.method == name
        }
        for final, spec in beside.items():
            rows.append(_ours(final, spec, row, results, verdicts))
        if not beside and (why := paper.not_run(number, row)):
            rows.append(
                [f"**ours**: {why}", *[NOT_RUN] * len(measures), *[NOT_RUN] * len(counted), "ours"]
            )
    header = [
        "architecture",
        *(", ".join(filter(None, (m.title, m.unit))) for m in measures.values()),
        *(paper.COUNTS[column] for column in counted),
        "",
    ]
    return [f"\n### Table {number}: {paper.tables()[number]['title']}\n", table(header, rows)]


def _ours(
    name: str,
    spec: FinalSpec,
    row: paper.Row,
    results: Results,
    verdicts: list[list[str]],
) -> list[str]:
    """Our line below the paper's; its verdicts are appended to `verdicts`."""
    assert spec.row is not None
    number = spec.row.table
    runs = results.finals(name)
    reason = results.study.left_out.get(name)
    cells = []
    for column, measure in paper.MEASURES[number].items():
        if column not in spec.row.columns:
            cells.append("")
            continue
        other = spec.recipe.data.name != measure.data
        cells.append(_figure(measure, runs) if runs else NOT_RUN)
        if other and runs:
            cells[-1] += f" on {spec.recipe.data.name}"
        if (theirs := row.get(column)) is not None:
            found = verdict(
                [last(measure, run) for run in runs],
                float(theirs),
                "lower",
                size_differences=_not_the_papers(spec, results.experiment, row),
                digits=DIGITS[number],
            )
            why = reason or found.why
            words = [f"final {name}", measure.title, _printed(theirs, number), found.word, why]
            verdicts.append([*words, size_of(spec)])
    for column in paper.COUNTED[number]:
        cells.append(COUNTED[column](runs[0]) if runs else NOT_RUN)
    source = _provenance(runs[0]["provenance"]) if runs else reason or _cell(spec)
    return [f"**ours**: {name} ({source})", *cells, "ours"]


def last(measure: paper.Measure, result: FinalResult) -> float:
    """Our figure after the last epoch; for a language model, after the best validation epoch."""
    if measure.unit == "%":
        return 100 - result["metrics"][measure.metric]
    chosen = result["best"] if measure.metric in result["best"] else result["metrics"]
    return chosen[measure.metric]


COUNTED: dict[str, Callable[[FinalResult], str]] = {
    "params_m": lambda result: f"{result['parameters'] / 1e6:.3f}",
    "macs_m": lambda result: f"{result['multiply_adds'] / 1e6:.1f}",
}
"""Our figure in each column that holds a count, such as parameters."""


def _figure(measure: paper.Measure, runs: list[FinalResult]) -> str:
    ours = summary([last(measure, run) for run in runs])
    text = f"{ours.mean:.2f}" if ours.sd is None else f"{ours.mean:.2f} ± {ours.sd:.2f}"
    if ours.n > 1:
        text += f" (n = {ours.n})"
    if measure.unit == "%":
        best = [(100 - r["best"][measure.metric], r["best"]["epoch"]) for r in runs]
        shown = ", ".join(f"{figure:.2f} in epoch {epoch}" for figure, epoch in best)
        text += f" [{shown}: selected on test]"
    return text


def _not_the_papers(spec: FinalSpec, experiment: Experiment, row: paper.Row) -> list[str]:
    """Settings of the training and of the search that differ from the paper's."""
    assert spec.row is not None
    data = next(iter(paper.MEASURES[spec.row.table][c].data for c in spec.row.columns))
    found = size_differences(spec.recipe, papers_final(spec.row.table, row, data))
    for track in dict.fromkeys(spec.cell.tracks.values()):
        search = experiment.searches[track]
        differing = size_differences(search.recipe, papers_search(search.recipe))
        if search.cells == "searched":
            found += [f"search {track} {key}" for key in differing]
    return found


def _printed(value: object, number: int | None = None) -> str:
    if value is None:
        return "-"
    if number is not None and isinstance(value, int | float):
        return f"{value:.{DIGITS[number]}f}"
    return str(value)


def _others(finals: dict[str, FinalSpec], results: Results) -> str:
    rows = []
    for name, spec in finals.items():
        runs = results.finals(name)
        source = _provenance(runs[0]["provenance"]) if runs else _cell(spec)
        rows.append(
            [
                f"{name} ({source})",
                ", ".join(map(outcome, runs)) or NOT_RUN,
                COUNTED["params_m"](runs[0]) if runs else NOT_RUN,
                size_of(spec),
            ]
        )
    return table(["final", "on the test set", "M parameters", "size of our run"], rows)


def outcome(result: FinalResult) -> str:
    """A final's main figure, as text."""
    if "test/top1" in result["metrics"]:
        return f"{100 - result['metrics']['test/top1']:.2f} % error"
    return f"perplexity {result['metrics']['test/perplexity']:.2f}"


def size_of(spec: FinalSpec) -> str:
    """A final's size, as text."""
    size: str = load(SPACES[spec.recipe.task].training_size)(spec.recipe)
    return size


def _cell(spec: FinalSpec) -> str:
    c = spec.cell
    if c.searched is not None:
        return f"search {c.searched}"
    if c.combined is not None:
        return f"normal cell of {c.combined.normal}, reduction cell {c.combined.reduce}"
    return f"random cell {c.random}" if c.random is not None else str(c.published or c.file)


def _provenance(provenance: Provenance) -> str:
    match provenance["source"]:
        case "searched":
            return f"{provenance['track']}, seed {provenance['seed']}, by {provenance['by']}"
        case "combined":
            return f"combined: {provenance['genotype']['name']}"
        case source:
            return f"{source} {provenance['genotype']['name']}"


def final_trainings(results: Results) -> list[str]:
    """The report's part on every final training: its cell, cost and curves."""
    finals, study = results.experiment.finals, results.study
    if not finals:
        return []
    parts = ["## Final trainings\n"]
    rows = []
    for name, spec in finals.items():
        runs = results.finals(name)
        if not runs:
            rows.append([name, study.left_out.get(name, _cell(spec)), NOT_RUN, "", "", ""])
        for result in runs:
            adds = result.get("multiply_adds")
            rows.append(
                [
                    name,
                    _provenance(result["provenance"]),
                    outcome(result),
                    f"{adds / 1e6:,.1f}" if adds else "-",
                    str(result["workers"]),
                    duration(result["seconds"]),
                ]
            )
    header = ["final", "cell", "on the test set", "M multiply-adds", "workers", "time in epochs"]
    parts.append(table(header, rows))
    for task, space in SPACES.items():
        histories = {
            job.name: results.records(job)
            for name, spec in finals.items()
            for job in study.final(name)
            if spec.recipe.task == task
        }
        if any(histories.values()) and space.final_curves is not None:
            figure, panels = space.final_curves
            curves(results.folder / figure, histories, panels)
            parts.append(f"\n![Curves of the final trainings on {task}s]({figure})\n")
    return parts
