"""How long every job took, and the versions of the packages that ran it."""

from __future__ import annotations

from orchestrator.report.markup import NOT_RUN, duration
from orchestrator.report.parts import Part, Table
from orchestrator.report.view import Results


def times(results: Results) -> list[Part]:
    """The report's table of each job's time in segments."""
    rows = []
    for job in results.study.in_cluster:
        records = results.records(job)
        spent = sum(record["seconds"] for record in records)
        hosts = {record["host"] for record in records}
        rows.append(
            [
                f"{job.of.title} {job.name}",
                str(len(records)),
                duration(spent) if records else NOT_RUN,
                ", ".join(sorted(hosts)),
            ]
        )
    return [
        "## Time\n",
        Table("times", ["job", "segments", "time in them", "host"], rows),
        "\nWall-clock time; jobs that ran side by side shared the machine, so these are not costs "
        "of a job alone.\n",
    ]


def versions(results: Results) -> list[Part]:
    """The report's table of package versions."""
    found = results.store.study().get("versions", {})
    rows = [[name, str(version)] for name, version in found.items()]
    return ["## Versions\n", Table("versions", ["package", "version"], rows)]
