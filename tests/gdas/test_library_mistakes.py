"""What people who use gdas as a library pass by mistake: taken as meant, or refused in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gdas.bench201.network import Network as Bench201Network
from gdas.bench201.space import Bench201Space
from gdas.checkpoint import Segment, State, history, load, load_weights, newest, save
from gdas.cnn.config import SearchConfig, SupernetConfig
from gdas.cnn.genotype import OPERATIONS, PUBLISHED
from gdas.cnn.network import Network
from gdas.cnn.space import ImageSpace, score_with_shared_weights
from gdas.cnn.train import train_image
from gdas.data.arrow import Images
from gdas.data.settings import IMAGE_DATA
from gdas.drawing.draw import draw
from gdas.errors import InputError
from gdas.rnn.config import TextSearchConfig
from gdas.rnn.genotype import PUBLISHED_RECURRENT
from gdas.rnn.language_model import LanguageModel
from gdas.rnn.space import TextSpace
from gdas.rnn.train import train_text
from gdas.search import search
from tests.gdas import tiny, tiny_bench201, tiny_text

CPU = torch.device("cpu")
FRC = PUBLISHED["GDAS_F1"]
PIXELS = torch.randint(256, (160, 3, 8, 8), dtype=torch.uint8, generator=tiny.seeded(0))
IMAGES = Images(PIXELS, torch.arange(160) % 10, classes=10)
TEXT = tiny_text.random_text(200, 1)
WORDS = TextSearchConfig(epochs=1, batch_size=4, bptt=8, hidden=6, steps=2)


def image_training(
    genotype: Any = FRC, device: Any = CPU, checkpoint: Any = None, **changes: Any
) -> Segment:
    changes = {"data": IMAGE_DATA["digits"], "auxiliary_weight": 0.0, "epochs": 2} | changes
    rows = torch.arange(32)
    return next(
        train_image(
            tiny.train_config(**changes),
            genotype,
            *(IMAGES, rows, IMAGES, rows),
            evaluated_on="valid",
            device=device,
            checkpoint=checkpoint,
        )
    )


def text_training(
    genotype: Any = tiny_text.CELL, device: Any = CPU, checkpoint: Any = None, **changes: Any
) -> Segment:
    config = tiny_text.train_config(epochs=2, **changes)
    return next(train_text(config, genotype, TEXT, TEXT, device=device, checkpoint=checkpoint))


def few(channels: int) -> SearchConfig:
    """A search of few weights."""
    network = SupernetConfig(channels=channels, normals_per_block=1, nodes=2)
    return tiny.search_config(network=network, operations=OPERATIONS[:5])


def image_search(device: Any = CPU, checkpoint: Any = None, channels: int = 4) -> Segment:
    config = few(channels)
    return next(search(config, ImageSpace(config, IMAGES, device), checkpoint=checkpoint))


TAKE_A_DEVICE: dict[str, Callable[[Any], Any]] = {
    "ImageSpace": lambda device: ImageSpace(few(4), IMAGES, device).device,
    "Bench201Space": lambda device: Bench201Space(tiny_bench201.config(), IMAGES, device).device,
    "TextSpace": lambda device: TextSpace(WORDS, TEXT, TEXT, device).device,
    "train_image": lambda device: image_training(device=device) and CPU,
    "train_text": lambda device: text_training(device=device) and CPU,
}


@pytest.mark.parametrize("name", TAKE_A_DEVICE)
def test_a_device_may_be_given_by_its_name(name: str) -> None:
    assert TAKE_A_DEVICE[name]("cpu") == CPU
    for wrong, said in (
        ("gpu", "device=gpu: not a device; use cpu, cuda or cuda:N"),
        (None, "device=None: not a device; use cpu, cuda or cuda:N"),
    ):
        with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
            TAKE_A_DEVICE[name](wrong)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^device=cuda:1: PyTorch sees no GPU here; use device="):
        image_search(torch.device("cuda:1"))


def in_bench201(cell: Any) -> Bench201Network:
    return Bench201Network(10, channels=4, normals_per_block=1, genotype=cell)


TAKE_A_GENOTYPE: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "Network": (
        lambda cell: Network(cell, 10, channels=4, normals_per_block=1),
        "must be a Genotype",
        "gdas.cnn.genotype.PUBLISHED['GDAS_V1']",
    ),
    "train_image": (image_training, "must be a Genotype", "gdas.cnn.genotype.PUBLISHED['GDAS_V1']"),
    "LanguageModel": (
        lambda cell: LanguageModel(cell, 11, 6),
        "must be a RecurrentGenotype",
        "gdas.rnn.genotype.PUBLISHED_RECURRENT['RNN_GDAS']",
    ),
    "train_text": (
        text_training,
        "must be a RecurrentGenotype",
        "gdas.rnn.genotype.PUBLISHED_RECURRENT['RNN_GDAS']",
    ),
    "the network of NAS-Bench-201": (in_bench201, "must be a Bench201Genotype", "load(...)"),
    "draw": (
        lambda cell: draw(cell, "cell.svg"),
        "must be a Genotype or RecurrentGenotype or Bench201Genotype",
        "gdas.cnn.genotype.PUBLISHED['GDAS_V1']",
    ),
}


@pytest.mark.parametrize("name", TAKE_A_GENOTYPE)
def test_what_is_no_genotype_is_refused_with_the_way_to_one(name: str) -> None:
    make, must, published = TAKE_A_GENOTYPE[name]
    text = "RNN_GDAS" if "RECURRENT" in published else "GDAS_V1"
    for wrong in (FRC.to_json(), text, Path("cell.json"), [FRC]):
        with pytest.raises(InputError) as caught:
            make(wrong)
        line = str(caught.value)
        assert line.startswith("genotype=") and f": {must}; use " in line and "\n" not in line
        assert "any_from_json(...) of gdas.genotype for JSON" in line and published in line


def test_a_cell_of_another_space_is_refused() -> None:
    with pytest.raises(InputError, match=r"^genotype=RecurrentGenotype.*must be a Genotype;"):
        Network(PUBLISHED_RECURRENT["RNN_GDAS"], 10, channels=4, normals_per_block=1)  # type: ignore[arg-type]


def test_paths_may_be_text(tmp_path: Path) -> None:
    segment = Segment(1, 2, {}, {}, {"a": 1})
    saved = save(str(tmp_path / "kept"), segment, [{"epoch": 1}])
    found, damaged = newest(str(tmp_path / "kept"))
    assert found is not None and (found.digest, damaged) == (saved, [])
    assert load(str(tmp_path / "kept/000001")).state == {"a": 1}
    assert history(str(tmp_path / "kept")) == [{"epoch": 1}]
    assert newest(str(tmp_path / "nowhere")) == (None, [])
    draw(FRC, str(tmp_path / "cell.svg"))
    assert (tmp_path / "cell.svg").stat().st_size > 1000


OTHERS: dict[str, tuple[Callable[..., Segment], dict[str, Any], str]] = {
    "a search": (image_search, {"channels": 8}, "stem.conv.weight: 12 x 3 x 3 x 3 in it, 24 x 3 x"),
    "a training": (image_training, {"macro": "3n"}, " in it, "),
    "a training on text": (text_training, {"hidden": 8}, "words.weight_VN: 11 x 6 in it, 11 x 8"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_other_settings_is_refused_in_one_line(name: str) -> None:
    run, changes, what = OTHERS[name]
    segment = run()
    state = segment.state
    assert state is not None and run(checkpoint=state).position == 2
    with pytest.raises(InputError) as caught:
        run(checkpoint=state, **changes)
    line = str(caught.value)
    assert line.startswith("checkpoint: is of other settings (") and what in line
    assert line.endswith("or checkpoint=None to start from the beginning") and "\n" not in line
    for wrong, said in (
        (segment, "is a Segment"),
        ((None, []), "is a tuple"),
        ({"position": 1}, "has no weights"),
    ):
        with pytest.raises(InputError, match=rf"^checkpoint: {said}; must be a segment's state"):
            run(checkpoint=wrong)


def test_a_score_refuses_a_state_of_other_settings() -> None:
    state: State = {"weights": {}, "logits": {}}
    said = "checkpoint: is of other settings (stem.conv.weight: none in it, 12 x 3 x 3 x 3 in this "
    with pytest.raises(InputError, match=f"^{re.escape(said)}"):
        score_with_shared_weights(few(4), IMAGES, state, "cpu")
    more = {"weights": torch.nn.Linear(2, 3).state_dict()}
    with pytest.raises(InputError, match=r"\(bias: 3 in it, none in this network\); use"):
        load_weights(torch.nn.Linear(2, 3, bias=False), more)
