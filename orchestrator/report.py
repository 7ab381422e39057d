"""The report: the paper's numbers with ours beside them, from job folders alone. Pure.

Written as Markdown (report.md, with PNG figures beside it) and, from the same text, as one
self-contained HTML file. A number that was not measured reads "not run".
"""

from __future__ import annotations

import base64
import re
import statistics
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gdas.config import DEVIATIONS, SearchConfig, TrainConfig, differences
from gdas.derive import parameter_free
from gdas.draw import draw_genotype
from gdas.files import write_text
from gdas.genotype import from_json
from orchestrator import paper
from orchestrator.experiment import Experiment, FinalSpec, SearchSpec
from orchestrator.store import Record, Store
from orchestrator.study import TITLES, Job, Study

NOT_RUN = "not run"
NOT_DEVIATIONS = ("data.mean", "data.std", "data.cutout", "network.reduction")
"""Settings that go with the data set or the row, and are stated there."""

COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#cf222e", "#57606a", "#bf8700", "#0550ae")


def write_report(experiment: Experiment, study: Study, store: Store) -> Path:
    """Write OUT/report/report.md, report.html and their figures; returns the HTML file."""
    folder = store.out / "report"
    folder.mkdir(exist_ok=True)
    finals = {name: study.final(name) for name in experiment.finals}
    parts = [f"# {experiment.name}: GDAS (CVPR 2019), ours beside the paper's\n"]
    if experiment.note:
        parts.append(f"> {' '.join(experiment.note.split())}\n")
    parts += _headline(experiment, finals, store)
    for name, search in experiment.searches.items():
        parts += _track(name, search, study, store, folder)
    parts += _finals(experiment, finals, store, folder)
    parts += _differences(experiment)
    parts += _time(study, store)
    parts += _versions(store)
    markdown = "\n".join(parts)
    write_text(folder / "report.md", markdown)
    write_text(folder / "report.html", _html(experiment.name, markdown, folder))
    return folder / "report.html"


def _headline(experiment: Experiment, finals: dict[str, Job | None], store: Store) -> list[str]:
    rows = []
    for name, spec in experiment.finals.items():
        job = finals[name]
        result = store.folder(job).result() if job else None
        printed = (
            paper.find_row(spec.row.table, spec.row.method, spec.row.column) if spec.row else {}
        )
        ours = best = parameters = NOT_RUN
        if result is not None:
            elsewhere = _other_data(spec)
            ours = f"{100 - result['metrics']['test/top1']:.2f} %{elsewhere}"
            best = f"{100 - result['best']['test/top1']:.2f} % (epoch {result['best']['epoch']})"
            parameters = f"{result['parameters'] / 1e6:.3f}"
        if spec.row:
            title, unit = paper.MEASURES[spec.row.column]
            where = f"Table {spec.row.table}, {spec.row.method}"
            value = printed[spec.row.column]
            theirs = "-" if value is None else f"{value} {unit}".strip()
            printed_parameters = str(printed.get("params_m", "-"))
        else:
            title, where, theirs, printed_parameters = "test error", "not in the paper", "-", "-"
        rows.append(
            [name, where, title, theirs, ours, best, printed_parameters, parameters, _size(spec)]
        )
    header = [
        "final",
        "row of the paper",
        "measure",
        "paper",
        "ours, last epoch",
        "ours, best epoch (selected on test)",
        "paper, M parameters",
        "ours, M parameters",
        "size of our run",
    ]
    return [
        "## The paper's numbers and ours\n",
        _table(header, rows),
        "\nThe last epoch decides. The best epoch is chosen by looking at the test set, as the "
        "authors' logs do, and is shown for that comparison only. Parameters leave out the "
        "auxiliary head.\n",
    ]


def _other_data(spec: FinalSpec) -> str:
    """A warning where our number is on other data than the paper's."""
    data_of = {"err_c10": "cifar10", "err_c100": "cifar100"}
    name = spec.recipe.data.name
    same = spec.row is None or data_of.get(spec.row.column) == name
    return "" if same else f" (on {name}: not comparable)"


def _size(spec: FinalSpec) -> str:
    r = spec.recipe
    images = "all images" if r.train_images is None else f"{r.train_images:,} images"
    return (
        f"C={r.channels}, N={r.normals_per_block}, {r.epochs} epochs, {images} of {r.data.name}, "
        f"batch {r.batch_size}"
    )


