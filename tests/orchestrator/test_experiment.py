"""Experiment files and overrides: what resolves to what, and how bad input is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gdas.config import (
    SEARCH_PRESETS,
    SearchConfig,
    TextSearchConfig,
    TextTrainConfig,
    TrainConfig,
    differences,
)
from gdas.errors import InputError
from orchestrator.experiment import EXPERIMENTS, load_experiment

SHIPPED = sorted(EXPERIMENTS.glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_shipped_experiment_loads_and_opens_with_its_command(path: Path) -> None:
    experiment = load_experiment(path.stem, [])
    assert experiment.name == path.stem
    comment = path.read_text().partition("\n\n")[0]
    assert f"python -m orchestrator.reproduce_paper {path.stem}" in path.read_text()
    assert comment.startswith("#")
    assert "# Needs:" in path.read_text() and "# Takes:" in path.read_text()


def test_paper_has_the_papers_settings() -> None:
    experiment = load_experiment("paper", [])
    assert set(experiment.searches) == {"gdas", "gdas-frc", "gdas-rnn"}
    for name, search in experiment.searches.items():
        assert search.seeds == (0, 1, 2, 3)
        assert search.select_by == "proxy"
        assert search.proxy.epochs == (300 if name == "gdas-rnn" else 100)
    assert differences(experiment.searches["gdas-rnn"].recipe, TextSearchConfig()) == []
    ptb, wikitext2 = (experiment.finals[f"gdas-rnn-{n}"].recipe for n in ("ptb", "wikitext2"))
    assert isinstance(ptb, TextTrainConfig) and isinstance(wikitext2, TextTrainConfig)
    assert (ptb.hidden, ptb.epochs, ptb.weight_decay) == (850, 2000, 8e-7)
    assert (wikitext2.hidden, wikitext2.epochs, wikitext2.weight_decay) == (700, 3000, 5e-7)
    assert (ptb.dropouts.hidden, wikitext2.dropouts.hidden) == (0.25, 0.15)
    assert differences(experiment.searches["gdas"].recipe, SearchConfig()) == []
    frc = differences(experiment.searches["gdas-frc"].recipe, SearchConfig())
    assert frc == [("network.reduction", "fixed", "searched")]
    assert differences(experiment.finals["gdas-cifar10"].recipe, TrainConfig()) == []
    cutout = differences(experiment.finals["gdas-cutout-cifar10"].recipe, TrainConfig())
    assert cutout == [("data.cutout", 16, 0)]


def test_headline_is_one_search_of_four_seeds_and_one_final() -> None:
    experiment = load_experiment("headline", [])
    assert [len(s.seeds) for s in experiment.searches.values()] == [4]
    assert list(experiment.finals) == ["gdas-frc-cutout-cifar10"]


def test_settings_lie_over_one_another_preset_shared_own_command_line(tmp_path: Path) -> None:
    path = tmp_path / "layers.yaml"
    path.write_text(
        "search: {preset: authors_2020, recipe: {epochs: 7, weights: {lr: 1e-2}}}\n"
        "searches: {a: {}, b: {recipe: {epochs: 9}}}\n"
    )
    experiment = load_experiment(str(path), ["searches.b.recipe.weights.lr=0.5"])
    a, b = experiment.searches["a"].recipe, experiment.searches["b"].recipe
    assert a.batch_size == SEARCH_PRESETS["authors_2020"].batch_size == 256
    assert (a.epochs, b.epochs) == (7, 9)
    assert (a.weights.lr, b.weights.lr) == (0.01, 0.5), "1e-2 is a number"
    assert b.weights.nesterov, "an override leaves its neighbours alone"


def test_the_data_sets_own_augmentation_comes_with_its_name() -> None:
    recipe = load_experiment("smoke", []).searches["gdas-frc"].recipe
    assert recipe.data.name == "digits"
    assert not recipe.data.flip, "mirrored digits are not digits"


BAD = [
    (["searches.gdas-rnn.select_by=shared_weights"], r"recurrent cells are selected by proxy"),
    (["searches.gdas-rnn.preset=authors_2020"], r"authors_2020 has no recurrent half"),
    (["text_search.recipe.hiden=3"], r"gdas-rnn\.recipe\.hiden: unknown key; did you mean hidden"),
    (["search.recipe.epoch=3"], r"recipe\.epoch: unknown key; did you mean epochs\?"),
    (["serach.recipe.epochs=3"], r"serach: unknown key; did you mean search"),
    (["search.recipe.epochs=three"], r"searches\.gdas-frc\.recipe\.epochs='three'"),
    (["search.recipe.epochs=2.5"], r"recipe\.epochs=2\.5"),
    (["search.recipe.epochs=0"], r"recipe: epochs=0: must be 1 or more"),
    (["search.recipe.weights.momentum=1"], r"recipe\.weights: momentum=1"),
    (["search.recipe.sampler.scope=cell"], r"sampler\.scope='cell'.*cell_instance"),
    (["search.recipe.network.channels=6"], r"channels=6: the fixed reduction cell"),
    (["search.recipe.data.name=cifar11"], r"data\.name=cifar11: unknown data set"),
    (["search.preset=papr"], r"preset=papr: unknown; did you mean paper\?"),
    (["search.seeds=[1,1]"], r"seeds=\[1, 1\]: must differ"),
    (["search.resources.cpus=0"], r"cpus=0\.0: must be more than 0"),
    (["search.resources.gpus=1"], r"gpus=1\.0 with device=cpu"),
    (["final.resources.workers=0"], r"workers=0: must be 1 or more"),
    (
        ["finals.gdas-frc-digits.cell.searched=gdas"],
        r"^finals\.gdas-frc-digits\.cell\.searched=gdas: no such search; did",
    ),
    (["finals.x.cell.published=GDAS_V2"], r"published=GDAS_V2: unknown; did you mean GDAS_V1"),
    (["finals.x.cell={}"], r"give exactly one of searched, published, file, random; got none"),
    (["finals.X.cell.random=1"], r"name 'X': use lower-case"),
    (["search.recipe.epochs"], r"expected key=value"),
    (["retries=-1"], r"retries=-1: must be 0 or more"),
    (["search.recipe.epochs.x=1"], r"epochs is a value"),
    (["search=3"], r"search=3: expected a mapping"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD, ids=lambda v: str(v)[:40])
def test_bad_settings_are_refused_in_one_line_that_names_the_key(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_experiment("smoke", overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not a YAML file"),
        ("- 1", "expected a mapping"),
        ("{}", "all are empty"),
        ("!!python/object/apply:os.system ['true']", "not a YAML file"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        load_experiment(str(path), [])


def test_an_unknown_experiment_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match="did you mean smoke"):
        load_experiment("smok", [])
