"""How long clusters of several sizes would take for an experiment, from the plan alone. Pure.

The jobs, with the times that a dry run estimates, are handed out as the scheduler does. Nothing is
started, and neither data nor a GPU is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gdas.data.settings import AnyImageData, PhotoData, TableData, TextData
from gdas.errors import InputError
from orchestrator.cost.cards import said_of_card
from orchestrator.cost.estimate import GUESSED, MEASURED, Estimator
from orchestrator.cost.plan import duration, makespan
from orchestrator.experiment.build import build_study
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.kinds import KINDS
from orchestrator.experiment.study import Job, Study
from orchestrator.run.checks import fixed_cells, identity

PHOTOS = {"train": 1_281_167, "test": 50_000}
"""ImageNet's numbers of photos, for photos that are not converted here."""


class Row(NamedTuple):
    """How a number of GPUs does with a study.

    Attributes:
        gpus: how many there are.
        seconds: from the first job's start to the last one's end.
        use: the share of the GPUs' time that jobs use.
    """

    gpus: int
    seconds: float
    use: float


def whole_study(experiment: Experiment, folder: Path) -> Study:
    """Build a study with all its jobs, even those whose data are missing.

    Args:
        folder: the folder of the data sets.
    """

    def known(data: AnyImageData | TextData | TableData, split: str) -> str:
        try:
            return identity(folder, data, split)
        except InputError:
            count = PHOTOS["train" if split == "train" else "test"]
            return f"photos-{count}-not-at-hand" if isinstance(data, PhotoData) else "not-at-hand"

    genotypes = {name: cell.to_json() for name, cell in fixed_cells(experiment).items()}
    return build_study(experiment, known, genotypes)


def print_clusters(
    study: Study, estimator: Estimator, gpus: str, *, faster: float, price: float | None
) -> None:
    """Print what each number of GPUs does with the rest of a study, and which jobs take longest.

    Args:
        gpus: the numbers, separated by commas.
        faster: the speed of a GPU, relative to the V100 that guesses are for.
        price: the price of a GPU-hour.

    Raises:
        InputError: there are no numbers, the study uses no GPU, or a job needs more than there are.
    """
    if not all(word.isdecimal() and int(word) for word in gpus.split(",")):
        raise InputError(f"--gpus {gpus}: must be whole numbers above 0, such as 4,32,256")
    if not 0 < faster < math.inf:
        raise InputError(f"--faster {faster:g}: must be above 0, such as 3")
    if not any(job.cost["GPU"] for job in study):
        raise InputError("--gpus: no job of this experiment uses a GPU; leave it out")
    spans = spans_of(study, estimator, faster)
    print("\n".join(page(study, spans, [int(word) for word in gpus.split(",")], price)))
    if any(estimator.estimate(job).source == MEASURED for job in study):
        print(said_of_card())


def spans_of(study: Study, estimator: Estimator, faster: float) -> dict[str, float]:
    """Seconds that are left of every job, with its start; guesses are scaled by `faster`."""
    estimates = {job.id: estimator.estimate(job) for job in study}
    return {
        job.id: duration(job, seconds / (faster if source == GUESSED else 1.0))
        for job in study
        for seconds, source in [estimates[job.id]]
    }


def critical_path(study: Study, spans: dict[str, float]) -> list[Job]:
    """The chain of dependent jobs that takes longest: no cluster is faster than this."""
    longest: dict[str, tuple[float, list[Job]]] = {}
    for job in study:  # every job comes after those it needs
        before = max(
            (longest[need] for need in job.needs), key=lambda found: found[0], default=(0.0, [])
        )
        longest[job.id] = before[0] + spans[job.id], [*before[1], job]
    return max(longest.values(), key=lambda found: found[0])[1]


def rows(study: Study, spans: dict[str, float], gpus: Sequence[int]) -> list[Row]:
    """One row for each number of GPUs.

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
        # CPUs are not limited: every GPU comes with enough of them.
        seconds = makespan(study, spans, {"GPU": float(count), "CPU": float("inf")})
        found.append(Row(count, seconds, held / (seconds * count)))
    return found


def page(
    study: Study, spans: dict[str, float], gpus: Sequence[int], price: float | None = None
) -> list[str]:
    """The figures as Markdown; with a GPU-hour's price, also what each number of GPUs costs."""
    path = critical_path(study, spans)
    shortest = sum(spans[job.id] for job in path)
    if not shortest:
        return ["nothing is left to do"]
    priced = [] if price is None else [f"at {price:g} an hour"]
    head = ["GPUs", "hours", "GPU-hours paid", "of these used", "over the shortest", *priced]
    lines = [_line(head), "| --- " * len(head) + "|"]
    for row in rows(study, spans, gpus):
        hours = row.seconds / 3600
        paid = hours * row.gpus
        cells = [f"{row.gpus}", f"{hours:,.0f}", f"{paid:,.0f}", f"{100 * row.use:.0f} %"]
        cells.append(f"{row.seconds / shortest:.2f}")
        lines.append(_line([*cells, *([] if price is None else [f"{paid * price:,.0f}"])]))
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
            lines.append(_line([kind.title, f"{len(alike)}", f"{width:g}", between, total]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