def _track(name: str, spec: SearchSpec, study: Study, store: Store, folder: Path) -> list[str]:
    searches, select = study.searches(name), study.selection(name)
    record = store.selection(select) if select else None
    scores = {c["search"]: c for c in record["candidates"]} if record else {}
    winner = record["winner"]["search"] if record else None
    rows, shared = [], []
    for job in searches:
        seed = str(job.recipe["config"]["seed"])
        result = store.folder(job).result()
        if result is None:
            rows.append([seed, NOT_RUN, NOT_RUN, "", "", "", ""])
            continue
        genotype = from_json(result["genotype"])
        free = parameter_free(genotype.normal)
        margins = [m for cell in result["margins"].values() for m in cell]
        shared.append(result["shared_weights"]["valid/top1"])
        rows.append(
            [
                seed,
                f"{result['shared_weights']['valid/top1']:.2f} %",
                f"{scores[job.id]['valid/top1']:.2f} %" if job.id in scores else NOT_RUN,
                f"{free} of {len(genotype.normal)}",
                f"{statistics.mean(result['entropy'].values()):.4f}",
                f"{statistics.mean(margins):.4f}",
                "**selected**" if job.id == winner else "",
            ]
        )
    r = spec.recipe
    halves = (
        "25,000 + 25,000 images"
        if r.train_images is None
        else f"{r.train_images:,} + {r.valid_images or 'the other'} images"
    )
    reduction = "fixed reduction cell" if r.network.reduction == "fixed" else "both cells searched"
    parts = [
        f"## Search {name}\n",
        f"{reduction}; C={r.network.channels}, N={r.network.normals_per_block}, {r.epochs} epochs, "
        f"{halves if r.data.name != 'digits' or r.train_images else 'halves'} of {r.data.name}, "
        f"batch {r.batch_size}, alpha rate {r.alpha.lr:g}.\n",
        _table(
            [
                "seed",
                "shared weights, recalibrated: top-1 on D_V",
                f"selection score ({spec.select_by}): top-1 on D_V",
                "operations without parameters (normal cell)",
                "entropy / log K",
                "mean margin",
                "",
            ],
            rows,
        ),
    ]
    if len(shared) > 1:
        parts.append(
            f"\nShared-weights top-1 over {len(shared)} seeds: mean {statistics.mean(shared):.2f} "
            f"%, standard deviation {statistics.stdev(shared):.2f}, from {min(shared):.2f} to "
            f"{max(shared):.2f}. An entropy near 1 and a margin near 0 mean that the logits have "
            "hardly left uniform: the cell is then close to a random choice.\n"
        )
    histories = {
        f"seed {job.recipe['config']['seed']}": store.folder(job).records() for job in searches
    }
    if any(histories.values()):
        figure = f"search-{name}.png"
        _curves(
            folder / figure,
            histories,
            [
                ("valid/loss", "loss of sampled cells on D_V"),
                ("valid/top1", "top-1 of sampled cells on D_V, %"),
                ("normal/entropy", "entropy / log K, normal cell"),
            ],
        )
        parts.append(f"\n![Search curves of {name}]({figure})\n")
    if record is not None:
        figure = f"cell-{name}.png"
        draw_genotype(from_json(record["winner"]["genotype"]), folder / figure)
        parts.append(f"\nThe selected cell (seed {record['winner']['seed']}):\n")
        parts.append(f"\n![The cell selected from {name}]({figure})\n")
    return parts


def _finals(
    experiment: Experiment, finals: dict[str, Job | None], store: Store, folder: Path
) -> list[str]:
    histories = {
        name: store.folder(job).records() for name, job in finals.items() if job is not None
    }
    parts = ["## Final trainings\n"]
    rows = []
    for name, job in finals.items():
        result = store.folder(job).result() if job else None
        if result is None:
            rows.append([name, NOT_RUN, "", "", "", ""])
            continue
        rows.append(
            [
                name,
                _provenance(result["provenance"]),
                f"{result['metrics']['test/top1']:.2f} %",
                f"{result['multiply_adds'] / 1e6:,.1f}",
                str(result["workers"]),
                _duration(result["seconds"]),
            ]
        )
    parts.append(
        _table(
            ["final", "cell", "test top-1", "M multiply-adds", "workers", "time in epochs"], rows
        )
    )
    if any(histories.values()):
        _curves(
            folder / "finals.png",
            histories,
            [
                ("train/loss", "training loss"),
                ("test/top1", "test top-1, %"),
            ],
        )
        parts.append("\n![Curves of the final trainings](finals.png)\n")
    return parts


