"""Experiment files and overrides: what resolves to what, and how bad input is refused."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import partial
from pathlib import Path
from typing import get_args

import pytest

from gdas.cnn.config import SearchConfig, TrainConfig
from gdas.config import differences
from gdas.data.settings import PHOTO_DATA, ImageData, PhotoData
from gdas.data.shard_index import Shard, ShardIndex, Shards
from gdas.data.source import Split
from gdas.errors import InputError
from gdas.presets import SEARCH_PRESETS
from gdas.rnn.config import TextSearchConfig, TextTrainConfig
from orchestrator.cost.estimate import FUSED_FASTER, estimated_seconds
from orchestrator.experiment.build import build_study
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.load import EXPERIMENTS, load_experiment
from orchestrator.run.checks import check_experiment, fixed_cells, identity
from orchestrator.store.kernels import kernels_here
from tests.narrow import narrow

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
    assert set(experiment.searches) == {"gdas", "gdas-frc", "not-accelerated-frc", "gdas-rnn"}
    slow = differences(
        experiment.searches["not-accelerated-frc"].recipe, experiment.searches["gdas-frc"].recipe
    )
    assert slow == [
        ("epochs", 120, 240),
        ("sampler.acceleration", False, True),
        ("execution", "eager", "graph"),  # graphs run drawn operations alone
    ]
    for name, search in experiment.searches.items():
        assert search.seeds == (0, 1, 2, 3)
        assert search.select_by == "proxy"
        assert search.proxy is not None
        assert search.proxy.epochs == (300 if name == "gdas-rnn" else 100)
    assert differences(experiment.searches["gdas-rnn"].recipe, TextSearchConfig()) == []
    ptb, wikitext2 = (experiment.finals[f"gdas-rnn-{n}"].recipe for n in ("ptb", "wikitext2"))
    assert isinstance(ptb, TextTrainConfig) and isinstance(wikitext2, TextTrainConfig)
    assert (ptb.hidden, ptb.epochs, ptb.weight_decay) == (850, 2000, 8e-7)
    assert (wikitext2.hidden, wikitext2.epochs, wikitext2.weight_decay) == (700, 3000, 5e-7)
    assert (ptb.dropouts.hidden, wikitext2.dropouts.hidden) == (0.25, 0.15)
    graph = ("execution", "graph", "eager")  # how it is computed, not what
    assert differences(experiment.searches["gdas"].recipe, SearchConfig()) == [graph]
    frc = differences(experiment.searches["gdas-frc"].recipe, SearchConfig())
    assert frc == [("network.reduction", "fixed", "searched"), graph]
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


def test_threads_follow_the_processors_unless_they_are_named() -> None:
    def threads(*overrides: str) -> tuple[int | None, int | None]:
        experiment = load_experiment("smoke", list(overrides))
        search, final = experiment.searches["gdas-frc"], experiment.finals["gdas-frc-digits"]
        return search.resources.threads, final.resources.threads

    assert threads() == (1, 1)
    more = ["search.resources.cpus=2.5", "final.resources.cpus_per_worker=3"]
    assert threads(*more) == (2, 3)
    assert threads(*more, "search.resources.threads=1", "final.resources.threads=4") == (1, 4)


def test_the_data_sets_own_augmentation_comes_with_its_name() -> None:
    recipe = load_experiment("smoke", []).searches["gdas-frc"].recipe
    assert recipe.data.name == "digits"
    assert not narrow(recipe.data, ImageData).flip, "mirrored digits are not digits"


PHOTO_STUDY = """
search: {select_by: shared_weights}
searches:
  photos: {recipe: {data: {name: imagenet}}}
  proxied: {select_by: proxy, recipe: {data: {name: flowers, format: photos, classes: 5, size: 64}}}
  digits: {recipe: {data: {name: digits}}}
finals:
  v1: {cell: {published: GDAS_V1}, recipe: {data: {name: imagenet, hue: 0.0}}}
  small:
    cell: {random: 1}
    recipe: {data: {name: flowers, format: photos, classes: 5}, stem: cifar}
