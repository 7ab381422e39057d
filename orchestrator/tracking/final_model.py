"""A final training's network as an MLflow model, without a pickle.

The model is the file served_model.py (MLflow calls this "models from code") with a folder of
artifacts: `final.json`, the settings and the cell that the network is built from, and `weights.pt`,
a dictionary of tensors that is read with `weights_only`. MLflow runs the file when it loads the
model, so this package must be importable there. An image model takes pixels as they are stored and
returns class scores. A language model takes the token ids of one text and returns the cross entropy
(in nats) of every token but the first.

Pure: served_model.py and orchestrator.tracking.registry import MLflow, this module does not.

Shapes: N images or tokens, C channels, H and W height and width, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import gdas.genotype
from gdas.cnn.config import TrainConfig
from gdas.cnn.train import build_network
from gdas.data.augment import normalise
from gdas.data.images import known
from gdas.data.shard_index import open_index
from gdas.data.text import batch_tokens, text_counts
from gdas.files import write_json
from gdas.outside import check_named
from gdas.rnn.config import TextTrainConfig
from gdas.rnn.language_model import LanguageModel
from gdas.rnn.train import build_language_model
from orchestrator.cost.images import image_side
from orchestrator.experiment.decode import decode_train
from orchestrator.experiment.kinds import load
from orchestrator.experiment.spaces import SPACES
from orchestrator.store.data import data_on_this_node
from orchestrator.store.job_folder import JobFolder
from orchestrator.store.results import FinalResult, GenotypeJson, JobSettings
from orchestrator.work.body import newest_checkpoint

ABOUT, WEIGHTS = "final.json", "weights.pt"
BATCH = 256


class About(TypedDict):
    """The content of final.json."""

    config: dict[str, Any]
    genotype: GenotypeJson
    outputs: int  # classes or words
    metrics: dict[str, float]
    parameters: NotRequired[int]


def write_final(job: JobFolder, folder: Path) -> About:
    """Write a finished final's model files into `folder`.

    Returns:
        The content of final.json.

    Raises:
        FileNotFoundError: the job has no valid checkpoint any more.
    """
    settings, result = job.settings(), job.result(FinalResult)
    checkpoint = newest_checkpoint(job)
    if result is None or checkpoint is None:
        raise FileNotFoundError(f"{job.path}: not finished, or its last checkpoint is gone")
    state, config = checkpoint.state, settings["recipe"]["config"]
    model = model_of(config)
    weights = state[model.tested]
    about: About = {
        "config": config,
        "genotype": result["genotype"],
        "outputs": model.outputs(settings),
        "metrics": result["metrics"],
        "parameters": result["parameters"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({name: w.detach().cpu() for name, w in weights.items()}, folder / WEIGHTS)
    write_json(folder / ABOUT, about)
    return about


def load_final(folder: Path, named: Sequence[str] | None = None) -> FinalModel:
    """Load the model that `write_final` wrote.

    Args:
        named: the operations from outside the package that may be imported, which runs their code;
            None: all that its settings name, if the user's own study wrote them.

    Raises:
        InputError: it has an operation that is not among `named`.
    """
    about: About = json.loads((folder / ABOUT).read_text())
    if named is not None:
        asked = about["config"].get("operations", ())
        check_named(asked, named, "the model's cell", "--operations {}")
    weights = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
    return FinalModel(about, weights)


class FinalModel:
    """A trained network that predicts, on the CPU.

    Args:
        about: as `write_final` returned it.
        weights: the network's state_dict.
    """

    def __init__(self, about: About, weights: dict[str, torch.Tensor]) -> None:
        self.config = decode_train(about["config"])
        self.model = model_of(about["config"])
        genotype = gdas.genotype.any_from_json(about["genotype"], ABOUT)
        self.network = self.model.build(self.config, genotype, about["outputs"])
        self.network.load_state_dict(weights)
        self.network.eval()

    @torch.no_grad()
    def predict(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Class scores N x K of uint8 pixels N x C x H x W, or cross entropies of N token ids."""
        inputs = torch.from_numpy(np.ascontiguousarray(values))
        predicted = self.model.predict(self.network, self.config, inputs)
        return np.asarray(predicted.float().numpy())


class Model(NamedTuple):
    """How a final's network becomes a model, on images or on text.

    Attributes:
        tested: the key of the checkpoint's state with the weights that were tested.
        outputs: gives the number of classes or words, from a job's settings.
        build: builds the network from a training's settings, a genotype and the number of outputs.
        predict: predicts from the network, the settings and inputs.
        example: makes an input of the right shape and type, from a recipe's settings.
        images: whether it takes images.
    """

    tested: str
    outputs: Callable[[JobSettings], int]
    build: Callable[[Any, Any, int], nn.Module]
    predict: Callable[[nn.Module, Any, Tensor], Tensor]
    example: Callable[[dict[str, Any]], NDArray[Any]]
    images: bool


def model_of(config: dict[str, Any]) -> Model:
    """The `Model` for a final with these settings."""
    model: Model = load(SPACES[config["task"]].model)
    return model


def example(about: About) -> NDArray[Any]:
    """An input of the right shape and type: two images, or eight tokens."""
    return model_of(about["config"]).example(about["config"])


def _classes(settings: JobSettings) -> int:
    config = decode_train(settings["recipe"]["config"])
    assert isinstance(config, TrainConfig)
    if config.data.format == "photos":
        return len(open_index(config.data, data_on_this_node(settings)).classes)
    return known(config.data.name).classes


def _scores(network: nn.Module, config: TrainConfig, pixels_NCHW: Tensor) -> Tensor:
    """Class scores N x K."""
    scores = [
        network(normalise(pixels_BCHW.to(torch.uint8), config.data))[0]
        for pixels_BCHW in pixels_NCHW.split(BATCH)
    ]
    return torch.cat(scores)


def _two_images(config: dict[str, Any]) -> NDArray[Any]:
    size = image_side(config["data"])
    return np.zeros((2, 3, size, size), np.uint8)


def _words(settings: JobSettings) -> int:
    config = decode_train(settings["recipe"]["config"])
    assert isinstance(config, TextTrainConfig)
    return text_counts(config.data, settings["recipe"]["data"]).vocabulary


def _entropies(network: nn.Module, config: TextTrainConfig, ids_N: Tensor) -> Tensor:
    """The cross entropy of every token but the first, given those before it."""
    assert isinstance(network, LanguageModel)
    text_T1, hidden, found = batch_tokens(ids_N.long(), 1), network.initial_hidden(1), []
    for start in range(0, len(text_T1) - 1, config.bptt):
        end = min(start + config.bptt, len(text_T1) - 1)
        scores, _, hidden = network(text_T1[start:end], hidden)
        targets = text_T1[start + 1 : end + 1].flatten()
        found.append(F.cross_entropy(scores.flatten(0, 1), targets, reduction="none"))
    return torch.cat(found)


IMAGES = Model("weights", _classes, build_network, _scores, _two_images, images=True)
# A language model is tested with the weights of its best validation epoch.
TEXT = Model(
    *("best", _words, build_language_model, _entropies, lambda config: np.zeros(8, np.int64)),
    images=False,
)
