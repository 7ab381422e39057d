"""What a notebook passes to gdas: data in other forms, other settings, a space used twice.

All of it ran with something else than was meant, or ended in an error of Python's about attributes.
"""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from gdas.bench201.network import Network as Bench201Network
from gdas.bench201.space import Bench201Space
from gdas.cnn.config import SearchConfig, SupernetConfig
from gdas.cnn.genotype import OPERATIONS, PUBLISHED, Genotype
from gdas.cnn.graph.search import search_by_graphs
from gdas.cnn.network import Network
from gdas.cnn.space import ImageSpace
from gdas.cnn.supernet import Supernet
from gdas.cnn.train import train_image
from gdas.data.arrow import Images
from gdas.data.settings import IMAGE_DATA
from gdas.data.text import Tokens
from gdas.errors import InputError
from gdas.genotype import read
from gdas.rnn.config import TextSearchConfig
from gdas.rnn.genotype import PUBLISHED_RECURRENT
from gdas.rnn.language_model import LanguageModel
from gdas.rnn.space import TextSpace
from gdas.rnn.supernet import RecurrentSupernet
from gdas.rnn.train import train_text
from gdas.search import search
from tests.gdas import tiny, tiny_bench201, tiny_text

FRC = PUBLISHED["GDAS_F1"]
PIXELS = torch.randint(256, (160, 3, 8, 8), dtype=torch.uint8, generator=tiny.seeded(0))
LABELS = torch.arange(160) % 10
IMAGES = Images(PIXELS, LABELS, classes=10)
ROWS = torch.arange(32)
TEXT = tiny_text.random_text(200, 1)
WORDS = TextSearchConfig(epochs=1, batch_size=4, bptt=8, hidden=6, steps=2)
SMALL = tiny.search_config(
    network=SupernetConfig(channels=4, normals_per_block=1, nodes=2), operations=OPERATIONS[:5]
)
TRAINING = tiny.train_config(data=IMAGE_DATA["digits"], auxiliary_weight=0.0, epochs=1)


def refused(call: Callable[..., Any], *given: Any, **named: Any) -> str:
    with pytest.raises(InputError) as caught:
        call(*given, **named)
    line = str(caught.value)
    assert "\n" not in line
    return line


def first_of(run: Any, config: Any, space: Any) -> Any:
    return next(run(config, space))


def trained(
    config: Any = TRAINING,
    train: Any = IMAGES,
    rows: Any = ROWS,
    evaluation: Any = IMAGES,
    evaluation_rows: Any = ROWS,
    evaluated_on: Any = "valid",
) -> Any:
    every = train, rows, evaluation, evaluation_rows
    return next(train_image(config, FRC, *every, evaluated_on=evaluated_on, device="cpu"))


def photos() -> list[tuple[Image.Image, int]]:
    pixels = PIXELS.permute(0, 2, 3, 1).numpy()
    return [(Image.fromarray(pixels[i]), int(LABELS[i])) for i in range(4)]


STACKED: dict[str, tuple[Any, str]] = {
    "pairs of a photo and a label": (
        photos(),
        'torch.stack([pil_to_tensor(image.convert("RGB")) for image, _ in images])',
    ),
    "photos": (
        [photo for photo, _ in photos()],
        'torch.stack([pil_to_tensor(image.convert("RGB")) for image in images])',
    ),
    "tensors": (list(PIXELS[:4]), "torch.stack(list(images))"),
    "arrays": (
        [one.numpy() for one in PIXELS[:4]],
        "torch.stack([torch.from_numpy(image) for image in images])",
    ),
    "a data set": (
        TensorDataset(PIXELS, LABELS),
        "torch.stack([image for image, _ in images])",
    ),
    "a loader": (
        DataLoader(TensorDataset(PIXELS, LABELS), 2),
        "torch.cat([batch for batch, _ in images])",
    ),
}


@pytest.mark.parametrize("name", STACKED)
def test_images_of_every_form_are_refused_with_a_line_that_stacks_them(name: str) -> None:
    images, stack = STACKED[name]
    from torchvision.transforms.functional import pil_to_tensor

    assert stack in refused(lambda: Images(images, LABELS[:4], 10))
    for call in (
        lambda: ImageSpace(SMALL, images, "cpu"),
        lambda: Bench201Space(tiny_bench201.config(), images, "cpu"),
        lambda: trained(train=images),
        lambda: trained(evaluation=images),
    ):
        line = refused(call)
        assert "must be Images(pixels, labels, classes=10) of gdas.data.arrow" in line
        assert stack in line
    pixels = eval(stack, {"torch": torch, "images": images, "pil_to_tensor": pil_to_tensor})
    assert Images(pixels, LABELS[: len(pixels)], 10).size == 8


