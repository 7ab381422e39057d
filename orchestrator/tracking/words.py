"""The names, tags and descriptions of runs in MLflow, and the report's tables. Pure.

MLflow's page groups runs by their parent, sorts them by name, and filters and groups them by tags.
A description is Markdown, and may link to charts on the page.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from orchestrator.experiment.config import Experiment
from orchestrator.experiment.kinds import KINDS
from orchestrator.experiment.spaces import SPACES
from orchestrator.experiment.study import Job, Study, flat
from orchestrator.report.statistics import better_of, permutation_p
from orchestrator.report.view import Results
from orchestrator.store.results import Trained
from orchestrator.store.store import Store

PAGE = "workflowType=machine_learning"
"""A query for MLflow's page; without it the page shows language model agents, not runs."""
COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7"),
    *("#56B4E9", "#D55E00", "#8C6BB1", "#666666"),
)
"""Colours for all eyes (Okabe and Ito); MLflow draws its own at random, which may be alike."""
SEED = re.compile(r"(.+?)-(?:seed)?(\d+)(?:-training(\d+))?")
MAIN = (("test/top1", "top-1", "%"), ("test/perplexity", "perplexity", ""))


def variant_of(job: Job) -> str:
    """The search or final, as the experiment names it, that a job is one seed of."""
    found = _parts(job)
    return found[1] if found else job.name


def run_name(job: Job) -> str:
    """The name of a job's run, such as "search gdas-frc seed 2"."""
    variant = variant_of(job)
    seed = "" if variant == job.name else f" seed {job.seed}"
    return f"{job.kind} {variant}{seed}" + (f" training {n}" if (n := _training(job)) else "")


def _training(job: Job) -> str:
    """Which of its cell's proxy trainings a job is, from the second on."""
    found = _parts(job)
    return found[3] or "" if found else ""


def _parts(job: Job) -> re.Match[str] | None:
    """The variant, seed and training in a job's name; None if it is not named by its seed."""
    found = SEED.fullmatch(job.name)
    if found is None or int(found[2]) != job.seed:
        return None
    return None if found[3] and "search" not in job.recipe else found


def tags_of(job: Job, experiment: Experiment) -> dict[str, str]:
    """The tags by which a job's run is found and grouped."""
    config = job.recipe["config"]
    final = experiment.finals.get(variant_of(job)) if job.of.section == "finals" else None
    row = final.row if final else None
    tags = {
        "stage": job.of.title,
        "variant": variant_of(job),
        "dataset": str(config["data"]["name"]),
        "seed": str(job.seed),
        "job": job.id,
        "mlflow.runColor": COLOURS[job.seed % len(COLOURS)],
    }
    tags |= {"training": number} if (number := _training(job)) else {}
    return tags | ({"paper_row": f"Table {row.table}: {row.method}"} if row else {})


def data_of(job: Job) -> dict[str, tuple[str, str]]:
    """A job's data: for each split, the data set's name and a digest of its content."""
    name = str(job.recipe["config"]["data"]["name"])
    return {
        split: (name, hashlib.sha256(f"{split} {content}".encode()).hexdigest()[:8])
        for split, content in job.recipe["data"].items()
    }


def parameters_of(job: Job) -> dict[str, str]:
    """A job's settings: those without a dot in the key first, then those of data and network."""
    return dict(sorted(flat(job.recipe["config"]).items(), key=lambda item: "." in item[0]))


def description(study: Study, store: Store, experiment_id: str) -> str:
    """The parent run's description: selections, results of finals, and links to charts.

    Args:
        experiment_id: MLflow's id, for the addresses of the charts.
    """
    selected, charts, finals = [], [], []
    for job in study.of_kind("select"):
        if (record := store.selection(job)) is not None:
            best = record["winner"]
            selected.append(
                f"- {job.name}: seed {best['seed']}, {record['metric']} {best['score']:.2f}"
            )
    for job in study.of_kind("train"):
        if (result := store.folder(job).result()) is not None:
            words = [
                f"test {name} {result['metrics'][key]:.2f} {unit}".rstrip()
                for key, name, unit in MAIN
                if key in result["metrics"]
            ]
            finals.append(f"- {run_name(job).partition(' ')[2]}: {', '.join(words) or 'done'}")
    for variant in dict.fromkeys(variant_of(job) for job in study.of_kind("search")):
        charts.append(f"- [{variant}]({chart(experiment_id, variant)})")
    parts = [("Selected by validation", selected), ("Finals", finals)]
    parts.append(("The seeds of a search in one chart", charts))
    return "\n\n".join(f"**{title}**\n\n" + "\n".join(lines) for title, lines in parts if lines)