def _provenance(provenance: dict[str, Any]) -> str:
    match provenance["source"]:
        case "searched":
            return f"search {provenance['track']}, seed {provenance['seed']}, {provenance['by']}"
        case source:
            return f"{source}: {provenance['genotype']['name']}"


def _differences(experiment: Experiment) -> list[str]:
    """Every setting that is not the paper's, and what all runs here have that it has not."""
    rows = [[d.key, str(d.ours), d.paper, d.why] for d in DEVIATIONS]
    parts = [
        "## Where ours is not the paper's\n",
        "In every run of this project, unless set otherwise:\n",
        _table(["setting", "ours", "paper", "why"], rows),
        "\nIn this experiment, against the preset `paper`:\n",
    ]
    rows = []
    for name, search in experiment.searches.items():
        base: SearchConfig | TrainConfig = SearchConfig()
        rows += [
            [f"search {name}", *_difference(d)]
            for d in differences(search.recipe, base)
            if d[0] not in NOT_DEVIATIONS
        ]
        if search.select_by != "proxy":
            rows.append([f"search {name}", "select_by", search.select_by, "proxy"])
    for name, final in experiment.finals.items():
        rows += [
            [f"final {name}", *_difference(d)]
            for d in differences(final.recipe, TrainConfig())
            if d[0] not in NOT_DEVIATIONS
        ]
    parts.append(_table(["job", "setting", "ours", "paper"], rows) if rows else "\nNone.\n")
    return parts


def _difference(found: tuple[str, Any, Any]) -> list[str]:
    key, ours, theirs = found
    return [f"`{key}`", _value(ours), _value(theirs)]


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _time(study: Study, store: Store) -> list[str]:
    rows = []
    for job in study:
        if job.kind == "select":
            continue
        records = store.folder(job).records()
        spent = sum(record["seconds"] for record in records)
        hosts = sorted({record["host"] for record in records})
        rows.append(
            [
                f"{TITLES[job.kind]} {job.name}",
                str(len(records)),
                _duration(spent) if records else NOT_RUN,
                ", ".join(hosts),
            ]
        )
    return [
        "## Time\n",
        _table(["job", "epochs", "time in epochs", "host"], rows),
        "\nWall-clock time; jobs that ran side by side shared the machine, so these are not costs "
        "of a job alone.\n",
    ]


def _versions(store: Store) -> list[str]:
    versions = store.study().get("versions", {})
    rows = [[name, str(version)] for name, version in versions.items()]
    return ["## Versions\n", _table(["package", "version"], rows)]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), line(["---"] * len(header)), *map(line, rows)]) + "\n"


def _curves(path: Path, histories: dict[str, list[Record]], panels: list[tuple[str, str]]) -> None:
    figure = Figure(figsize=(4.2 * len(panels), 3.2))
    FigureCanvasAgg(figure)
    for i, (metric, title) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        for j, (name, records) in enumerate(histories.items()):
            points = [
                (r["position"], r["metrics"][metric]) for r in records if metric in r["metrics"]
            ]
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(x, y, label=name, color=COLOURS[j % len(COLOURS)], lw=1.5, marker=".")
        axes.set_title(title, size=9)
        axes.set_xlabel("epoch", size=8)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; max-width: 72rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; border-bottom: 1px solid #d1d9e0;
  padding-bottom: .3rem; margin-top: 2.5rem; }
table { border-collapse: collapse; font-size: .85rem; display: block; overflow-x: auto; }
th, td { border: 1px solid #d1d9e0; padding: .35rem .6rem; text-align: left;
  font-variant-numeric: tabular-nums; vertical-align: top; }
th { background: #f6f8fa; } img { max-width: 100%; }
blockquote { margin: 1rem 0; padding: .6rem 1rem; background: #fff8c5;
  border-left: 4px solid #d4a72c; }
blockquote p { margin: 0; }
"""


def _html(title: str, markdown: str, folder: Path) -> str:
    """The Markdown as one file: figures become data URIs."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)

    def embed(match: re.Match[str]) -> str:
        content = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{content}"'

    body = re.sub(r'src="([\w.-]+\.png)"', embed, body)
    return (
        f"<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f"<meta name=viewport content='width=device-width'><title>{escape(title)}</title>"
        f"<style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    )
