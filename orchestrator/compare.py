"""Compare studies: `python -m orchestrator.compare OUT1 OUT2 ...`. From records alone, no Ray.

It prints the settings and versions that differ, then every job's main figure, with one column per
study.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from shlex import quote
from typing import Any, cast

from gdas.errors import InputError
from orchestrator.experiment.kinds import KINDS
from orchestrator.experiment.study import Job, Study, flat
from orchestrator.store.recorded import open_recorded
from orchestrator.store.results import Result, Trained
from orchestrator.store.store import Store
from orchestrator.terminal.command import add_study, command_parser, run_command, say_next
from orchestrator.terminal.progress import SHOWN
from orchestrator.terminal.words import clock, columns

MORE = """examples:
  python -m orchestrator.compare runs/smoke runs/longer
  python -m orchestrator.compare runs/*                 all of them
  python -m orchestrator.compare runs/smoke runs/longer --json    for scripts

Name two studies or more. Settings are compared by their dotted keys, as you would write them on the
command line. Two jobs with the same id had equal settings and data, so their weights should be
equal."""

WIDEST = 44
ABSENT, OPEN = "-", "not done"
Opened = Sequence[tuple[Store, Study]]


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser(
        "orchestrator.compare",
        "What differs between studies, in their settings and in their results.",
        MORE,
        done="whatever differs",
    )
    add_study(parser, several=True)
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(parser(), _compare, arguments)


def _compare(options: argparse.Namespace) -> int:
    outs: list[str] = options.outs
    if len(outs) < 2:
        raise InputError(f"{outs[0]}: one study; name another to compare it with: OUT1 OUT2")
    opened = [open_recorded(out) for out in outs]
    stores = [store for store, _ in opened]
    if options.json:
        print(json.dumps(as_json(outs, opened), indent=1))
        return 0
    for title, rows in (
        ("settings", differing([flat(s.study().get("settings", {})) for s in stores])),
        ("versions", differing([flat(s.study().get("versions", {})) for s in stores])),
    ):
        if not rows:
            print(f"{title}: equal")
        else:
            print("\n".join(columns([(f"{title} that differ", *outs), *rows])))
        print()
    print("\n".join(columns([("results", *outs), *results(opened)])))
    print(f"\n{same_jobs(opened)}")
    say_next(f"python -m orchestrator.status {quote(outs[0])}")
    return 0


def as_json(outs: Sequence[str], opened: Opened) -> dict[str, Any]:
    """What differs, for scripts: dotted keys, each with its value in every study."""
    studies = [store.study() for store, _ in opened]
    settings = differing([flat(s.get("settings", {})) for s in studies], whole=True)
    versions = differing([flat(s.get("versions", {})) for s in studies], whole=True)
    return {
        "studies": list(outs),
        "settings": {key: values for key, *values in settings},
        "versions": {key: values for key, *values in versions},
        "results": {key: values for key, *values in results(opened)},
        "weights": same_jobs(opened),
    }


def differing(settings: Sequence[dict[str, str]], *, whole: bool = False) -> list[tuple[str, ...]]:
    """The settings that are not equal in all studies.

    A search or a final that some studies lack is one line.

    Args:
        settings: dotted keys and values, of every study.
        whole: whether long values are given whole.

    Returns:
        Rows of the key and its value in each study.
    """
    parts = sorted({key.rpartition(".")[0] for found in settings for key in found})
    parts = [".".join(part.split(".")[:2]) for part in parts if part.count(".") >= 1]
    rows, missing = [], []
    for part in dict.fromkeys(parts):
        has = [any(key.startswith(f"{part}.") for key in found) for found in settings]
        if not all(has):
            missing.append(f"{part}.")
            rows.append((part, *("there" if one else ABSENT for one in has)))
    for key in sorted(set().union(*settings)):
        if key.startswith(tuple(missing)):
            continue
        values = [found.get(key, ABSENT) for found in settings]
        if len(set(values)) > 1:
            rows.append((key, *(values if whole else map(_cut, values))))
    return rows


def _cut(value: str) -> str:
    return value if len(value) <= WIDEST else f"{value[: WIDEST - 3]}..."


def results(opened: Opened) -> list[tuple[str, ...]]:
    """Rows of a job's label and figure, and its value in each study; finals first."""
    rows: list[tuple[str, ...]] = []
    labels = {job.label: job.kind for _, study in opened for job in study}
    order = list(dict.fromkeys(("train", "select", *KINDS)))
    for label in sorted(labels, key=lambda label: order.index(labels[label])):
        found = [_figures(label, store, study) for store, study in opened]
        for figure in dict.fromkeys(key for figures in found for key in figures):
            values = [figures.get(figure, OPEN if figures else ABSENT) for figures in found]
            rows.append((f"{label}  {figure}".rstrip(), *values))
    return rows


def _figures(label: str, store: Store, study: Study) -> dict[str, str]:
    """A job's figures as text; empty if there is no such job."""
    job = next((job for job in study if job.label == label), None)
    if job is None:
        return {}
    if job.in_driver:
        record = store.selection(job)
        if record is None:
            return {"": OPEN}
        winner = record["winner"]
        return {
            "seed": str(winner["seed"]),
            f"{record['metric']} of the best": f"{winner['score']:.2f}",
        }
    result = store.folder(job).result()
    return {"": OPEN} if result is None else _of_result(result)


FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "parameters": ("parameters", lambda value: f"{value:,.0f}"),
    "multiply_adds": ("multiply-adds", lambda value: f"{value:,.0f}"),
    "seconds": ("time", clock),
}


def _of_result(result: Result) -> dict[str, str]:
    metrics = result["metrics"]
    shown = [key for key in ("test/top1", "test/perplexity", *SHOWN) if key in metrics][:1]
    figures = {key: f"{metrics[key]:.2f}" for key in shown or list(metrics)[:1]}
    for key, (title, text) in FIGURES.items():
        value = cast(Mapping[str, object], result).get(key)
        if isinstance(value, int | float):
            figures[title] = text(value)
    return figures


def same_jobs(opened: Opened) -> str:
    """Whether jobs that are the same computation ended with the same weights, as a sentence."""
    digests: dict[str, list[str]] = {}
    labels: dict[str, str] = {}
    for store, study in opened:
        for job in study:
            digest = _digest(store, job)
            if digest is not None:
                digests.setdefault(job.id, []).append(digest)
                labels[job.id] = job.label
    shared = {job_id: found for job_id, found in digests.items() if len(found) > 1}
    unequal = [labels[job_id] for job_id, found in shared.items() if len(set(found)) > 1]
    if not shared:
        return "no finished job is common to them"
    if unequal:
        return (
            f"{len(shared)} finished jobs are common; weights differ in {', '.join(unequal)} "
            "(exactness holds for equal hardware, workers and threads)"
        )
    return f"{len(shared)} finished jobs are common, with equal weights, bit for bit"


def _digest(store: Store, job: Job) -> str | None:
    result = store.folder(job).result(Trained) if not job.in_driver else None
    return None if result is None else result.get("digest")


if __name__ == "__main__":
    sys.exit(main())