def job_note(result: Trained) -> str:
    """The description of a job's run: its cell, as `orchestrator.cell` reads it; "" without one."""
    if "genotype" not in result:
        return ""
    cell = json.dumps(result["genotype"])
    return f"The cell (`figures/cell.png` shows it):\n\n```json\n{cell}\n```"


def failure_note(error: str, traceback: str) -> str:
    """The description of a failed job's run."""
    note = f"**Failed**: {error[:500]}"
    # MLflow takes 8,000 characters; the end of a traceback says most.
    return note + (f"\n\n```\n{traceback[-6000:]}\n```" if traceback else "")


def figures(results: Results) -> dict[str, float]:
    """The study's figures by which MLflow's page sorts studies.

    They are the mean test error or perplexity of each final, and for each search that stands
    against another the p of the report's permutation test.
    """
    found: dict[str, float] = {}
    for name in results.experiment.finals:
        runs = results.finals(name)
        for key, title in (("test/top1", "error"), ("test/perplexity", "perplexity")):
            values = [run["metrics"][key] for run in runs if key in run["metrics"]]
            if values:
                mean = sum(values) / len(values)
                found[f"test_{title}/{name}"] = 100 - mean if title == "error" else mean
    for name, spec in results.experiment.searches.items():
        if spec.against is None or name not in results.study.selections:
            continue
        space = SPACES[spec.recipe.task]
        ours, theirs = (results.scores(which) for which in (name, spec.against))
        if ours and theirs:
            p = permutation_p(ours, theirs, better_of(space.best))
            found[f"p/{name} against {spec.against}"] = p
    return found


def chart(experiment_id: str, variant: str) -> str:
    """The address, on MLflow's page, of the curves of a search's seeds.

    They are sorted by name, because if they are sorted by time the page folds the runs under their
    parent and draws none.
    """
    wanted = f"tags.variant = '{variant}' AND tags.stage = '{KINDS['search'].title}'"
    order = quote("attributes.`run_name`", safe="")
    return (
        f"#/experiments/{experiment_id}/runs?{PAGE}&compareRunsMode=CHART&orderByKey={order}"
        f"&orderByAsc=true&searchFilter={quote(wanted, safe='')}"
    )


def where_to_look(uri: str, experiment_id: str) -> str:
    """The address of a server's page, or the command that shows the runs of a database."""
    page = f"/#/experiments/{experiment_id}?{PAGE}" if experiment_id else ""
    if uri.startswith(("http://", "https://")):
        return uri.rstrip("/") + page
    return f"mlflow ui --backend-store-uri {shlex.quote(uri)}   # then open http://127.0.0.1:5000{page}"


def report_tables(markdown: str) -> dict[str, str]:
    """The report's tables in MLflow's JSON format (columns and data), by file name."""
    found: dict[str, str] = {}
    for part in re.split(r"^#{2,3} ", markdown, flags=re.M)[1:]:
        title, _, text = part.partition("\n")
        lines = [line for line in text.splitlines() if line.startswith("| ")]
        if len(lines) > 2:
            rows = [_cells(line) for line in lines]
            file = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60].strip("-")
            rows = [rows[0], *(row for row in rows[2:] if len(row) == len(rows[0]))]
            table: dict[str, Any] = {"columns": _named(rows[0]), "data": rows[1:]}
            found.setdefault(f"tables/{file}.json", json.dumps(table, ensure_ascii=False))
    return found


def _cells(line: str) -> list[str]:
    plain = line.replace("**", "")
    return [cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", plain)[1:-1]]


def _named(columns: Sequence[str]) -> list[str]:
    return [name or "whose" for name in columns]
