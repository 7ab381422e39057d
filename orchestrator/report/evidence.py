"""What studies show, claim by claim: one page made from their folders. Pure.

A claim is a sentence that a study can bear out or not: a figure of the paper's tables, that
searching is better than drawing, that one way to search is better than another. Beside each stand
what was run, how often, the figure with its 95 % interval, and the verdict by the report's rules.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gdas.cnn.config import SearchConfig
from orchestrator.experiment.config import Experiment, FinalSpec
from orchestrator.experiment.spaces import SPACES
from orchestrator.paper import tables as paper
from orchestrator.report.claims import PRINTED, gain
from orchestrator.report.comparison import Comparison
from orchestrator.report.first_screen import facts
from orchestrator.report.markup import NOT_RUN
from orchestrator.report.paired import corrected, gain_in_words
from orchestrator.report.parts import brief, table
from orchestrator.report.searches import compared, size_of_search
from orchestrator.report.split_half import split_half
from orchestrator.report.statistics import (
    LEVEL,
    MOST_SPLITS,
    RANDOM_SPLITS,
    p_in_words,
    paired_p,
    summary,
)
from orchestrator.report.tables import as_printed, judged, last, size_of
from orchestrator.report.truth import contests_of
from orchestrator.report.view import Results
from orchestrator.store.results import MeasureResult

HEADER = ["claim", "what we ran", "n", "ours", "p", "verdict"]
INTRODUCTION = f"""# Evidence

What was run so far, claim by claim, each study with its command. This page is made from the
studies' own folders, or from what `--keep` wrote of them (`experiments/evidence/`), and no number
in it is typed by hand:

```sh
python -m orchestrator.evidence experiments/evidence/*.json OUT1 OUT2 > experiments/EVIDENCE.md
```

A figure is a mean ± standard deviation with n and the 95 % interval of the mean. p: one-sided, by
permutations, or by signs for pairs of the same seed and for split halves; exact up to
{MOST_SPLITS:,} splits, else by {RANDOM_SPLITS:,} random splits. Against uniform draws it is exact.
If two sides differ so much in spread that the permutation test of means does not hold its level,
the p of Welch's t test stands beside it. Several comparisons of one study in NAS-Bench-201 are
corrected together (Holm), those that are not run yet among them.
"""


class Claim(NamedTuple):
    """A line of the page.

    Attributes:
        text: what is claimed.
        ran: what was run for it.
        n: how many runs, or on each side.
        ours: the figure with its interval; or NOT_RUN.
        p: of the test, if there is one.
        verdict: a word or two.
    """

    text: str
    ran: str
    n: str
    ours: str
    p: str
    verdict: str


class Section(NamedTuple):
    """What one study shows: all that the page says of it.

    Attributes:
        name: the experiment's.
        note: what the experiment's file says of it, on one line.
        facts: when and where it ran, from which commit, by which command, how much of it is done.
        claims: what it bears on.
    """

    name: str
    note: str
    facts: dict[str, str]
    claims: list[Claim]


def section_of(results: Results) -> Section:
    """What a study shows by now."""
    states = list(results.board.states.values())
    known = dict(facts(results)) | {"jobs": f"{states.count('done')} of {len(states)} done"}
    if "command" in known:
        known["command"] = f"`{without_places(known['command'])}`"
    experiment = results.experiment
    note = " ".join(experiment.note.split())
    return Section(experiment.name, note, known, claims_of(results))


def evidence_page(sections: Sequence[Section], whole: Experiment) -> str:
    """The page, in Markdown: a section for every study, in the order given, and what none has.

    Args:
        whole: an experiment with all figures of the paper's tables, at its size.
    """
    parts = [INTRODUCTION]
    for section in sections:
        parts.append(f"\n## {section.name}\n")
        if section.note:
            parts.append(f"> {section.note}\n")
        parts += [f"- {name}: {value}" for name, value in section.facts.items()]
        parts.append("")
        parts.append(table(HEADER, section.claims) if section.claims else "It bears on no claim.\n")
    if rest := list(_uncovered(sections, whole)):
        parts.append("\n## What no study above bears on\n")
        parts.append(f"`python -m orchestrator.reproduce_paper {whole.name} --data DIR --yes`\n")
        parts.append(table(HEADER, rest))
    return "\n".join(parts)


def without_places(command: str) -> str:
    """A study's command as anybody may give it: without the folders of the machine that ran it."""
    words = iter(shlex.split(command))
    kept = []
    for word in words:
        if word in ("--data", "--out", "--address"):
            place = next(words, "")
            kept += ["--data", "DIR"] if word == "--data" and place else []
        else:
            kept.append(Path(word).name if word.endswith((".yaml", ".yml")) else word)
    return shlex.join(kept)


def claims_of(results: Results) -> list[Claim]:
    """Everything that a study bears on: tables, searching against drawing, and the text."""
    return [
        *_figures(results),
        *_choosing(results),
        *_searching(results),
        *_benchmark(results),
        *_speed(results),
    ]


def _figures(results: Results) -> Iterator[Claim]:
    for name, spec, row, column in _printed(results.experiment):
        yield _figure(name, spec, row, column, results)


