"""Our finals beside the rows of the paper that they reproduce, then its whole Tables 1 to 5.

A study without such rows, of data or cells of its own, has a table of its own figures instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from orchestrator.experiment.config import Experiment, FinalSpec
from orchestrator.experiment.kinds import load
from orchestrator.experiment.spaces import SPACES
from orchestrator.paper import tables as paper
from orchestrator.paper.config import papers_final, papers_search, size_differences
from orchestrator.report.figures.curves import History, curves
from orchestrator.report.markup import NOT_RUN, lasted
from orchestrator.report.parts import Cell, Measured, Part, Table, brief, measured
from orchestrator.report.statistics import summary
from orchestrator.report.verdict import (
    DIGITS,
    VERDICT_RULE,
    Verdict,
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


def in_the_paper(experiment: Experiment) -> bool:
    """Whether any final stands beside a row of the paper."""
    return any(spec.row is not None for spec in experiment.finals.values())


def papers_tables(results: Results) -> list[Part]:
    """All tables of the paper that this experiment has a final for, then the verdicts."""
    experiment = results.experiment
    if not in_the_paper(experiment):
        return _own_tables(results)
    parts: list[Part] = ["## The paper's tables and ours\n"]
    verdicts: list[list[Cell]] = []
    whole: list[Part] = []
    for number in paper.MEASURES:
        finals = {
            name: spec
            for name, spec in experiment.finals.items()
            if spec.row is not None and spec.row.table == number
        }
        if finals:
            ours, every = _tables(number, finals, results, verdicts)
            parts += [f"\n### Ours in Table {number}\n", ours]
            title = paper.tables()[number]["title"]
            whole += [f"\n### Table {number}: {title}\n", every]
    others = {name: spec for name, spec in experiment.finals.items() if spec.row is None}
    if others:
        parts += ["### Not in the paper\n", _others(others, results)]
    parts.append(f"\n{CHECKED_ON_TEST}")
    if verdicts:
        header = ["final", "measure", "paper", "verdict", "why", "size of our run"]
        parts += ["\n### Verdicts\n", f"{VERDICT_RULE}\n", Table("verdicts", header, verdicts)]
    return [*parts, *whole]


def _own_tables(results: Results) -> list[Part]:
    """The finals of a study that has no row of the paper."""
    if not results.experiment.finals:
        return []
    own = _others(results.experiment.finals, results)
    return ["## Results on the test set\n", own, f"\n{CHECKED_ON_TEST}"]


def _tables(
    number: int,
    finals: dict[str, FinalSpec],
    results: Results,
    verdicts: list[list[Cell]],
) -> tuple[Table, Table]:
    """Our finals, each above the paper's row; and every row, with ours below the paper's."""
    measures = paper.MEASURES[number]
    counted = paper.COUNTED[number]
    rows: list[list[Cell]] = []
    own: list[list[Cell]] = []
    for row in paper.tables()[number]["rows"]:
        name = paper.name_of(row)
        printed = [as_printed(row.get(column), number) for column in measures]
        theirs: list[Cell] = [
            *(name, *printed, *(as_printed(row.get(column)) for column in counted), "paper")
        ]
        rows.append(theirs)
        beside = {
            final: spec
            for final, spec in finals.items()
            if spec.row is not None and spec.row.method == name
        }
        for final, spec in beside.items():
            rows.append(_ours(final, spec, row, results, verdicts))
            own.append(rows[-1])
        if beside:
            own.append(theirs)
        elif why := paper.not_run(number, row):
            rows.append(
                [f"**ours**: {why}", *[NOT_RUN] * len(measures), *[NOT_RUN] * len(counted), "ours"]
            )
    header = [
        "architecture",
        *(", ".join(filter(None, (m.title, m.unit))) for m in measures.values()),
        *(paper.COUNTS[column] for column in counted),
        "",
    ]
    return (
        Table(f"ours-{number}", header, own),
        Table(f"table-{number}", header, rows, f"All {len(rows)} rows, those of others too"),
    )


def _ours(
    name: str,
    spec: FinalSpec,
    row: paper.Row,
    results: Results,
    verdicts: list[list[Cell]],
) -> list[Cell]:
    """Our line beside the paper's; its verdicts are appended to `verdicts`."""
    assert spec.row is not None
    number = spec.row.table
    runs = results.finals(name)
    reason = results.study.left_out.get(name)
    cells: list[Cell] = []
    for column, measure in paper.MEASURES[number].items():
        if column not in spec.row.columns:
            cells.append("")
            continue
        other = f" on {spec.recipe.data.name}" if spec.recipe.data.name != measure.data else ""
        cells.append(_figure(measure, runs, other) if runs else NOT_RUN)
        if (theirs := row.get(column)) is not None:
            found = judged(spec, row, column, runs, results.experiment)
            why = reason or found.why
            words = [f"final {name}", measure.title, as_printed(theirs, number), found.word, why]
            verdicts.append([*words, size_of(spec)])
    for column in paper.COUNTED[number]:
        cells.append(COUNTED[column](runs[0]) if runs else NOT_RUN)
    source = _provenance(runs[0]["provenance"]) if runs else reason or _cell(spec)
    return [f"**ours**: {name} ({source})", *cells, "ours"]


