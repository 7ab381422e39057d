"""A short training that scores a search's cell, or a random one: trained on D_T, scored on D_V.

It has no access to the test split.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from gdas.cnn.config import SearchConfig, TrainConfig
from gdas.cnn.genotype import Genotype
from gdas.cnn.halves import search_split
from gdas.cnn.train import build_network, train_image
from gdas.data.images import open_images
from gdas.data.text import open_tokens
from gdas.genotype import any_from_json
from gdas.metrics import count_parameters
from gdas.rnn.config import TextTrainConfig
from gdas.rnn.genotype import RecurrentGenotype
from gdas.rnn.train import build_language_model, train_text
from orchestrator.experiment.decode import decode_search, decode_train
from orchestrator.experiment.kinds import load
from orchestrator.experiment.spaces import SPACES
from orchestrator.store.results import ProxyResult, SearchResult
from orchestrator.work.body import Loop, OpenJob, Report, open_job, run_to_end

Training = tuple[Loop, nn.Module]
"""A proxy training's loop, and a network of its size."""


def run_proxy(path: str, on_record: Report = lambda record: None) -> ProxyResult:
    """Run the proxy training in the folder `path` to its end; returns its result."""
    with open_job(path) as job:
        config = decode_train(job.recipe["config"])
        if job.settings["needs"]:
            searched = job.needed().result(SearchResult)
            assert searched is not None, "a proxy training runs after its search"
            genotype = any_from_json(searched["genotype"])
        else:
            genotype = any_from_json(job.recipe["genotype"])
        prepare = load(SPACES[config.task].proxy)
        start, network = prepare(job, config, genotype)
        finished = run_to_end(job.folder, start, on_record, job.kernels)
        result: ProxyResult = {
            "digest": finished.digest,
            "metrics": finished.metrics,
            "weights": count_parameters(network, without=None),
            "seconds": finished.seconds,
            "genotype": genotype.to_json(),
            "parameters": count_parameters(network),
        }
        job.finish(result)
        return result


def train_on_images(job: OpenJob, config: TrainConfig, genotype: Genotype) -> Training:
    """Prepare a training on the search's own halves of the data."""
    searched = decode_search(job.recipe["search"])
    assert isinstance(searched, SearchConfig)
    images = open_images(config.data, "train", job.data)
    train_T, valid_V = search_split(searched, len(images))
    start = partial(
        train_image,
        config,
        genotype,
        images,
        train_T,
        images,
        valid_V,
        evaluated_on="valid",
        device=job.device,
    )
    return start, build_network(config, genotype, images.classes)


def train_on_text(job: OpenJob, config: TextTrainConfig, genotype: RecurrentGenotype) -> Training:
    """Prepare a training on the training text, scored on the validation text."""
    train, valid = (open_tokens(config.data, s, job.data) for s in ("train", "valid"))
    start = partial(train_text, config, genotype, train, valid, None, device=job.device)
    return start, build_language_model(config, genotype, train.vocabulary)