def _printed(experiment: Experiment) -> Iterator[tuple[str, FinalSpec, paper.Row, str]]:
    """The figures of the paper's tables that finals stand beside, with the final and the row."""
    for name, spec in experiment.finals.items():
        if spec.row is not None:
            row = paper.find_row(spec.row.table, spec.row.method, spec.row.columns)
            for column in spec.row.columns:
                if row.get(column) is not None:
                    yield name, spec, row, column


def _claimed(spec: FinalSpec, row: paper.Row, column: str) -> str:
    """A figure of the paper's, as a claim."""
    assert spec.row is not None
    measure = paper.MEASURES[spec.row.table][column]
    theirs = f"{as_printed(row[column], spec.row.table)} {measure.unit}".strip()
    return f"Table {spec.row.table}, {spec.row.method}: {measure.title} {theirs}"


def _uncovered(sections: Sequence[Section], whole: Experiment) -> Iterator[Claim]:
    covered = {claim.text for section in sections for claim in section.claims}
    for name, spec, row, column in _printed(whole):
        if (claim := _claimed(spec, row, column)) not in covered:
            yield Claim(claim, f"final {name}: {size_of(spec)}", "0", NOT_RUN, "", NOT_RUN)


def _figure(name: str, spec: FinalSpec, row: paper.Row, column: str, results: Results) -> Claim:
    assert spec.row is not None
    measure, runs = paper.MEASURES[spec.row.table][column], results.finals(name)
    return Claim(
        _claimed(spec, row, column),
        f"final {name}: {size_of(spec)}",
        str(len(runs)),
        brief(summary([last(measure, run) for run in runs])) if runs else NOT_RUN,
        "",
        judged(spec, row, column, runs, results.experiment).word,
    )


def _choosing(results: Results) -> Iterator[Claim]:
    """Whether the logits of searches learn something that their epochs agree on."""
    for name, spec in results.experiment.searches.items():
        if spec.cells == "random":
            continue
        halves = [
            found
            for job in results.study.searches(name)
            if (found := split_half(results.records(job), spec.recipe)) is not None
        ]
        if not halves:
            continue
        p = paired_p([share for found in halves for share in found.edges])
        yield Claim(
            f"{name} chooses by more than noise: its odd and even epochs agree",
            size_of_search(spec),
            str(len(halves)),
            f"split-half correlation {brief(summary([found.correlation for found in halves]))}",
            p_in_words(p),
            "yes" if p < LEVEL else "not shown",
        )


def _searching(results: Results) -> Iterator[Claim]:
    for name, spec in results.experiment.searches.items():
        if spec.against is None:
            continue
        other = results.experiment.searches[spec.against]
        found = compared(name, spec.against, results)
        against = "cells drawn at random" if other.cells == "random" else spec.against
        better = found.p is not None and found.p < LEVEL
        ours = NOT_RUN
        if found.difference is not None:
            ours = f"better by {found.difference:.2f}"
            if found.low is not None:
                ours += f" (95 % interval {found.low:.2f} to {found.high:.2f})"
        yield Claim(
            f"{name} finds better cells than {against}",
            f"{size_of_search(spec)} Scored by {SPACES[spec.recipe.task].metric}, {spec.select_by}",
            " and ".join(str(s.n) if s else "0" for s in (found.searched, found.random)),
            ours,
            _p_of(found),
            "yes" if better else NOT_RUN if found.p is None else "not shown",
        )


def _p_of(found: Comparison) -> str:
    """The p of a comparison, with that of Welch's test if the spreads differ too much."""
    if found.p is None:
        return ""
    beside = "" if found.unequal is None else f" ({found.unequal.beside})"
    return f"{p_in_words(found.p)}{beside}"


def _benchmark(results: Results) -> Iterator[Claim]:
    for column, first, found, missing in contests_of(results):
        spec = results.experiment.searches[first]
        claim = f"{first} finds better cells of NAS-Bench-201 than"
        ran = f"{size_of_search(spec)} Looked up in {column}"
        ps = corrected(found, len(found) + len(missing))
        for contest, p in zip(found, ps, strict=True):
            yield Claim(
                f"{claim} {contest.name}",
                ran,
                str(contest.gain.n),
                f"percentile better by {gain_in_words(contest.gain)}",
                f"{p_in_words(p)}, corrected",
                "yes" if p < LEVEL else "not shown",
            )
        yield from (Claim(f"{claim} {name}", ran, "0", NOT_RUN, "", NOT_RUN) for name in missing)


def _speed(results: Results) -> Iterator[Claim]:
    for name, spec in results.experiment.measures.items():
        job = results.study.measure(name)
        result = results.result(job, MeasureResult) if job else None
        recipe = spec.recipe
        assert isinstance(recipe, SearchConfig)
        ours = NOT_RUN
        if result is not None:
            time, memory = gain(result)
            ours = f"{time:.1f} times the time, {memory:.1f} times the memory"
        size = f"C={recipe.network.channels}, N={recipe.network.normals_per_block}"
        where = result["device"] if result else ""
        yield Claim(
            f"Section 3.2: without the acceleration an iteration takes {PRINTED} times as much",
            f"{size}, batch {recipe.batch_size} {where}".strip(),
            "1" if result else "0",
            ours,
            "",
            "measured" if result else NOT_RUN,
        )
