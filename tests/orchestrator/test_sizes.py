"""Settings that the size of the data decides on: refused before anything starts, with the fix."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gdas.cnn.config import TrainConfig
from gdas.cnn.train import FEWEST_IMAGES, check_batches
from gdas.data.text import batch_tokens, known_text
from gdas.errors import InputError
from gdas.rnn.config import TextSearchConfig, TextTrainConfig
from orchestrator import reproduce_paper
from orchestrator.experiment.load import load_experiment
from orchestrator.run.checks import checked_study, fixed_cells
from orchestrator.run.scheduler import Scheduler
from orchestrator.run.sizes import check_text_search, check_text_training
from orchestrator.store.store import Store
from orchestrator.work.proxy import run_proxy
from tests.harm import tries
from tests.narrow import narrow

DIGITS = {"name": "digits"}
PROSE = {"name": "prose"}
HALVES = {"train_images": 320, "valid_images": 320}
SEARCH = {"data": DIGITS, "epochs": 1, "batch_size": 16, **HALVES}
PROXY = {"recipe": {"auxiliary_weight": 0.0, "epochs": 1, "batch_size": 16}}
FINAL = {"data": DIGITS, "epochs": 1, "batch_size": 16, "auxiliary_weight": 0.0}
TOKENS = known_text("prose").counts


def a_search(proxy: dict[str, Any] | None = None, **recipe: Any) -> dict[str, Any]:
    of_search = {"seeds": [0], "recipe": SEARCH | recipe}
    return {"search": of_search, "searches": {"one": {"proxy": proxy or {}}}, "proxy": PROXY}


def a_text_search(proxy: dict[str, Any] | None = None, **recipe: Any) -> dict[str, Any]:
    spec = {"seeds": [0], "recipe": {"data": PROSE, **recipe}, "proxy": proxy or {}}
    return {"searches": {"one": spec}}


def a_final(workers: int = 1, cell: str = "GDAS_F1", **recipe: Any) -> dict[str, Any]:
    base = FINAL if cell == "GDAS_F1" else {"data": PROSE, "epochs": 1}
    resources = {"workers": workers}
    spec = {"cell": {"published": cell}, "recipe": base | recipe, "resources": resources}
    return {"finals": {"one": spec}}


def a_measure(**recipe: Any) -> dict[str, Any]:
    return {"measures": {"one": {"recipe": SEARCH | recipe}}}


TRAIN, VALID, TEST = (TOKENS[split] for split in ("train", "valid", "test"))
REFUSED: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "a batch beyond D_T": (
        a_search(batch_size=321),
        "searches.one: recipe.batch_size=321: .* use batch_size=320 or less",
        a_search(batch_size=320),
    ),
    "a batch beyond D_V": (
        a_search(batch_size=65, valid_images=64),
        "recipe.batch_size=65: .* use batch_size=64 or less",
        a_search(batch_size=64, valid_images=64),
    ),
    "a measurement's batch": (
        a_measure(batch_size=400),
        "measures.one.recipe.batch_size=400",
        a_measure(batch_size=320),
    ),
    "segments of a proxy beyond its batches": (
        a_search(proxy={"segments_per_epoch": 21}),
        "searches.one: proxy.segments_per_epoch=21: an epoch has only 20 batches .* use 20",
        a_search(proxy={"segments_per_epoch": 20}),
    ),
    "segments of a final": (
        a_final(segments_per_epoch=5, train_images=64),
        "finals.one: recipe.segments_per_epoch=5: an epoch has only 4 batches",
        a_final(segments_per_epoch=4, train_images=64),
    ),
    "a last batch that is too small to count": (
        a_final(segments_per_epoch=2, train_images=17),
        "segments_per_epoch=2: an epoch has only 1 batches",
        a_final(segments_per_epoch=2, train_images=18),
    ),
    "more workers than a batch divides": (
        a_final(workers=9),
        "recipe.batch_size=16: too small for 9 workers.* use batch_size=18 or more, or 8 workers",
        a_final(workers=8),
    ),
    "no whole batch": (
        a_final(workers=4, train_images=7),
        "finals.one: 7 training images are too few for 4 workers.* use 3 workers",
        a_final(workers=3, train_images=7),
    ),
    "no images": (a_final(train_images=0), "train_images=0: must be 2 or more", a_final()),
    "tokens beyond the text": (
        a_text_search(train_tokens=TRAIN + 1),
        f"recipe.train_tokens={TRAIN + 1}: must be from 2 to the {TRAIN} tokens",
        a_text_search(train_tokens=TRAIN),
    ),
    "tokens beyond the validation text": (
        a_text_search(valid_tokens=VALID + 1),
        f"recipe.valid_tokens={VALID + 1}: must be .* or null",
        a_text_search(valid_tokens=VALID),
    ),
    "a text batch wider than the text": (
        a_text_search(batch_size=200, valid_tokens=399),
        "recipe.batch_size=200: wider than the valid text .* use batch_size=199 or less",
        a_text_search(batch_size=199, valid_tokens=399),
    ),
    "a text proxy's evaluation batch": (
        a_text_search(proxy={"evaluation_batch_size": VALID}),
        "proxy.evaluation_batch_size=.*: wider than the valid text",
        a_text_search(proxy={"evaluation_batch_size": VALID // 2}),
    ),
    "a text final's tokens": (
        a_final(cell="RNN_GDAS", train_tokens=10**9),
        "finals.one: recipe.train_tokens=1000000000",
        a_final(cell="RNN_GDAS", train_tokens=TRAIN),
    ),
    "a text final's batch": (
        a_final(cell="RNN_GDAS", batch_size=64, train_tokens=127),
        "recipe.batch_size=64: wider than the train text .* use batch_size=63",
        a_final(cell="RNN_GDAS", batch_size=63, train_tokens=127),
    ),
    "a text final's test batch": (
        a_final(cell="RNN_GDAS", test_batch_size=TEST),
        "recipe.test_batch_size=.*: wider than the test text",
        a_final(cell="RNN_GDAS", test_batch_size=TEST // 2),
    ),
    "more workers than columns": (
        a_final(cell="RNN_GDAS", workers=5, batch_size=4),
        "resources.workers=5: more than the 4 columns",
        a_final(cell="RNN_GDAS", workers=4, batch_size=4),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_run_is_refused_by_the_dry_run_and_the_fix_is_not(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, message, mended = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(yaml.safe_dump(bad))
    assert reproduce_paper.main(["bad.yaml", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said) and said.count("\n") == 1, said
    Path("mended.yaml").write_text(yaml.safe_dump(mended))
    assert len(list(checked_study(load_experiment("mended.yaml", []), tmp_path))) > 0


def test_an_error_about_a_file_names_the_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below the key of a setting stands a setting, never a path: `recipe./data/mine/train.txt`."""
    monkeypatch.chdir(tmp_path)
    data = {"name": "mine", "format": "text"}
    Path("own.yaml").write_text(yaml.safe_dump(a_final(cell="RNN_GDAS", data=data)))
    Path("data/mine").mkdir(parents=True)
    assert reproduce_paper.main(["own.yaml", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: finals.one: {tmp_path}/data/mine: no file of train")


def test_a_recurrent_cell_without_its_text_is_refused_with_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What all finals on text share does not make one of them a final on text."""
    monkeypatch.chdir(tmp_path)
    shared = {"recipe": {"data": {"name": "ptb"}}}
    spec = {"text_final": shared, "finals": {"one": {"cell": {"published": "RNN_GDAS"}}}}
    Path("own.yaml").write_text(yaml.safe_dump(spec))
    assert reproduce_paper.main(["own.yaml", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert "its data set, cifar10, is image" in said
    assert "set finals.one.recipe.data, such as {name: ptb}" in said


@tries
@given(
    images=st.integers(2, 60),
    batch=st.integers(2, 40),
    workers=st.integers(1, 6),
    segments=st.integers(1, 8),
)
def test_a_training_is_refused_only_if_it_has_too_few_batches(
    images: int, batch: int, workers: int, segments: int
) -> None:
    config = TrainConfig(batch_size=batch, segments_per_epoch=segments)
    sizes = [len(rows) for rows in torch.arange(images).split(batch)]
    whole = [size for size in sizes if size >= FEWEST_IMAGES * workers]
    try:
        check_batches(config, images, workers)
    except InputError:
        assert len(whole) < segments
    else:
        assert len(whole) >= segments


def test_the_widest_text_batch_that_passes_is_the_widest_that_can_be_laid_out() -> None:
    experiment = load_experiment("smoke", [])
    recipe = narrow(experiment.searches["gdas-rnn"].recipe, TextSearchConfig)
    final = narrow(experiment.finals["gdas-rnn-prose"].recipe, TextTrainConfig)
    for tokens in (4, 5, 9, 400):
        text = torch.arange(tokens)
        for batch in range(2, tokens + 1):
            of_search = dataclasses.replace(
                recipe, batch_size=batch, train_tokens=None, valid_tokens=None
            )
            of_final = dataclasses.replace(final, test_batch_size=batch)
            counts = {"train": tokens, "valid": tokens, "test": tokens}
            fits = True
            try:
                batch_tokens(text, batch)
            except InputError:
                fits = False
            for check in (
                partial(check_text_search, of_search, counts),
                partial(check_text_training, of_final, counts, "test"),
            ):
                try:
                    check()
                    passed = True
                except InputError:
                    passed = False
                assert passed == fits, (tokens, batch)


def test_bad_input_is_not_tried_again(tmp_path: Path) -> None:
    drawn = {"one": {"cells": "random"}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(a_search() | {"searches": drawn}))
    experiment = load_experiment(str(tmp_path / "a.yaml"), [])
    assert fixed_cells(experiment) == {}
    study, store = checked_study(experiment, tmp_path), Store(tmp_path / "out")
    said: list[str] = []
    scheduler = Scheduler(study, store, {"CPU": 1.0}, said.append, retries=2)
    job = scheduler.next_job()
    assert job is not None and job.kind == "proxy"
    folder = store.prepare(job, {"data": str(tmp_path)})
    settings = folder.settings()
    settings["recipe"]["config"]["segments_per_epoch"] = 1000  # as if the data had shrunk
    (folder.path / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(InputError):
        run_proxy(str(folder.path))
    scheduler.finished(job)
    assert scheduler.board.states[job.id] == "failed"
    (line,) = [text for text in said if "failed" in text]
    assert "bad input: segments_per_epoch=1000" in line and "given up" in line
