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

from gdas.config import (
    DEVIATIONS,
    PhotoData,
    SearchConfig,
    TextSearchConfig,
    TextTrainConfig,
    TrainConfig,
    differences,
    image_search_preset,
    image_train_preset,
    text_train_preset,
)
from gdas.derive import parameter_free
from gdas.draw import draw_genotype, draw_recurrent
from gdas.files import write_text
from gdas.genotype import Genotype, any_from_json
from orchestrator import paper
from orchestrator.experiment import Experiment, FinalSpec, SearchSpec
from orchestrator.selection import SCORES
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
        parameters = NOT_RUN if result is None else f"{result['parameters'] / 1e6:.3f}"
        if spec.row is None:
            ours = NOT_RUN if result is None else _outcome(result)
            rows.append([name, "not in the paper", "", "-", ours, "", "-", parameters, _size(spec)])
            continue
        printed = paper.find_row(spec.row.table, spec.row.method, spec.row.columns)
        for column in spec.row.columns:
            measure = paper.MEASURES[spec.row.table][column]
            ours = best = NOT_RUN
            if result is not None:
                other = spec.recipe.data.name != measure.data
                warning = f" (on {spec.recipe.data.name}: not comparable)" if other else ""
                ours = f"{measure.last(result):.2f} {measure.unit}".rstrip() + warning
                best = ""
                if measure.best is not None:
                    figure, epoch = measure.best(result)
                    best = f"{figure:.2f} {measure.unit} (epoch {epoch})"
            theirs = printed.get(column)
            rows.append(
                [
                    name,
                    f"Table {spec.row.table}, {spec.row.method}",
                    measure.title,
                    "-" if theirs is None else f"{theirs:.2f} {measure.unit}".rstrip(),
                    ours,
                    best,
                    str(printed.get("params_m", "-")),
                    parameters,
                    _size(spec),
                ]
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
        "\nThe last epoch decides; for language models, the weights of the best validation epoch "
        "do. The best epoch on the test set is chosen by looking at it, as the authors' logs do, "
        "and is shown for that comparison only. Parameters leave out the auxiliary head.\n",
    ]


def _outcome(result: dict[str, Any]) -> str:
    """A final's main figure, in words."""
    if "test/top1" in result["metrics"]:
        return f"{100 - result['metrics']['test/top1']:.2f} % error"
    return f"perplexity {result['metrics']['test/perplexity']:.2f}"


def _size(spec: FinalSpec) -> str:
    r = spec.recipe
    if isinstance(r, TextTrainConfig):
        tokens = "all tokens" if r.train_tokens is None else f"{r.train_tokens:,} tokens"
        return (
            f"hidden {r.hidden}, {r.epochs} epochs, {tokens} of {r.data.name}, batch {r.batch_size}"
        )
    images = "all images" if r.train_images is None else f"{r.train_images:,} images"
    return (
        f"C={r.channels}, N={r.normals_per_block}, {r.epochs} epochs, {images} of {r.data.name}, "
        f"batch {r.batch_size}"
    )


def _track(name: str, spec: SearchSpec, study: Study, store: Store, folder: Path) -> list[str]:
    searches, select = study.searches(name), study.selection(name)
    record = store.selection(select) if select else None
    scores = {c["search"]: c["score"] for c in record["candidates"]} if record else {}
    winner = record["winner"]["search"] if record else None
    metric = SCORES[spec.recipe.task][0]
    images = spec.recipe.task == "image"
    rows = []
    for job in searches:
        seed = str(job.recipe["config"]["seed"])
        result = store.folder(job).result()
        score = f"{scores[job.id]:.2f}" if job.id in scores else NOT_RUN
        if result is None:
            rows.append([seed, score, NOT_RUN, "", "", ""])
            continue
        margins = [m for cell in result["margins"].values() for m in cell]
        if images:
            also = f"{result['shared_weights']['valid/top1']:.2f} %, {_free(result['genotype'])}"
        else:
            also = str(result["epoch"])
        rows.append(
            [
                seed,
                score,
                also,
                f"{statistics.mean(result['entropy'].values()):.4f}",
                f"{statistics.mean(margins):.4f}",
                "**selected**" if job.id == winner else "",
            ]
        )
    header = [
        "seed",
        f"selection score: {metric} ({spec.select_by})",
        "with shared weights, top-1 on D_V; operations without parameters, normal cell"
        if images
        else "epoch of the cell (lowest validation loss)",
        "entropy / log K",
        "mean margin",
        "",
    ]
    parts = [f"## Search {name}\n", f"{_search_size(spec)}\n", _table(header, rows)]
    if record is not None and len(scores) > 1:
        values = list(scores.values())
        parts.append(
            f"\nSelected by: {record['method']}. {metric} over {len(values)} seeds: mean "
            f"{statistics.mean(values):.2f}, standard deviation {statistics.stdev(values):.2f}, "
            f"from {min(values):.2f} to {max(values):.2f}. An entropy near 1 and a margin near 0 "
            "mean that the logits have hardly left uniform: the cell is then close to a random "
            "choice.\n"
        )
    histories = {
        f"seed {job.recipe['config']['seed']}": store.folder(job).records() for job in searches
    }
    if any(histories.values()):
        figure = f"search-{name}.png"
        kind = "normal" if spec.recipe.task == "image" else "recurrent"
        _curves(
            folder / figure,
            histories,
            [
                ("valid/loss", "loss of sampled cells on D_V"),
                (metric, f"{metric} of sampled cells"),
                (f"{kind}/entropy", f"entropy / log K, {kind} cell"),
            ],
        )
        parts.append(f"\n![Search curves of {name}]({figure})\n")
    if record is not None:
        figure = f"cell-{name}.png"
        draw(record["winner"]["genotype"], folder / figure)
        parts.append(f"\nThe selected cell (seed {record['winner']['seed']}):\n")
        parts.append(f"\n![The cell selected from {name}]({figure})\n")
    return parts


