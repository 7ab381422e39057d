"""A final training's network as an MLflow model, without a pickle.

The model is the file served_model.py (MLflow's models from code) with a folder of artifacts:
`final.json`, the settings and the cell that a network is built with, and `weights.pt`, a dictionary
of tensors read with `weights_only`. MLflow runs the file where the model is loaded; the package
must be importable there. An image model takes pixels as they are stored and gives class scores; a
language model takes one text's token ids and gives the cross entropy (in nats) of every token but
the first.

Pure: served_model.py and orchestrator.tracking.registry import MLflow, this does not.

Shapes: N images or tokens, C channels, H and W height and width, K classes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

import gdas.genotype
from gdas.bench201.genotype import Bench201Genotype
from gdas.cnn.config import TrainConfig
from gdas.cnn.genotype import Genotype
from gdas.cnn.network import Network
from gdas.cnn.train import build_network
from gdas.data.augment import normalise
from gdas.data.images import known
from gdas.data.shard_index import open_index
from gdas.data.text import batch_tokens, text_counts
from gdas.files import write_json
from gdas.rnn.genotype import RecurrentGenotype
from gdas.rnn.language_model import LanguageModel
from gdas.rnn.train import build_language_model
from orchestrator.cost.workload import image_side
from orchestrator.experiment.decode import decode_train
from orchestrator.store.data import data_on_this_node
from orchestrator.store.job_folder import JobFolder
from orchestrator.store.results import FinalResult, GenotypeJson, JobSettings
from orchestrator.work.body import newest_checkpoint

ABOUT, WEIGHTS = "final.json", "weights.pt"
BATCH = 256


class About(TypedDict):
    """What final.json says."""

    config: dict[str, Any]
    genotype: GenotypeJson
    outputs: int  # classes or words
    metrics: dict[str, float]


def write_final(job: JobFolder, folder: Path) -> About:
    """Write what a finished final's model needs into `folder`; returns what final.json says.

    Raises:
        ValueError: the job has no whole checkpoint any more.
    """
    settings, result = job.settings(), job.result(FinalResult)
    checkpoint = newest_checkpoint(job)
    if result is None or checkpoint is None:
        raise ValueError(f"{job.path}: not finished, or its last checkpoint is gone")
    state, config = checkpoint.state, settings["recipe"]["config"]
    # A language model is tested with the weights of its best validation epoch.
    weights = state["weights"] if config["task"] == "image" else state["best"]
    about: About = {
        "config": config,
        "genotype": result["genotype"],
        "outputs": _outputs(settings),
        "metrics": result["metrics"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({name: w.detach().cpu() for name, w in weights.items()}, folder / WEIGHTS)
    write_json(folder / ABOUT, about)
    return about


def _outputs(settings: JobSettings) -> int:
    """Classes or words."""
    config = decode_train(settings["recipe"]["config"])
    if not isinstance(config, TrainConfig):
        return text_counts(config.data, settings["recipe"]["data"]).vocabulary
    if config.data.format == "photos":
        return len(open_index(config.data, data_on_this_node(settings)).classes)
    return known(config.data.name).classes


def load_final(folder: Path) -> FinalModel:
    """The model that `write_final` wrote."""
    about: About = json.loads((folder / ABOUT).read_text())
    weights = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
    return FinalModel(about, weights)


class FinalModel:
    """A trained network that predicts, on the CPU.

    Args:
        about: as `write_final` returned it.
        weights: the network's, by name.
    """

    def __init__(self, about: About, weights: dict[str, torch.Tensor]) -> None:
        self.config = decode_train(about["config"])
        genotype = gdas.genotype.any_from_json(about["genotype"], ABOUT)
        assert not isinstance(genotype, Bench201Genotype)
        self.network: Network | LanguageModel
        if isinstance(self.config, TrainConfig):
            assert isinstance(genotype, Genotype)
            self.network = build_network(self.config, genotype, about["outputs"])
        else:
            assert isinstance(genotype, RecurrentGenotype)
            self.network = build_language_model(self.config, genotype, about["outputs"])
        self.network.load_state_dict(weights)
        self.network.eval()

    @torch.no_grad()
    def predict(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Class scores N x K of uint8 pixels N x C x H x W, or entropies of N token ids."""
        inputs = torch.from_numpy(np.ascontiguousarray(values))
        if not isinstance(self.network, Network):
            return self._entropies(inputs.long())
        assert isinstance(self.config, TrainConfig)
        scores = [
            self.network(normalise(pixels_BCHW.to(torch.uint8), self.config.data))[0]
            for pixels_BCHW in inputs.split(BATCH)
        ]
        return np.asarray(torch.cat(scores).float().numpy())

    def _entropies(self, ids_N: torch.Tensor) -> NDArray[np.float32]:
        """Of every token but the first, given those before it."""
        assert isinstance(self.network, LanguageModel)
        text_T1, hidden, found = batch_tokens(ids_N, 1), self.network.initial_hidden(1), []
        for start in range(0, len(text_T1) - 1, self.config.bptt):  # type: ignore[union-attr]
            end = min(start + self.config.bptt, len(text_T1) - 1)  # type: ignore[union-attr]
            scores, _, hidden = self.network(text_T1[start:end], hidden)
            targets = text_T1[start + 1 : end + 1].flatten()
            found.append(F.cross_entropy(scores.flatten(0, 1), targets, reduction="none"))
        return np.asarray(torch.cat(found).float().numpy())


def example(about: About, size: int) -> NDArray[Any]:
    """An input of the right shape and type: two images of `size`, or eight tokens."""
    if about["config"]["task"] == "image":
        return np.zeros((2, 3, size, size), np.uint8)
    return np.zeros(8, np.int64)


def image_size(about: About) -> int:
    """Side of the images, in pixels; 0 for a language model."""
    config = about["config"]
    return image_side(config["data"]) if config["task"] == "image" else 0
