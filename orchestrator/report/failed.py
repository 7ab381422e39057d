"""The report's part on what failed: the error, how often it was tried, and its last lines."""

from __future__ import annotations

from orchestrator.report.parts import Part
from orchestrator.report.view import Results
from orchestrator.store.failure import read_failure, traceback_of

LAST_LINES = 12
"""How many lines of a traceback or of a job's output are shown."""


def failed(results: Results) -> list[Part]:
    """A part on jobs that failed or could not run, and on damaged checkpoints; empty if none."""
    board = results.board
    parts: list[Part] = []
    for job in results.study:
        state, folder = board.states[job.id], results.store.folder(job)
        if state == "blocked":
            why = board.notes.get(job.id, "a job that it needs did not finish")
            parts.append(f"\n- **{job.label}** could not run: {why}.\n")
            continue
        failure = None if state == "done" or job.in_driver else read_failure(folder.place)
        if failure is None:
            continue
        tries = "once" if failure.times == 1 else f"{failure.times} times"
        then = "given up" if state == "failed" else f"now {state}"
        parts.append(f"\n### {job.label}: failed {tries}, {then}\n")
        parts.append(f"{_text(failure.error)}\n")
        lines = traceback_of(folder.place) or folder.log_end(1 << 14)
        if last := lines.strip().splitlines()[-LAST_LINES:]:
            parts.append("\n" + "\n".join(f"    {line}" for line in last) + "\n")
        parts.append(f"Its folder: `jobs/{folder.path.name}`.\n")
    damage = [
        f"- {job.label}: {_text(line)}\n"
        for job in results.study.in_cluster
        for line in results.store.folder(job).damage()
    ]
    if damage:
        parts += ["\n### Damaged checkpoints that were passed over\n", "".join(damage)]
    return ["## What failed\n", *parts] if parts else []


def _text(error: str) -> str:
    """An error's text, in which nothing is taken for Markdown."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|" else c for c in error)
