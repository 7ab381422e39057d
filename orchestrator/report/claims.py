"""What the paper's text claims, beside our measurements."""

from __future__ import annotations

from gdas.cnn.config import SearchConfig
from orchestrator.experiment.spaces import SPACES
from orchestrator.paper import tables as paper
from orchestrator.report.markup import NOT_RUN, duration, lasted
from orchestrator.report.parts import Cell, Part, Table, measured
from orchestrator.report.statistics import summary
from orchestrator.report.view import Results
from orchestrator.store.results import MeasureResult

PRINTED = f"{paper.OPERATIONS} and {paper.OPERATIONS}"


def claims(results: Results) -> list[Part]:
    """The report's part on acceleration and search cost; empty if neither was measured."""
    parts = [*_acceleration(results), *_epochs(results), *_cost(results)]
    return ["## What the paper's text claims\n", *parts] if parts else []


def _acceleration(results: Results) -> list[Part]:
    if not results.experiment.measures:
        return []
    rows: list[list[Cell]] = []
    for name, spec in results.experiment.measures.items():
        job = results.study.measure(name)
        result = results.result(job, MeasureResult) if job else None
        n = spec.recipe.network
        size = f"C={n.channels}, N={n.normals_per_block}, batch {spec.recipe.batch_size}"
        if result is None:
            rows.append([name, size, *[NOT_RUN] * 6, PRINTED])
            continue
        fast = result["iterations"]["accelerated"]
        slow = result["iterations"]["all_operations"]
        memory = _memory_of(result)
        times, times_memory = gain(result)
        rows.append(
            [
                name,
                f"{size}, {result['device']}",
                *(
                    cell
                    for way in (fast, slow)
                    for cell in (
                        measured([way["seconds"]], "s", f"{way['seconds']:.3f} s"),
                        measured([way[memory]], "MiB", f"{way[memory]:,.0f} MiB"),
                    )
                ),
                f"{times:.1f}",
                f"{times_memory:.1f}",
                PRINTED,
            ]
        )
    header = [
        "measurement",
        "size",
        "one iteration, accelerated",
        "its memory",
        "one that runs all operations",
        "that one's memory",
        "times the time",
        "times the memory",
        "paper: time and memory",
    ]
    return [
        "### One iteration with and without the acceleration (section 3.2)\n",
        Table("acceleration", header, rows),
        "\nOne W step and one alpha step; the median. Memory: what the backward pass keeps of the "
        "forward pass; on a GPU the allocator's peak. The stem and the cells' preprocessing run "
        "once either way. Time is wall-clock: jobs beside it on the same machine disturb it.\n",
    ]


def gain(result: MeasureResult) -> tuple[float, float]:
    """How many times as much time and memory an iteration takes without the acceleration."""
    fast, slow = (result["iterations"][way] for way in ("accelerated", "all_operations"))
    memory = _memory_of(result)
    return slow["seconds"] / fast["seconds"], slow[memory] / fast[memory]


def _memory_of(result: MeasureResult) -> str:
    """Which memory was measured: the allocator's peak on a GPU, else what is kept."""
    return "peak_mib" if "peak_mib" in result["iterations"]["accelerated"] else "saved_mib"


def _epochs(results: Results) -> list[Part]:
    """Searches without the acceleration beside those they are compared with."""
    rows: list[list[Cell]] = []
    for name, spec in results.experiment.searches.items():
        recipe = spec.recipe
        if not isinstance(recipe, SearchConfig) or recipe.sampler.acceleration:
            continue
        for which in (name, spec.against):
            if which is None:
                continue
            own = results.experiment.searches[which].recipe
            record = results.selection(which)
            seconds = [result["seconds"] for result in results.searches(which)]
            scores = [c["score"] for c in record["candidates"]] if record else []
            rows.append(
                [
                    which,
                    "yes" if own.sampler.acceleration else "no",
                    str(own.epochs),
                    summary(scores).text if scores else NOT_RUN,
                    lasted(seconds) if seconds else NOT_RUN,
                ]
            )
    if not rows:
        return []
    header = ["search", "accelerated", "epochs", "selection score over the seeds", "time a seed"]
    return [
        "\n### Do fewer epochs suffice without the acceleration? (section 3.2)\n",
        Table("fewer-epochs", header, rows),
        f"\nThe paper: without it an iteration costs {paper.OPERATIONS} times the time and memory, "
        "fewer epochs are needed to converge, and yet more time in all. It gives no figures for "
        "the epochs.\n",
    ]


def _cost(results: Results) -> list[Part]:
    rows = []
    for name, spec in results.experiment.searches.items():
        printed_at = SPACES[spec.recipe.task].paper_cost
        if spec.cells == "random" or printed_at is None:
            continue
        number, method, column = printed_at(spec.recipe)
        printed = paper.find_row(number, method, ())[column]
        shares = spec.resources.gpus % 1 != 0
        seconds = [result["seconds"] for result in results.searches(name)]
        if not seconds:
            ours = NOT_RUN
        elif spec.resources.device != "cuda":
            ours = "not given: CPUs, shared with other jobs"
        elif shares or _overlapping(name, results):
            ours = "not given: the GPU was shared"
        else:
            days = sum(seconds) / len(seconds) / 86_400
            ours = (
                f"{days:.3f} ({duration(sum(seconds) / len(seconds))} a seed, n = {len(seconds)})"
            )
        rows.append([name, str(printed), ours])
    if not rows:
        return []
    return [
        "\n### Search cost, device-days a seed\n",
        Table("search-cost", ["search", "paper (V100)", "ours"], rows),
        "\nOnly of searches that had a GPU to themselves.\n",
    ]


def _overlapping(name: str, results: Results) -> bool:
    """Whether two seeds of a search used one GPU at the same time, by their records."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for job in results.study.searches(name):
        for record in results.records(job):
            if "gpu" in record:
                span = (record["started"], record["time"])
                spans.setdefault(f"{record['host']} {record['gpu']}", []).append(span)
    return any(
        later[0] < earlier[1]
        for held in spans.values()
        for earlier, later in zip(sorted(held), sorted(held)[1:], strict=False)
    )
