"""What clusters of some sizes would do with an experiment, from the plan alone. Pure.

Every job's time, as a dry run knows it, handed out as the scheduler hands jobs out. Nothing is
started; neither data nor a GPU are needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gdas.data.settings import AnyImageData, PhotoData, TableData, TextData
from gdas.errors import InputError
from orchestrator.cost.estimate import GUESSED, Estimator
from orchestrator.cost.plan import duration, makespan
from orchestrator.experiment.build import build_study
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.kinds import KINDS
from orchestrator.experiment.study import Job, Study
from orchestrator.run.checks import fixed_cells, identity

PHOTOS = {"train": 1_281_167, "test": 50_000}
"""ImageNet's, for photos that are not at hand."""


class Row(NamedTuple):
    """What a number of GPUs does with a study.

    Attributes:
        seconds: from the first job's start to the last one's end.
        use: share of the GPUs' time that jobs hold.
    """

    gpus: int
    seconds: float
    use: float


def whole_study(experiment: Experiment, folder: Path) -> Study:
    """All jobs, those too whose data are not at hand.

    Args:
        folder: where data sets lie.
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
    """What each number of GPUs does with what is left of a study, and which jobs decide.

    Args:
        gpus: the numbers, with commas between.
        faster: how many times as fast as the V100-class GPU of the guesses a GPU is.
        price: of a GPU-hour.

    Raises:
        InputError: no numbers, or the study uses no GPU, or a job needs more than there are.
    """
    if not all(word.isdecimal() and int(word) for word in gpus.split(",")):
        raise InputError(f"--gpus {gpus}: must be whole numbers above 0, such as 4,32,256")
    if not 0 < faster < math.inf:
        raise InputError(f"--faster {faster:g}: must be above 0, such as 3")
    if not any(job.cost["GPU"] for job in study):
        raise InputError("--gpus: no job of this experiment uses a GPU; leave it out")
    spans = spans_of(study, estimator, faster)
    print("\n".join(page(study, spans, [int(word) for word in gpus.split(",")], price)))


def spans_of(study: Study, estimator: Estimator, faster: float) -> dict[str, float]:
    """What is left of every job in seconds, its start included; guesses are of faster GPUs."""
    estimates = {job.id: estimator.estimate(job) for job in study}
    return {
        job.id: duration(job, seconds / (faster if source == GUESSED else 1.0))
        for job in study
        for seconds, source in [estimates[job.id]]
    }


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


def page(
    study: Study, spans: dict[str, float], gpus: Sequence[int], price: float | None = None
) -> list[str]:
    """The figures as Markdown; with a GPU-hour's price, what each number of GPUs costs."""
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
