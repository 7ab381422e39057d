"""What a cluster would do with an experiment: `python -m orchestrator.scale paper --gpus 4,32,256`.

From the plan alone: every job's rough time (orchestrator.cost.estimate), handed out as the
scheduler hands jobs out (orchestrator.cost.plan). Nothing is started, no data and no GPU are
needed. Pure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

from gdas.data.settings import AnyImageData, PhotoData, TableData, TextData
from gdas.errors import InputError
from orchestrator.cost.estimate import estimated_seconds
from orchestrator.cost.plan import duration, makespan
from orchestrator.experiment.build import build_study
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.kinds import KINDS
from orchestrator.experiment.load import experiment_of
from orchestrator.experiment.study import Job, Study
from orchestrator.run.checks import fixed_cells, identity
from orchestrator.store.storage import cache_folder
from orchestrator.terminal.console import run_command, say_next

PHOTOS = {"train": 1_281_167, "test": 50_000}
"""ImageNet's, for photos that are not at hand."""

EPILOG = """examples:
  python -m orchestrator.scale                                   the paper on 4, 32 and 256 GPUs
  python -m orchestrator.scale headline --gpus 1,2,4,8
  python -m orchestrator.scale paper 'search.seeds=[0,1,2,3,4,5,6,7]' --gpus 32
  python -m orchestrator.scale paper finals.gdas-imagenet.resources.workers=8 --gpus 32

Times are rough guesses for one V100-class GPU (see orchestrator/cost/estimate.py) and may be wrong
by several times; which jobs decide, and how the use falls, does not depend on the GPU's speed.
--faster says how many times as fast yours is."""


class Row(NamedTuple):
    """What a number of GPUs does with a study.

    Attributes:
        seconds: from the first job's start to the last one's end.
        use: share of the GPUs' time that jobs hold.
    """

    gpus: int
    seconds: float
    use: float


def whole_study(experiment: Experiment) -> Study:
    """All jobs, whatever data are at hand."""

    def known(data: AnyImageData | TextData | TableData, split: str) -> str:
        if isinstance(data, PhotoData):
            return f"photos-{PHOTOS['train' if split == 'train' else 'test']}-not-at-hand"
        return "table" if isinstance(data, TableData) else identity(cache_folder(), data, split)

    genotypes = {name: cell.to_json() for name, cell in fixed_cells(experiment).items()}
    return build_study(experiment, known, genotypes)


def spans_of(study: Study, faster: float) -> dict[str, float]:
    """Every job's seconds on GPUs so many times as fast as a V100, its start included."""
    return {job.id: duration(job, estimated_seconds(job) / faster) for job in study}


def critical_path(study: Study, spans: dict[str, float]) -> list[Job]:
    """The chain of jobs, each needing the one before, that takes longest: no cluster is faster."""
    longest: dict[str, tuple[float, list[Job]]] = {}
    for job in study:  # after what it needs
        before = max(
            (longest[need] for need in job.needs), key=lambda found: found[0], default=(0.0, [])
        )
        longest[job.id] = before[0] + spans[job.id], [*before[1], job]
    return max(longest.values(), key=lambda found: found[0])[1]


def rows(study: Study, spans: dict[str, float], gpus: Sequence[int]) -> list[Row]:
    """What each number of GPUs does.

    Raises:
        InputError: a job needs more.
    """
    held = sum(spans[job.id] * job.cost["GPU"] for job in study)
    widest = max(study, key=lambda job: job.cost["GPU"])
    found = []
    for count in gpus:
        if count < widest.cost["GPU"]:
            raise InputError(
                f"--gpus {count}: {widest.label} needs {widest.cost['GPU']:g}; give it fewer "
                "workers, or name more GPUs"
            )
        # CPUs are not what limits: every GPU comes with enough.
        seconds = makespan(study, spans, {"GPU": float(count), "CPU": float("inf")})
        found.append(Row(count, seconds, held / (seconds * count)))
    return found


def page(study: Study, spans: dict[str, float], gpus: Sequence[int]) -> list[str]:
    """The figures as Markdown."""
    path = critical_path(study, spans)
    shortest = sum(spans[job.id] for job in path)
    lines = ["| GPUs | hours | GPU-hours paid | of these used | over the shortest |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for row in rows(study, spans, gpus):
        hours = row.seconds / 3600
        lines.append(
            f"| {row.gpus} | {hours:,.0f} | {hours * row.gpus:,.0f} | {100 * row.use:.0f} % "
            f"| {row.seconds / shortest:.2f} |"
        )
    parts = [f"{job.label} ({spans[job.id] / 3600:,.0f} h)" for job in path if spans[job.id]]
    lines += [
        "",
        f"The shortest possible: {shortest / 3600:,.0f} hours, by {', '.join(parts)}.",
        "",
    ]
    lines += ["| jobs | how many | GPUs each | hours each | GPU-hours |", "| --- " * 5 + "|"]
    for name, kind in KINDS.items():
        jobs = [job for job in study.of_kind(name) if job.cost["GPU"]]
        for width in sorted({job.cost["GPU"] for job in jobs}):
            alike = [job for job in jobs if job.cost["GPU"] == width]
            hours_each = sorted(spans[job.id] / 3600 for job in alike)
            between = f"{hours_each[0]:,.1f} to {hours_each[-1]:,.1f}"
            total = f"{width * sum(hours_each):,.0f}"
            lines.append(f"| {kind.title} | {len(alike)} | {width:g} | {between} | {total} |")
    return lines


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m orchestrator.scale",
        description="How long an experiment takes on clusters of some sizes; which jobs decide.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words", nargs="*", metavar="EXPERIMENT or key=value", help="default: paper"
    )
    parser.add_argument("--gpus", default="4,32,256", metavar="N,...", help="default: 4,32,256")
    parser.add_argument(
        "--faster", type=float, default=1.0, metavar="X", help="than a V100 (default: 1)"
    )
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(arguments)
    return run_command(lambda: _scale(options))


def _scale(options: argparse.Namespace) -> int:
    words = options.words
    if not words or "=" in words[0]:
        words = ["paper", *words]
    if not all(word.isdigit() and int(word) for word in options.gpus.split(",")):
        raise InputError(f"--gpus {options.gpus}: whole numbers, such as 4,32,256")
    if not options.faster > 0:
        raise InputError(f"--faster {options.faster:g}: must be above 0")
    study = whole_study(experiment_of(words))
    if not any(job.cost["GPU"] for job in study):
        raise InputError(f"{words[0]}: uses no GPU")
    gpus = [int(word) for word in options.gpus.split(",")]
    print("\n".join(page(study, spans_of(study, options.faster), gpus)))
    say_next(f"python -m orchestrator.reproduce_paper {words[0]} --dry-run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
