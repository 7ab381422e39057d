"""The report's first screen: what was found, how sure that is, and where everything is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from html import escape
from typing import NamedTuple

from orchestrator.experiment.spaces import SPACES
from orchestrator.report.markup import NOT_RUN, duration, image
from orchestrator.report.parts import Measured, Part, Shown, brief, table
from orchestrator.report.searches import cell_figure, compared
from orchestrator.report.statistics import LEVEL, p_is, summary
from orchestrator.report.tables import beside_the_papers, figure_of, in_the_paper
from orchestrator.report.truth import Against, against_uniform, choice
from orchestrator.report.view import Results
from orchestrator.store.results import LookupResult


class Tile(NamedTuple):
    """One figure of the first screen: its value, what it is, and what to know beside it."""

    value: str
    what: str
    beside: str = ""


def title(results: Results) -> str:
    """The report's title."""
    name = results.experiment.name
    if in_the_paper(results.experiment):
        return f"{name}: GDAS (CVPR 2019), ours beside the paper's"
    return f"{name}: cells searched by GDAS, and what they are worth"


def first_screen(results: Results, tables: Iterable[str]) -> Part:
    """The first screen.

    Args:
        tables: the names of the tables' files.
    """
    tiles, verdicts = [*_finals(results), *_looked_up(results), _jobs(results)], _verdicts(results)
    cells = {
        name: record["winner"]
        for name, spec in results.experiment.searches.items()
        if spec.cells == "searched" and (record := results.selection(name)) is not None
    }
    known = facts(results)
    links = _links(results, tables)
    rows = [[tile.what, tile.value, tile.beside] for tile in tiles]
    text = [
        f"# {title(results)}\n",
        *(f"- {name}: {value}" for name, value in known),
        "",
        table(["", "figure", ""], rows),
        *(f"- {line}" for line in verdicts),
        "",
    ]
    page = [
        f"<header class=top><h1>{escape(title(results))}</h1>",
        "<dl class=facts>",
        *(f"<div><dt>{escape(n)}</dt><dd>{escape(v)}</dd></div>" for n, v in known),
        "</dl></header>",
        "<section class=tiles>",
        *(
            f"<div class=tile><b>{escape(t.value)}</b><span>{escape(t.what)}</span>"
            f"<small>{escape(t.beside)}</small></div>"
            for t in tiles
        ),
        "</section>",
        *(f"<p class=verdict>{escape(line)}</p>" for line in verdicts),
        "<section class=found>",
        *(_cell(n, w["seed"], w["genotype"], results) for n, w in cells.items()),
        "</section>",
        "<p class=links>" + " · ".join(links) + "</p>",
    ]
    return Shown("\n".join(text), "\n".join(page))


def headline(results: Results) -> list[str]:
    """The figures of the first screen and its verdicts, a line each."""
    tiles = [*_finals(results), *_looked_up(results)]
    return [
        *(f"{t.what}: {t.value}" + (f" ({t.beside})" if t.beside else "") for t in tiles),
        *_verdicts(results),
    ]


def facts(results: Results) -> list[tuple[str, str]]:
    """When, how long, on which hardware, from which commit, and by which command."""
    study = results.store.study()
    records = [r for job in results.study.in_cluster for r in results.records(job)]
    found = []
    if records:
        first = min(record["started"] for record in records)
        last = max(record["time"] for record in records)
        work = sum(record["seconds"] for record in records)
        began, ended = _date(first), _date(last)
        found.append(("when", f"{began} to {ended} UTC; {duration(work)} of work in all jobs"))
    hosts = sorted({record["host"] for record in records})
    machine = study.get("machine", "")
    where = [machine] if machine else []
    if hosts:
        count = "1 machine" if len(hosts) == 1 else f"{len(hosts)} machines"
        where.append(f"{count}: {', '.join(hosts[:4])}")
    if where:
        found.append(("where", "; ".join(where)))
    if study.get("commit"):
        found.append(("code", study["commit"]))
    if study.get("command"):
        found.append(("command", study["command"]))
    return found


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def _finals(results: Results) -> list[Tile]:
    tiles = []
    for name, spec in results.experiment.finals.items():
        found = figure_of(results.finals(name))
        what = f"test {SPACES[spec.recipe.task].outcome.removesuffix(', %')}"
        what += f" on {spec.recipe.data.name}, {name}"
        if found is None:
            tiles.append(Tile(NOT_RUN, what))
            continue
        value, inside = _short(found)
        beside = [inside or "one seed", beside_the_papers(spec, results.finals(name), results)]
        tiles.append(Tile(value, what, "; ".join(filter(None, beside))))
    return tiles


