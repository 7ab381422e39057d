"""How the jobs of a study compute on this machine, and what would be faster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gdas.cnn.fused import build
from orchestrator.experiment.study import Job
from orchestrator.terminal.words import Finding

MATRIX_UNITS = ("amx_bf16", "svebf16", "bf16")
"""Features of a processor, as Linux names them, that make bfloat16 fast."""
SLOWER = "0.90, 0.75 and 0.64 of float32's speed in a search, a final and a language model"
"""What was measured on a processor with AVX-512 and without AMX."""


def say_arithmetic(jobs: Iterable[Job]) -> None:
    """Print how the jobs compute on this machine, a line each with its fix."""
    every = list(jobs)
    if any(job.fused for job in every) and build.pending():
        print("compiling the kernels for this processor, once: about a minute", flush=True)
    for finding in arithmetic(every):
        print(finding.what + (f" -> {finding.fix}" if finding.fix else ""), flush=True)


def arithmetic(jobs: Iterable[Job]) -> Iterator[Finding]:
    """Which kernels the jobs run with here, and whether their precision is slow here."""
    every = list(jobs)
    yield from _kernels([job for job in every if job.fused])
    yield from _bfloat16([job for job in every if _in_bfloat16(job)])


def _kernels(asking: Sequence[Job]) -> Iterator[Finding]:
    """Whether this machine has the fused kernels, if any job asks for them."""
    if not asking:
        return
    if build.library() is not None:
        what = f"kernels: fused for {_count(asking)} ({build.status()})"
        yield Finding("ok", f"{what}; kernels=plain in a recipe: plain PyTorch")
    else:
        what = f"kernels: plain PyTorch for {_count(asking)}, fused ones would be faster"
        yield Finding("note", what, build.status())


def _in_bfloat16(job: Job) -> bool:
    config: dict[str, object] = job.recipe.get("config", {})
    return config.get("precision") == "bfloat16" and job.resources.get("device") == "cpu"


def _bfloat16(jobs: Sequence[Job]) -> Iterator[Finding]:
    """A note if jobs use bfloat16 on a processor that has no unit for its products."""
    if jobs and not has_matrix_unit(build.processor()):
        yield Finding(
            "note",
            f"precision: bfloat16 for {_count(jobs)} on a CPU without AMX, where it is slower "
            f"({SLOWER})",
            "precision=float32",
        )


def has_matrix_unit(processor: str) -> bool:
    """Whether a processor is fast in bfloat16, by its description from `build.processor`."""
    return any(word in MATRIX_UNITS for word in processor.split())


def _count(jobs: Sequence[Job]) -> str:
    return f"{len(jobs)} job{'s' if len(jobs) > 1 else ''}"