def test_anything_else_is_no_source_of_images() -> None:
    class Broken(TensorDataset):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
            raise OSError("the disk is gone")

    others: list[Any] = [(PIXELS, LABELS), PIXELS, None, "photos", [], Broken(PIXELS)]
    for wrong in others:
        assert refused(ImageSpace, SMALL, wrong, "cpu").startswith(
            f"images: is a {type(wrong).__name__}; must be Images("
        )


def test_rows_and_splits_of_a_training_are_checked() -> None:
    assert trained().metrics["valid/top1"] >= 0
    for rows in (None, list(range(32)), range(32), np.arange(32), ROWS.float(), ROWS > 3, 5):
        line = refused(trained, rows=rows)
        assert line.startswith("train_rows: is a ") and "such as torch.arange(160) for all" in line
    for rows, has in (
        (ROWS - 1, "from -1 to 30"),
        (ROWS + 150, "from 150 to 181"),
        (ROWS[:0], "none"),
    ):
        line = refused(trained, evaluation_rows=rows)
        assert line.startswith(f"evaluation_rows: indices are {has}; must be one or more from 0 to")
    assert refused(lambda: trained(evaluated_on="val")) == (
        "evaluated_on=val: must be test or valid; did you mean valid?"
    )
    more = Images(PIXELS, LABELS, classes=12)
    assert refused(lambda: trained(evaluation=more)).startswith(
        "evaluation: has 12 classes and train 10; must be the same"
    )


def test_numbers_of_words_are_checked() -> None:
    ids = torch.arange(20)
    assert len(Tokens(ids, 20)) == len(Tokens(ids.int(), 20)) == 20
    words = ["the", "cat", "the"]
    line = refused(lambda: Tokens(words, 2))  # type: ignore[arg-type]
    make, look_up = line.partition("; use ")[2].split(" and ")
    names: dict[str, Any] = {"words": words, "torch": torch}
    exec(make, names)
    assert Tokens(eval(look_up, names), 2).ids_N.tolist() == [0, 1, 0]
    for wrong, vocabulary, said in (
        ("the cat", 2, "ids_N are words: must be their numbers"),
        ([0, 1], 2, "ids_N are a list: must be a torch.Tensor; use torch.as_tensor(ids)"),
        (ids.float(), 20, "ids_N are float32: must be int32 or int64; use ids.long()"),
        (ids[None], 20, "ids_N of shape (1, 20): must be N numbers"),
        (ids[:0], 20, "ids_N of shape (0,): must be N numbers, one or more"),
        (ids, 5, "ids_N from 0 to 19: must be from 0 to 4, below vocabulary=5"),
        (ids - 1, 20, "ids_N from -1 to 18: must be from 0 to 19"),
        (ids, 0, "vocabulary=0: must be an int of 1 or more"),
        (ids, 20.0, "vocabulary=20.0: must be an int of 1 or more"),
    ):
        assert refused(Tokens, wrong, vocabulary).startswith(said)


def test_texts_have_one_vocabulary() -> None:
    larger = Tokens(TEXT.ids_N, TEXT.vocabulary + 1)

    def trained_on(*texts: Tokens | None) -> Any:
        config = tiny_text.train_config(epochs=1)
        return next(train_text(config, tiny_text.CELL, TEXT, *texts, device="cpu"))

    for call, name in (
        (lambda: TextSpace(WORDS, TEXT, larger, "cpu"), "valid"),
        (lambda: trained_on(larger), "evaluation"),
        (lambda: trained_on(None, larger), "test"),
    ):
        assert refused(call).startswith(f"{name}: has a vocabulary of 12 words and train of 11;")
    for wrong in (TEXT.ids_N, "the cat", None):
        assert refused(TextSpace, WORDS, wrong, TEXT, "cpu").startswith(
            f"train: is a {type(wrong).__name__}; must be Tokens(ids, vocabulary) of gdas.data.text"
        )


def test_settings_of_another_kind_are_refused_by_name() -> None:
    bench201: Any = tiny_bench201.config()
    for call, kind in (
        (lambda c: ImageSpace(c, IMAGES, "cpu"), "SearchConfig(...) of gdas.cnn.config"),
        (lambda c: Bench201Space(c, IMAGES, "cpu"), "Bench201SearchConfig(...) of gdas.bench201"),
        (lambda c: TextSpace(c, TEXT, TEXT, "cpu"), "TextSearchConfig(...) of gdas.rnn.config"),
        (trained, "TrainConfig(...) of gdas.cnn.config"),
        (
            lambda c: next(train_text(c, tiny_text.CELL, TEXT, TEXT, device="cpu")),
            "TextTrainConfig(...) of gdas.rnn.config",
        ),
    ):
        for wrong in ({"epochs": 3}, None, IMAGES):
            line = refused(call, wrong)
            assert line.startswith("config=") and f"must be {kind}" in line
    assert refused(lambda: ImageSpace(bench201, IMAGES, "cpu")).startswith("config=")


