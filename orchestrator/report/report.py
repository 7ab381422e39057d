"""The report: the paper's tables with our numbers beside them, from job folders alone. Pure.

It is written as Markdown (report.md, with its figures beside it) and, from the same parts, as one
self-contained HTML file that can be read without its script. Every table is also a CSV file and
LaTeX, in report/tables/. A number that was not measured reads "not run".
"""

from __future__ import annotations

from pathlib import Path

from gdas.files import write_text
from orchestrator.experiment.study import Study
from orchestrator.report.claims import claims
from orchestrator.report.differences import differences
from orchestrator.report.failed import failed
from orchestrator.report.first_screen import first_screen, title
from orchestrator.report.markup import html_page
from orchestrator.report.parts import Part, markdown_of
from orchestrator.report.searches import comparisons, track
from orchestrator.report.table_files import write_tables
from orchestrator.report.tables import final_trainings, papers_tables
from orchestrator.report.times import times, versions
from orchestrator.report.truth import truth
from orchestrator.report.view import Results


def write_report(results: Results) -> Path:
    """Write OUT/report/report.md, report.html and their figures; returns the HTML file."""
    experiment, folder = results.experiment, results.folder
    folder.mkdir(exist_ok=True)
    body: list[Part] = []
    if experiment.note:
        body.append(f"> {' '.join(experiment.note.split())}\n")
    body += _unpublished(results.study)
    body += failed(results)
    body += papers_tables(results)
    body += comparisons(results)
    body += truth(results)
    body += claims(results)
    for name in experiment.searches:
        body += track(name, results)
    body += final_trainings(results)
    body += differences(experiment)
    body += times(results)
    body += versions(results)
    parts = [first_screen(results, write_tables(body, folder)), *body]
    write_text(folder / "report.md", markdown_of(parts))
    write_text(folder / "report.html", html_page(title(results), parts, folder))
    results.store.publish("report")
    return folder / "report.html"


def _unpublished(study: Study) -> list[Part]:
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