def _free(genotype: dict[str, Any]) -> str:
    """How many operations of the normal cell carry no parameters."""
    cell = any_from_json(genotype)
    assert isinstance(cell, Genotype)
    return f"{parameter_free(cell.normal)} of {len(cell.normal)}"


def _search_size(spec: SearchSpec) -> str:
    r = spec.recipe
    if isinstance(r, TextSearchConfig):
        tokens = "all tokens" if r.train_tokens is None else f"{r.train_tokens:,} tokens"
        return (
            f"recurrent cell; hidden {r.hidden}, {r.epochs} epochs, {tokens} of {r.data.name}, "
            f"batch {r.batch_size}, alpha rate {r.alpha.lr:g}."
        )
    halves = "the halves"
    if r.train_images is not None:
        valid = f"{r.valid_images:,}" if r.valid_images else "the other"
        halves = f"{r.train_images:,} + {valid} images"
    reduction = "fixed reduction cell" if r.network.reduction == "fixed" else "both cells searched"
    return (
        f"{reduction}; C={r.network.channels}, N={r.network.normals_per_block}, {r.epochs} epochs, "
        f"{halves} of {r.data.name}, batch {r.batch_size}, alpha rate {r.alpha.lr:g}."
    )


def _finals(
    experiment: Experiment, finals: dict[str, Job | None], store: Store, folder: Path
) -> list[str]:
    parts = ["## Final trainings\n"]
    rows = []
    for name, job in finals.items():
        result = store.folder(job).result() if job else None
        if result is None:
            rows.append([name, NOT_RUN, "", "", "", ""])
            continue
        adds = result.get("multiply_adds")
        rows.append(
            [
                name,
                _provenance(result["provenance"]),
                _outcome(result),
                f"{adds / 1e6:,.1f}" if adds else "-",
                str(result["workers"]),
                _duration(result["seconds"]),
            ]
        )
    header = ["final", "cell", "on the test set", "M multiply-adds", "workers", "time in epochs"]
    parts.append(_table(header, rows))
    for task, figure, panels in (
        ("image", "finals.png", [("train/loss", "training loss"), ("test/top1", "test top-1, %")]),
        (
            "text",
            "finals-text.png",
            [
                ("train/perplexity", "training perplexity"),
                ("valid/perplexity", "validation perplexity"),
            ],
        ),
    ):
        histories = {
            name: store.folder(job).records()
            for name, job in finals.items()
            if job is not None and experiment.finals[name].recipe.task == task
        }
        if any(histories.values()):
            _curves(folder / figure, histories, panels)
            parts.append(f"\n![Curves of the final trainings on {task}s]({figure})\n")
    return parts


def draw(genotype: dict[str, Any], path: Path) -> None:
    """Draw a cell of either kind to a PNG file."""
    cell = any_from_json(genotype)
    if isinstance(cell, Genotype):
        draw_genotype(cell, path)
    else:
        draw_recurrent(cell, path)


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
        papers: object = SearchConfig() if search.recipe.task == "image" else TextSearchConfig()
        if isinstance(search.recipe.data, PhotoData):
            papers = image_search_preset("paper", search.recipe.data.name)
        rows += _settings(f"search {name}", search.recipe, papers)
        if search.select_by != "proxy":
            rows.append([f"search {name}", "select_by", search.select_by, "proxy"])
    for name, final in experiment.finals.items():
        if isinstance(final.recipe.data, PhotoData):
            papers = image_train_preset("paper", final.recipe.data.name)
            rows += _settings(f"final {name}", final.recipe, papers)
        elif final.recipe.task == "image":
            rows += _settings(f"final {name}", final.recipe, TrainConfig())
        else:
            papers_text = text_train_preset("paper", final.recipe.data.name)
            rows += _settings(f"final {name}", final.recipe, papers_text)
    parts.append(_table(["job", "setting", "ours", "paper"], rows) if rows else "\nNone.\n")
    return parts


def _settings(job: str, ours: object, papers: object) -> list[list[str]]:
    return [
        [job, f"`{key}`", _value(value), _value(theirs)]
        for key, value, theirs in differences(ours, papers)
        if key not in NOT_DEVIATIONS
    ]


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
