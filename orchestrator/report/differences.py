"""The settings in which this experiment differs from the paper."""

from __future__ import annotations

from orchestrator.experiment.config import Experiment
from orchestrator.paper.deviations import Deviation, deviations
from orchestrator.report.parts import Part, Table

HEADER = ["setting", "jobs", "ours", "paper", "2019 code", "2020 code", "where", "touches"]


def differences(experiment: Experiment) -> list[Part]:
    """The report's part on settings that differ from their source, or whose sources disagree."""
    found: list[Deviation] = []
    for name, search in experiment.searches.items():
        if search.cells == "searched":
            found += deviations(search.recipe, job=f"search {name}")
    for name, final in experiment.finals.items():
        found += deviations(final.recipe, job=f"final {name}")
    parts: list[Part] = [
        "## Where ours is not the paper's\n",
        "Settings that differ from the paper (where it is silent: from the authors' 2019 code):\n",
        Table("differences", HEADER, _lines(found, differs=True)),
        "\nChoices that had to be made because the sources disagree or one is silent:\n",
        Table("choices", HEADER, _lines(found, differs=False)),
    ]
    others: list[Part] = [
        f"- search {name}: the best seed is picked by {search.select_by}, not by a proxy training\n"
        for name, search in experiment.searches.items()
        if search.select_by != "proxy"
    ]
    return [*parts, "\n", *others] if others else parts


def _lines(found: list[Deviation], *, differs: bool) -> list[list[str]]:
    """A row for each setting and value, with all the jobs that have it."""
    jobs: dict[tuple[str, ...], list[str]] = {}
    for line in found:
        if line.differs == differs:
            key = (line.key, line.ours, line.paper, line.code_2019, line.code_2020)
            jobs.setdefault((*key, line.why, line.touches), []).append(line.job)
    return [[f"`{key[0]}`", ", ".join(who), *key[1:]] for key, who in jobs.items()]
