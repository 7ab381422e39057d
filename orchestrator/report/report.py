"""The report: the paper's tables with our numbers beside them, from job folders alone. Pure.

It is written as Markdown (report.md, with PNG figures beside it) and, from the same text, as one
self-contained HTML file. A number that was not measured reads "not run".
"""

from __future__ import annotations

from pathlib import Path

from gdas.files import write_text
from orchestrator.experiment.study import Study
from orchestrator.report.claims import claims
from orchestrator.report.differences import differences
from orchestrator.report.markup import html_page
from orchestrator.report.searches import comparisons, track
from orchestrator.report.tables import final_trainings, papers_tables
from orchestrator.report.times import times, versions
from orchestrator.report.truth import truth
from orchestrator.report.view import Results


def write_report(results: Results) -> Path:
    """Write OUT/report/report.md, report.html and their figures; returns the HTML file."""
    experiment, folder = results.experiment, results.folder
    folder.mkdir(exist_ok=True)
    parts = [f"# {experiment.name}: GDAS (CVPR 2019), ours beside the paper's\n"]
    if experiment.note:
        parts.append(f"> {' '.join(experiment.note.split())}\n")
    parts += _unpublished(results.study)
    parts += papers_tables(results)
    parts += comparisons(results)
    parts += truth(results)
    parts += claims(results)
    for name in experiment.searches:
        parts += track(name, results)
    parts += final_trainings(results)
    parts += differences(experiment)
    parts += times(results)
    parts += versions(results)
    markdown = "\n".join(parts)
    write_text(folder / "report.md", markdown)
    write_text(folder / "report.html", html_page(experiment.name, markdown, folder))
    results.store.publish("report")
    return folder / "report.html"


def _unpublished(study: Study) -> list[str]:
    """A warning if a data set's files are not the published ones."""
    contents = {
        (job.recipe["config"]["data"]["name"], content)
        for job in study.in_cluster
        for content in job.recipe["data"].values()
    }
    names = sorted({name for name, content in contents if "-unpublished-" in content})
    return [
        f"> **Warning.** The files of {name} are not the published ones: their checksums differ "
        "(data.checksum=any). No figure measured on them compares with the paper's.\n"
        for name in names
    ]