def judged(
    spec: FinalSpec,
    row: paper.Row,
    column: str,
    runs: list[FinalResult],
    experiment: Experiment,
) -> Verdict:
    """The verdict on our figure of a column that the paper's row has."""
    assert spec.row is not None
    measure = paper.MEASURES[spec.row.table][column]
    return verdict(
        [last(measure, run) for run in runs],
        float(row[column]),
        "lower",
        size_differences=_not_the_papers(spec, experiment, row),
        digits=DIGITS[spec.row.table],
    )


def beside_the_papers(spec: FinalSpec, runs: list[FinalResult], results: Results) -> str:
    """The paper's figure on the test set and the verdict on ours; empty if it has none."""
    if spec.row is None:
        return ""
    row = paper.find_row(spec.row.table, spec.row.method, spec.row.columns)
    for column in spec.row.columns:
        measure = paper.MEASURES[spec.row.table][column]
        tested = measure.metric in ("test/top1", "test/perplexity")
        if tested and row.get(column) is not None:
            word = judged(spec, row, column, runs, results.experiment).word
            return f"paper {as_printed(row[column], spec.row.table)}: {word}"
    return ""


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


def _figure(measure: paper.Measure, runs: list[FinalResult], other: str) -> Measured:
    """Our figure of a column, with what was selected on the test set in brackets.

    Args:
        other: what to say if the data are not the paper's.
    """
    ours = summary([last(measure, run) for run in runs])
    text = f"{ours.mean:.2f}" if ours.sd is None else f"{ours.mean:.2f} ± {ours.sd:.2f}"
    if ours.n > 1:
        text += f" (n = {ours.n})"
    if measure.unit == "%":
        best = [(100 - r["best"][measure.metric], r["best"]["epoch"]) for r in runs]
        shown = ", ".join(f"{figure:.2f} in epoch {epoch}" for figure, epoch in best)
        text += f" [{shown}: selected on test]"
    return Measured(text + other, ours, measure.unit)


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


def as_printed(value: object, number: int | None = None) -> str:
    """A figure with the digits of a table of the paper."""
    if value is None:
        return "-"
    if number is not None and isinstance(value, int | float):
        return f"{value:.{DIGITS[number]}f}"
    return str(value)


def _others(finals: dict[str, FinalSpec], results: Results) -> Table:
    rows: list[list[Cell]] = []
    for name, spec in finals.items():
        runs = results.finals(name)
        source = _provenance(runs[0]["provenance"]) if runs else _cell(spec)
        rows.append(
            [
                f"{name} ({source})",
                figure_of(runs) or NOT_RUN,
                COUNTED["params_m"](runs[0]) if runs else NOT_RUN,
                size_of(spec),
            ]
        )
    header = ["final", "on the test set", "M parameters", "size of our run"]
    return Table("own-finals", header, rows)


def figure_of(runs: list[FinalResult]) -> Measured | None:
    """The main figure of a final over its seeds; None if none is done."""
    if not runs:
        return None
    if "test/top1" in runs[0]["metrics"]:
        found = measured([100 - run["metrics"]["test/top1"] for run in runs], "%")
        text, _, inside = brief(found.of).partition(" (")
        text += f" % error ({inside}" if inside else " % error"
        return dataclasses.replace(found, text=text)
    found = measured([run["metrics"]["test/perplexity"] for run in runs])
    return dataclasses.replace(found, text=f"perplexity {found.text}")


def outcome(result: FinalResult) -> str:
    """A final's main figure, as text."""
    return str(figure_of([result]))


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


def final_trainings(results: Results) -> list[Part]:
    """The report's part on every final training: its cell, cost and curves."""
    finals, study = results.experiment.finals, results.study
    if not finals:
        return []
    parts: list[Part] = ["## Final trainings\n"]
    rows: list[list[Cell]] = []
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
                    figure_of([result]) or NOT_RUN,
                    f"{adds / 1e6:,.1f}" if adds else "-",
                    str(result["workers"]),
                    lasted([result["seconds"]]),
                ]
            )
    header = ["final", "cell", "on the test set", "M multiply-adds", "workers", "time in epochs"]
    parts.append(Table("final-trainings", header, rows))
    for task, space in SPACES.items():
        histories = {
            job.name: History(
                results.records(job), job.recipe["config"].get("segments_per_epoch", 1)
            )
            for name, spec in finals.items()
            for job in study.final(name)
            if spec.recipe.task == task
        }
        if any(h.records for h in histories.values()) and space.final_curves is not None:
            figure, panels = space.final_curves
            title = f"Curves of the final trainings on {task}s"
            parts.append(curves(results.folder / figure, title, histories, panels))
    return parts
