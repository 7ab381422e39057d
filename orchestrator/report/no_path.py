"""How many draws of a search in NAS-Bench-201 had no path from input to output."""

from __future__ import annotations

from collections.abc import Iterable

from gdas.bench201.genotype import all_bench201_cells, reaches_output
from gdas.bench201.network import picks_of
from orchestrator.report.parts import Part, Table
from orchestrator.report.view import Results
from orchestrator.store.results import Record


def no_path(names: Iterable[str], results: Results) -> list[Part]:
    """The report's part on the searches of these names; empty if none has begun."""
    rows = []
    for name in names:
        records = [r for job in results.study.searches(name) for r in results.records(job)]
        counts = [_share(records, half) for half in ("train", "valid")]
        if records:
            rows.append([name, *counts])
    if not rows:
        return []
    cells = [reaches_output([k for _, k in picks_of(cell)]) for cell in all_bench201_cells()]
    none = 100 * cells.count(False) / len(cells)
    return [
        "\n### Draws in which no path reaches the output\n",
        "With `none` on the wrong edges the output does not depend on the image, and the step "
        f"learns nothing of it. Of all cells {none:.1f} % are so; a network whose cells draw apart "
        "is cut where any of them is.\n",
        Table("no-path", ["search", "W steps", "alpha steps"], rows),
    ]


def _share(records: list[Record], half: str) -> str:
    draws = sum(int(r["metrics"].get(f"{half}/draws", 0)) for r in records)
    lost = sum(int(r["metrics"].get(f"{half}/no_path", 0)) for r in records)
    return f"{lost:,} of {draws:,} ({100 * lost / draws:.1f} %)" if draws else "nothing is drawn"