"""


def photo_study(tmp_path: Path, *overrides: str) -> Experiment:
    path = tmp_path / "photos.yaml"
    path.write_text(PHOTO_STUDY)
    return load_experiment(str(path), list(overrides))


def test_photos_take_the_imagenet_recipe_and_their_own_settings(tmp_path: Path) -> None:
    experiment = photo_study(tmp_path)
    search = experiment.searches["photos"].recipe
    assert search.data == PHOTO_DATA["imagenet"]
    assert search.network.stem == "imagenet"
    digits = narrow(experiment.searches["digits"].recipe, SearchConfig)
    assert digits.network.stem == "cifar"
    v1, small = (experiment.finals[name].recipe for name in ("v1", "small"))
    assert isinstance(v1, TrainConfig) and isinstance(small, TrainConfig)
    assert v1.data == dataclasses.replace(PHOTO_DATA["imagenet"], hue=0.0)
    # Spec: the authors' ImageNet training.
    assert (v1.stem, v1.channels, v1.normals_per_block) == ("imagenet", 50, 4)
    assert (v1.epochs, v1.batch_size, v1.lr, v1.schedule, v1.lr_decay) == (
        *(250, 128, 0.1, "exponential"),
        0.97,
    )
    assert (v1.momentum, v1.nesterov, v1.weight_decay, v1.clip) == (0.9, True, 3e-5, 5.0)
    assert (v1.drop_path, v1.label_smoothing, v1.auxiliary_weight) == (0.0, 0.1, 0.4)
    assert small.data == PhotoData(name="flowers", classes=5)
    assert (small.stem, small.epochs) == ("cifar", 250)
    proxied = experiment.searches["proxied"]
    flowers = PhotoData(name="flowers", classes=5, size=64)
    assert proxied.proxy is not None
    assert proxied.proxy.data == proxied.recipe.data == flowers


def test_a_proxy_reads_what_its_search_reads() -> None:
    overrides = ["searches.gdas.recipe.data.checksum=any"]
    search = load_experiment("paper", overrides).searches["gdas"]
    assert narrow(narrow(search.proxy, TrainConfig).data, ImageData).checksum == "any"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("finals.v1.recipe.data.name=flowers", "name=flowers: unknown data set.*format=photos"),
        ("finals.v1.recipe.data.cutout=16", r"v1\.recipe\.data\.cutout: unknown key"),
        ("finals.v1.recipe.data.format=arrays", "format=arrays: imagenet is of format photos"),
        ("finals.v1.recipe.data.hue=0.7", r"v1\.recipe\.data: hue=0\.7: must be from 0 to 0\.5"),
        ("finals.small.recipe.data.name=../x", "must be a plain folder name"),
        ("finals.small.recipe.data.name=..", "must be a plain folder name"),
        ("finals.small.recipe.data.clases=3", "clases: unknown key; did you mean classes"),
        (
            "finals.small.recipe.data={name: x, format: photos}",
            r"recipe\.data\.classes: is missing",
        ),
        ("finals.v1.recipe.segments_per_epoch=0", "segments_per_epoch=0: must be 1 or more"),
        ("searches.digits.recipe.data.checksum=none", "checksum=none: must be published or any"),
    ],
)
def test_bad_settings_of_photos_are_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        photo_study(tmp_path, override)


def test_photos_that_are_not_converted_are_refused_with_the_command(tmp_path: Path) -> None:
    experiment = photo_study(tmp_path)
    with pytest.raises(InputError) as caught:
        check_experiment(experiment, fixed_cells(experiment), tmp_path / "data")
    text = str(caught.value)
    assert text.startswith(
        f"searches.photos: {tmp_path / 'data' / 'imagenet'}: no converted photos"
    )
    assert f"python -m gdas.data.shards SOURCE {tmp_path / 'data' / 'imagenet'}" in text


def converted(folder: Path, classes: int, photos: int) -> None:
    """The index of a conversion; what a check reads."""
    folder.mkdir(parents=True)
    splits: dict[Split, Shards] = {
        split: Shards((Shard(folder / "x", photos, 1, split),), 64, ()) for split in get_args(Split)
    }
    index = ShardIndex(folder, "plan", tuple(f"c{i}" for i in range(classes)), splits)
    (folder / "index.json").write_text(json.dumps(index.to_json()))


def test_converted_photos_are_counted_and_identified_by_their_index(tmp_path: Path) -> None:
    converted(tmp_path / "imagenet", 1000, 5000)
    converted(tmp_path / "flowers", 5, 300)
    experiment = photo_study(tmp_path, "finals.small.recipe.auxiliary_weight=0")
    cells = fixed_cells(experiment)
    with pytest.raises(InputError, match=r"64 x 64 .* set auxiliary_weight=0"):
        check_experiment(experiment, cells, tmp_path)
    override = [
        "finals.small.recipe.auxiliary_weight=0",
        "searches.proxied.proxy.auxiliary_weight=0",
    ]
    experiment = photo_study(tmp_path, *override)
    check_experiment(experiment, cells, tmp_path)
    study = build_study(
        experiment,
        partial(identity, tmp_path),
        {name: cell.to_json() for name, cell in cells.items()},
    )
    (final,) = study.final("small")
    assert final.recipe["data"]["train"] != final.recipe["data"]["test"]
    (job,) = (job for job in study if job.label == "train-v1")
    # 250 epochs of 5,000 photos at 0.58 G multiply-adds, forward and backward, 12 GFLOP/s.
    fused = FUSED_FASTER if kernels_here(job.recipe, job.resources) == "fused" else 1.0
    expected = 250 * 5000 * 0.58e9 * 6 / 12e9 / fused
    assert estimated_seconds(job) == pytest.approx(expected, rel=0.02)
    with pytest.raises(InputError, match="train_images=301: the training split has only 300"):
        check_experiment(
            photo_study(tmp_path, *override, "finals.small.recipe.train_images=301"),
            cells,
            tmp_path,
        )
    with pytest.raises(InputError, match=r"classes=6: .*flowers has 5 classes"):
        check_experiment(
            photo_study(tmp_path, *override, "finals.small.recipe.data.classes=6"), cells, tmp_path
        )


BAD = [
    (["searches.gdas-rnn.select_by=shared_weights"], r"recurrent cells are selected by proxy"),
    (["searches.gdas-rnn.preset=authors_2020"], r"authors_2020 has no search for recurrent cells"),
    (["text_search.recipe.hiden=3"], r"gdas-rnn\.recipe\.hiden: unknown key; did you mean hidden"),
    (["search.recipe.epoch=3"], r"recipe\.epoch: unknown key; did you mean epochs\?"),
    (["serach.recipe.epochs=3"], r"serach: unknown key; did you mean search"),
    (["seeds=[1]"], r"^seeds: unknown key; did you mean search\.seeds or final\.seeds\?"),
    (["sedes=[1]"], r"^sedes: unknown key; did you mean search\.seeds or final\.seeds\?"),
    (["epocs=4"], r"^epocs: .*search\.recipe\.epochs or .* or bench201_search\.recipe\.epochs\?"),
    (["wxyz=4"], r"^wxyz: unknown key; known are name, searches"),
    (["epochs=4"], r"did you mean search\.recipe\.epochs or final\.recipe\.epochs or text_search"),
    (["search.recipe.epochs=three"], r"searches\.gdas-frc\.recipe\.epochs='three'"),
    (["search.recipe.epochs=2.5"], r"recipe\.epochs=2\.5"),
    (["search.recipe.epochs=0"], r"recipe: epochs=0: must be 1 or more"),
    (["search.recipe.weights.momentum=1"], r"recipe\.weights: momentum=1"),
    (["search.recipe.sampler.scope=cell"], r"sampler\.scope=cell: must be cell_instance"),
    (["search.recipe.network.channels=6"], r"channels=6: the fixed reduction cell"),
    (["search.recipe.data.name=cifar11"], r"data\.name=cifar11: unknown data set"),
    (["search.preset=papr"], r"preset=papr: unknown; did you mean paper\?"),
    (["search.seeds=[1,1]"], r"seeds=\[1, 1\]: must be one or more different"),
    (["search.resources.cpus=0"], r"cpus=0\.0: must be more than 0"),
    (["search.resources.threads=0"], r"threads=0: must be 1 or more"),
    (["search.resources.gpus=1"], r"gpus=1 with device=cpu"),
    (["final.resources.workers=0"], r"workers=0: must be 1 or more"),
    (
        ["finals.gdas-frc-digits.cell.searched=gdas"],
        r"^finals\.gdas-frc-digits\.cell\.searched=gdas: no such search; did",
    ),
    (["finals.x.cell.published=GDAS_V2"], r"published=GDAS_V2: unknown; did you mean GDAS_V1"),
    (
        ["finals.x.cell={}"],
        r"has none of searched, combined, published, file and random; must have exactly one",
    ),
    (["finals.X.cell.random=1"], r"name 'X': must be lower-case"),
    (["search.recipe.epochs"], r"must be key=value"),
    (["retries=-1"], r"retries=-1: must be 0 or more"),
    (["search.recipe.epochs.x=1"], r"epochs is a value"),
    (["search=3"], r"search=3: must have keys below it"),
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
        ("- 1", "must have searches, finals or measures"),
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


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("zzz", []),
        ("smoke", ["zzz.a=1"]),
        ("smoke", ["search.zzz=1"]),
        ("smoke", ["search.preset=zzz"]),
        ("smoke", ["search.recipe.task=zzz"]),
        ("smoke", ["search.recipe.data.name=qqq"]),
        ("smoke", ["finals.own.cell.published=QQQ"]),
        ("smoke", ["finals.own.cell.searched=qqqq"]),
    ],
)
def test_a_refusal_lists_the_known_names_once(name: str, words: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        load_experiment(name, words)
    said = str(refused.value)
    assert said.count("known are ") == 1 and "\n" not in said
    listed = re.findall(r"[\w-]+(?=[,;]|$| \()", said.partition("known are ")[2].split("; ")[0])
    assert len(listed) == len(set(listed)) > 2