def test_a_search_takes_the_settings_that_its_space_was_made_with() -> None:
    space = ImageSpace(SMALL, IMAGES, "cpu")
    other = dataclasses.replace(SMALL, seed=5, batch_size=8)
    for run in (search, search_by_graphs):
        assert refused(first_of, run, other, space) == (
            "config: differs from the settings that the space was made with (seed, batch_size); "
            "make the space anew with these: ImageSpace(config, ...)"
        )
    assert "(TextSearchConfig and SearchConfig)" in refused(first_of, search, WORDS, space)
    assert refused(first_of, search, space, SMALL) == (
        "config: is a ImageSpace; must be the settings of a search, such as SearchConfig of "
        "gdas.cnn.config; call search(config, space)"
    )
    assert refused(first_of, search, SMALL, IMAGES).startswith(
        "space: is a Images; must be a search space"
    )
    equal = SearchConfig(**vars(SMALL))
    assert next(search(equal, space)).position == 1


@pytest.mark.parametrize("kind", ["images", "text", "NAS-Bench-201"])
def test_a_second_search_does_not_start_from_the_weights_of_the_first(kind: str) -> None:
    ways: dict[str, tuple[Any, Callable[[], Any]]] = {
        "images": (SMALL, lambda: ImageSpace(SMALL, IMAGES, "cpu")),
        "text": (WORDS, lambda: TextSpace(WORDS, TEXT, TEXT, "cpu")),
        "NAS-Bench-201": (
            tiny_bench201.config(),
            lambda: Bench201Space(tiny_bench201.config(), IMAGES, "cpu"),
        ),
    }
    config, make = ways[kind]
    space = make()
    first = first_of(search, config, space)
    line = refused(first_of, search, config, space)
    assert line.startswith("space: has been searched or trained already")
    assert f"{type(space).__name__}(...)" in line and "checkpoint=segment.state" in line
    list(search(config, space, checkpoint=first.state))
    again = first_of(search, config, make())
    assert again.metrics == first.metrics
    space.weights.zero_grad()
    first_of(search, config, space)


def test_a_cell_of_another_projects_code_is_refused_with_the_way_to_it() -> None:
    named: Any = namedtuple("named", "normal normal_concat reduce reduce_concat")
    edges = [("sep_conv_3x3", 0), ("skip_connect", 1)]
    darts = named(edges, range(2, 3), edges, range(2, 3))
    for cell in (darts, darts._asdict()):
        line = refused(Network, cell, 10, channels=4, normals_per_block=1)
        assert 'read(str(genotype), "cell") for what another project' in line
        found = read(str(cell).replace("named(", "Genotype("), "cell")
        assert isinstance(found, Genotype) and found.normal == tuple(edges)


def test_a_network_is_built_of_what_is_asked_or_not_at_all() -> None:
    usual: dict[str, Any] = {"classes": 10, "channels": 4, "normals_per_block": 1}
    for changes, said in (
        ({"stem": "tiny"}, "stem=tiny: must be cifar or imagenet"),
        ({"macro": "2n"}, "macro=2n: must be 3n+2 or 3n"),
        ({"classes": 0}, "classes=0: must be 1 or more"),
        ({"classes": 10.0}, "classes=10.0: must be a whole number"),
        ({"channels": 0}, "channels=0: must be 1 or more"),
        ({"channels": 7.5}, "channels=7.5: must be a whole number"),
        ({"normals_per_block": -1}, "normals_per_block=-1: must be 0 or more"),
    ):
        assert refused(Network, FRC, **usual | changes).startswith(said)
        assert refused(Supernet, **usual | changes).startswith(said)
        if "stem" not in changes and "macro" not in changes:
            assert refused(Bench201Network, **usual | changes).startswith(said)
    for call, said in (
        (
            lambda: Supernet(10, channels=8, fixed_reduction=True, wiring="2020"),  # type: ignore[arg-type]
            "wiring=2020: must be figure or 2019",
        ),
        (lambda: Supernet(10, channels=4, nodes=0), "nodes=0: must be 1 or more"),
        (lambda: LanguageModel(PUBLISHED_RECURRENT["RNN_GDAS"], 0, 6), "vocabulary=0: must be 1"),
        (lambda: LanguageModel(PUBLISHED_RECURRENT["RNN_GDAS"], 9, 0), "hidden=0: must be 1"),
        (lambda: RecurrentSupernet(9, hidden=4, steps=0), "steps=0: must be 1 or more"),
    ):
        assert refused(call).startswith(said)
