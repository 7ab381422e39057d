"""How long every job took, and the versions of the packages that ran it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from orchestrator.report.markup import NOT_RUN, lasted
from orchestrator.report.parts import Cell, Part, Table
from orchestrator.report.view import Results


def times(results: Results) -> list[Part]:
    """The report's table of each job's time in segments."""
    rows: list[list[Cell]] = []
    for job in results.study.in_cluster:
        records = results.records(job)
        spent = sum(record["seconds"] for record in records)
        hosts = {record["host"] for record in records}
        ran = [record["kernels"] for record in records if "kernels" in record]
        rows.append(
            [
                f"{job.of.title} {job.name}",
                str(len(records)),
                lasted([spent]) if records else NOT_RUN,
                ", ".join(sorted(hosts)),
                _kernels(ran),
            ]
        )
    return [
        "## Time\n",
        Table("times", ["job", "segments", "time in them", "host", "kernels"], rows),
        "\nWall-clock time; jobs that ran side by side shared the machine, so these are not costs "
        "of a job alone.\n",
        *_without_what_was_asked(results),
    ]


def _kernels(ran: Sequence[str]) -> str:
    """Which kernels a job's segments ran with, such as "fused 1 to 3, plain 4 to 6"."""
    if len(set(ran)) < 2:
        return "".join(ran[:1])
    parts, first = [], 1
    for kernels, segments in groupby(ran):
        last = first + len(list(segments)) - 1
        parts.append(f"{kernels} {first} to {last}")
        first = last + 1
    return ", ".join(parts)


def _without_what_was_asked(results: Results) -> list[Part]:
    """A paragraph on the jobs that asked for fused kernels and ran without them."""
    names = [
        f"{job.of.title} {job.name}"
        for job in results.study.in_cluster
        if job.fused and any(record.get("kernels") == "plain" for record in results.records(job))
    ]
    if not names:
        return []
    return [
        f"\nAsked for fused kernels and ran in plain PyTorch, in part or in whole, because a "
        f"machine could not compile them: {', '.join(names)}. The numbers are the same but for "
        "rounding; the bits are not.\n"
    ]


def versions(results: Results) -> list[Part]:
    """The report's table of package versions."""
    found = results.store.study().get("versions", {})
    rows = [[name, str(version)] for name, version in found.items()]
    return ["## Versions\n", Table("versions", ["package", "version"], rows)]