def _short(found: Measured) -> tuple[str, str]:
    """A figure's mean with its ±, and n with the interval."""
    text, _, inside = brief(found.of).partition(" (")
    return f"{text} {found.unit}".strip(), inside.rstrip(")")


def _looked_up(results: Results) -> list[Tile]:
    """The true accuracy of the cells that searches of NAS-Bench-201 chose."""
    tiles = []
    for name, spec in results.experiment.searches.items():
        done = results.done(results.study.lookups_of(name), LookupResult)
        if spec.lookup is None or not done:
            continue
        accuracies = [choice(spec, r)["accuracy"] for r in done]
        text, _, inside = brief(summary(accuracies)).partition(" (")
        tiles.append(Tile(f"{text} %", f"true accuracy of {name}'s cells", inside.rstrip(")")))
    return tiles


def _jobs(results: Results) -> Tile:
    states = list(results.board.states.values())
    others = [
        f"{states.count(state)} {state}" for state in dict.fromkeys(states) if state != "done"
    ]
    return Tile(f"{states.count('done')} of {len(states)}", "jobs done", ", ".join(others))


def _verdicts(results: Results) -> list[str]:
    """One line for every comparison of a search with random cells, or with uniform draws."""
    lines = []
    for name, spec in results.experiment.searches.items():
        if spec.against is None or results.experiment.searches[spec.against].cells != "random":
            continue
        found = compared(name, spec.against, results)
        if found.p is None or found.difference is None:
            lines.append(f"Search {name} against random cells: {NOT_RUN}.")
            continue
        better = "better" if found.difference > 0 and found.p < LEVEL else "not better"
        beside = "" if found.unequal is None else f" ({found.unequal.beside})"
        lines.append(f"Search {name} against random cells: {better}, {p_is(found.p)}{beside}.")
    lines += [_uniform(found) for found in against_uniform(results)]
    return lines


def _uniform(found: Against) -> str:
    better = "better" if found.p < LEVEL else "not better"
    return (
        f"Search {found.name} against uniform draws, by true accuracy ({found.column}): {better}, "
        f"{p_is(found.p)}."
    )


def _cell(name: str, seed: int, genotype: dict[str, object], results: Results) -> str:
    """A found cell, drawn, with its genotype to copy."""
    text = escape(json.dumps(genotype))
    return (
        f"<figure class=cell><figcaption>The cell that {escape(name)} found (seed {seed})"
        f"</figcaption>{image(results.folder / cell_figure(name), f'cell of {name}')}"
        "<button type=button class=copy hidden>copy genotype</button>"
        f"<details><summary>genotype</summary><pre>{text}</pre></details></figure>"
    )


def _links(results: Results, tables: Iterable[str]) -> list[str]:
    """Links to what lies beside the report, and how to open MLflow."""
    links = ["<a href='../jobs/'>job folders</a>", "<a href='../study.json'>settings</a>"]
    if any(tables):
        links.append("<a href='tables/'>tables as CSV and LaTeX</a>")
    links.append("<a href='report.md'>this report as Markdown</a>")
    uri = results.experiment.mlflow.tracking_uri
    if uri and uri.startswith(("http://", "https://")):
        links.append(f"<a href='{escape(uri)}'>MLflow</a>")
    else:
        links.append(
            "MLflow: <code>mlflow ui --backend-store-uri sqlite:///OUT/mlflow.db</code>, "
            "OUT this study's folder"
        )
    return links
