"""Own data in experiments: ids of jobs on known data stay; what cannot be read is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gdas.cnn.config import SearchConfig
from gdas.data.settings import TextData
from gdas.errors import InputError
from gdas.rnn.config import TextSearchConfig
from orchestrator.driver import doctor as examining
from orchestrator.experiment.build import settings_of
from orchestrator.experiment.load import experiment_of

OWN = """
finals:
  own:
    cell: {published: RNN_GDAS}
    recipe: {data: {name: mine, format: text%s}, epochs: 1, hidden: 8, batch_size: 4}
"""


def own_experiment(folder: Path, more: str = "") -> str:
    (folder / "own.yaml").write_text(OWN % more)
    return str(folder / "own.yaml")


def put_text(folder: Path, **other: str) -> Path:
    texts = {"train": "the cat sat\n" * 50, "valid": "the cat\n" * 20, "test": "cat\n" * 20}
    folder.mkdir(parents=True)
    for split, text in (texts | other).items():
        (folder / f"{split}.txt").write_text(text)
    return folder


def test_settings_of_known_texts_are_as_they_were_and_those_of_own_text_are_all_there() -> None:
    assert settings_of(TextSearchConfig())["data"] == {"name": "ptb"}
    own = TextSearchConfig(data=TextData(name="mine", format="text", min_count=3))
    assert settings_of(own)["data"] == {"name": "mine", "format": "text", "min_count": 3}
    assert settings_of(SearchConfig())["data"]["checksum"] == "published"


def test_the_doctor_counts_own_text_and_names_what_is_missing(tmp_path: Path) -> None:
    experiment = experiment_of([own_experiment(tmp_path)])
    put_text(tmp_path / "data" / "mine")
    (found,) = examining.data_sets(experiment, tmp_path / "data")
    assert (found.level, found.what) == (
        "ok",
        "mine: 4 words; tokens: 200 train, 60 valid, 40 test",
    )
    (missing,) = examining.data_sets(experiment, tmp_path)
    assert missing.level == "BAD" and "mine: no such folder" in missing.what


OWN_SEARCHES = {
    "at the search": "searches: {mine: {recipe: {data: {name: mine, format: text, min_count: 3}}}}",
    "with its task": (
        "searches: {mine: {recipe: {task: text, data: {name: mine, format: text, min_count: 3}}}}"
    ),
    "shared": (
        "text_search: {recipe: {data: {name: mine, format: text, min_count: 3}}}\n"
        "searches: {mine: {recipe: {task: text}}}"
    ),
}


@pytest.mark.parametrize("where", OWN_SEARCHES)
def test_the_proxies_of_a_search_on_own_text_read_that_text(where: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN_SEARCHES[where])
    mine = experiment_of([str(tmp_path / "own.yaml")]).searches["mine"]
    own = TextData(name="mine", format="text", min_count=3)
    assert mine.proxy is not None and mine.recipe.data == mine.proxy.data == own


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("{name: mine, format: text, min_count: 0}", r"min_count=0: must be 1 or more"),
        ("{name: mine, format: text, colour: red}", r"recipe\.data\.colour: unknown key"),
        ("{name: ptb, format: text}", "is a known text"),
        ("{name: cifar10, format: text}", "format=text: cifar10 is of format arrays"),
        ("{name: mine}", "data.format=photos or data.format=text"),
        ("{name pets2, format: photos, classes: 4}", "data.name pets2: .* write name: pets2$"),
        ("{name mine, format: text}", r"recipe\.data\.name mine: .* write name: mine$"),
        ("{nmae: mine, format: text}", r"recipe\.data\.nmae: unknown key; did you mean name\?"),
        ("{format: photos, classes: 4}", r"recipe\.data\.name: is missing beside format=photos"),
        ("{format: text}", r"recipe\.data\.name: is missing beside format=text"),
        ("{name pets2, classes: 4}", r"data\.name pets2: .* write name: pets2$"),
    ],
)
def test_settings_of_data_are_refused_by_their_key(tmp_path: Path, data: str, says: Any) -> None:
    path = tmp_path / "own.yaml"
    cell = "GDAS_F1" if "cifar10" in data else "RNN_GDAS"
    path.write_text(
        f"finals:\n  own:\n    cell: {{published: {cell}}}\n    recipe: {{data: {data}}}\n"
    )
    with pytest.raises(InputError, match=says) as caught:
        experiment_of([str(path)])
    assert "\n" not in str(caught.value)
