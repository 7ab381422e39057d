"""The golden pages: what each says now, and where what it should say is kept."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from gdas.bench201.config import Bench201SearchConfig
from gdas.bench201.space import build_bench201_supernet
from gdas.cnn.config import SearchConfig, TrainConfig
from gdas.cnn.genotype import PUBLISHED
from gdas.cnn.space import build_supernet
from gdas.cnn.train import build_network
from gdas.data.settings import AnyImageData, PhotoData, TableData, TextData
from gdas.rnn.config import TextSearchConfig
from gdas.rnn.genotype import PUBLISHED_RECURRENT
from gdas.rnn.language_model import LanguageModel
from gdas.rnn.supernet import RecurrentSupernet
from orchestrator.experiment.build import build_study
from orchestrator.experiment.load import EXPERIMENTS, load_experiment
from orchestrator.run.checks import fixed_cells
from tests.readme import commands, words

FOLDER = Path(__file__).resolve().parent


def pages() -> dict[str, str]:
    """Every golden page by the name of its file."""
    return {"job_ids.txt": job_ids(), "parameters.txt": parameters(), "help.txt": commands_help()}


def job_ids() -> str:
    """The label and the id of every job of all experiments; data sets stand for themselves."""
    lines = []
    for path in sorted(EXPERIMENTS.glob("*.yaml")):
        experiment = load_experiment(path.stem, [])
        genotypes = {name: cell.to_json() for name, cell in fixed_cells(experiment).items()}
        lines.append(f"# {path.stem}")
        lines += [f"{job.id} {job.label}" for job in build_study(experiment, _named, genotypes)]
    return "\n".join(lines) + "\n"


def _named(data: AnyImageData | TextData | TableData, split: str) -> str:
    if isinstance(data, PhotoData):
        return f"photos-{data.name}-{split}"
    return f"{data.name}-{split}"


def parameters() -> str:
    """A hash of the names and shapes in the state of every kind of network."""
    lines = []
    for name, network in _networks():
        entries = [f"{key} {tuple(value.shape)}" for key, value in network.state_dict().items()]
        digest = hashlib.sha256("\n".join(entries).encode()).hexdigest()[:16]
        lines.append(f"{name}: {len(entries)} entries, {digest}")
    return "\n".join(lines) + "\n"


def _networks() -> Iterator[tuple[str, nn.Module]]:
    search = SearchConfig()
    fixed = dataclasses.replace(search.network, reduction="fixed")
    authors_2020 = dataclasses.replace(search.network, macro="3n", bias_without_affine=True)
    with torch.device("meta"):
        yield "supernet", build_supernet(search, 10)
        yield "supernet, FRC", build_supernet(dataclasses.replace(search, network=fixed), 10)
        own = dataclasses.replace(search, network=authors_2020)
        yield "supernet, 3n with biases", build_supernet(own, 10)
        yield "NAS-Bench-201 supernet", build_bench201_supernet(Bench201SearchConfig(), 10)
        text = TextSearchConfig()
        yield "recurrent supernet", RecurrentSupernet(10_000, hidden=text.hidden, steps=text.steps)
        for name, genotype in PUBLISHED.items():
            yield name, build_network(TrainConfig(), genotype, 10)
        imagenet = TrainConfig(stem="imagenet", channels=52, normals_per_block=4)
        yield "GDAS_F1, ImageNet", build_network(imagenet, PUBLISHED["GDAS_F1"], 1000)
        for name, cell in PUBLISHED_RECURRENT.items():
            yield name, LanguageModel(cell, 10_000, 850)


def commands_help() -> str:
    """`--help` of every command that the README names."""
    modules = sorted({words(line)[0] for line in commands() if line.startswith("python -m ")})
    texts = []
    for module in modules:
        said = io.StringIO()
        with (
            mock.patch.dict("os.environ", {"COLUMNS": "100"}),
            mock.patch("sys.argv", ["the caller"]),  # a parser must not take its name from there
            contextlib.redirect_stdout(said),
            contextlib.suppress(SystemExit),
        ):
            _main(module)(["--help"])
        texts.append(f"# python -m {module} --help\n\n{said.getvalue().strip()}\n")
    return "\n".join(texts)


def _main(module: str) -> Callable[[Sequence[str]], object]:
    found = importlib.import_module(module)
    if not hasattr(found, "main"):
        found = importlib.import_module(f"{module}.__main__")
    main: Callable[[Sequence[str]], object] = found.main
    return main
