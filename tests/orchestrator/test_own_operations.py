"""The user's own operations in a study: in ids, in finals, and never from somebody else's file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gdas.cnn.config import TrainConfig
from gdas.cnn.genotype import Genotype
from gdas.cnn.train import build_network
from gdas.errors import InputError
from gdas.metrics import count_multiply_adds
from gdas.outside import source_checksum
from orchestrator.cell import main as cell
from orchestrator.experiment.build import build_study, settings_of
from orchestrator.experiment.config import Experiment
from orchestrator.experiment.load import load_experiment
from orchestrator.experiment.study import Study
from orchestrator.run.checks import check_experiment, fixed_cells, unchecked_study
from orchestrator.store.store import Store
from orchestrator.tracking.final_model import load_final
from orchestrator.work.body import open_job
from tests.orchestrator.test_study import identity
from tests.own_module import importable

SMALL = str(Path(__file__).with_name("small.yaml"))
OPERATIONS = "search.recipe.operations=[none, skip_connect, sep_conv_3x3, 'own_ops:conv']"
CODE = """
from pathlib import Path
from torch import nn

Path(__file__).with_suffix(".ran").touch()

def conv(channels, stride, affine):
    return nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
"""
EDGES = (("own_ops:conv", 0), ("skip_connect", 1))


@pytest.fixture(autouse=True)
def own_ops(tmp_path: Path) -> Iterator[Path]:
    """The module, which is importable."""
    with importable(tmp_path, "own_ops", CODE) as module:
        yield module


def with_file(tmp_path: Path, *more: str) -> Experiment:
    """The small experiment, whose final has the cell of a file."""
    value = Genotype("theirs", EDGES, EDGES).to_json()
    (tmp_path / "theirs.json").write_text(json.dumps(value))
    file = f"finals.gdas-frc-digits.cell={{file: {tmp_path / 'theirs.json'}}}"
    return load_experiment(SMALL, [file, "finals.gdas-frc-digits.row=null", *more])


def test_what_a_search_names_its_proxies_and_its_finals_name_too() -> None:
    experiment = load_experiment(SMALL, [OPERATIONS])
    search, final = experiment.searches["gdas-frc"], experiment.finals["gdas-frc-digits"]
    for training in (search.proxy, final.recipe):
        assert isinstance(training, TrainConfig) and training.operations == ("own_ops:conv",)
    plain = load_experiment(SMALL, []).finals["gdas-frc-digits"].recipe
    assert isinstance(plain, TrainConfig) and plain.operations == ()
    assert "operations" not in settings_of(plain)


def test_a_changed_file_is_another_job_and_the_eight_keep_their_ids(own_ops: Path) -> None:
    usual = {job.id for job in build_study(load_experiment(SMALL, []), identity, {})}
    eight = "none, max_pool_3x3, avg_pool_3x3, skip_connect, sep_conv_3x3, sep_conv_5x5"
    named = f"search.recipe.operations=[{eight}, dil_conv_3x3, dil_conv_5x5]"
    assert {job.id for job in build_study(load_experiment(SMALL, [named]), identity, {})} == usual
    experiment = load_experiment(SMALL, [OPERATIONS])
    before = {job.id for job in build_study(experiment, identity, {})}
    assert not before & usual
    own_ops.write_text(CODE + "\n# another\n")
    assert not {job.id for job in build_study(experiment, identity, {})} & before
    assert not own_ops.with_suffix(".ran").exists(), "ids need the file's bytes alone"


def test_folders_stay_needed_when_the_file_is_edited_or_gone(
    own_ops: Path, tmp_path: Path, data_folder: Path
) -> None:
    """`jobs remove` must not take for old what a study still has."""
    experiment = load_experiment(SMALL, [OPERATIONS])
    code = {job.recipe["code"]["own_ops:conv"] for job in build_study(experiment, identity, {})
            if "code" in job.recipe}  # fmt: skip
    assert code == {source_checksum("own_ops:conv")}
    started = unchecked_study(experiment, Study((), {}, {}, {}, {}), data_folder)
    own_ops.unlink()
    again = unchecked_study(experiment, started, data_folder)
    assert [job.id for job in again] == [job.id for job in started]


def test_a_machine_with_another_file_says_so(own_ops: Path, tmp_path: Path) -> None:
    experiment = load_experiment(SMALL, [OPERATIONS])
    job = build_study(experiment, identity, {}).jobs[0]
    folder = Store(tmp_path / "out").prepare(job, {"data": str(tmp_path)})
    own_ops.write_text(CODE + "\n# another\n")
    other = pytest.raises(InputError, match="is not the one that the study was started with")
    with other, open_job(str(folder.path)):
        pass


def test_the_cell_of_a_file_is_trained_only_if_its_operations_are_named(
    own_ops: Path, tmp_path: Path, data_folder: Path
) -> None:
    experiment = with_file(tmp_path)
    with pytest.raises(InputError, match=r"recipe\.operations=\['own_ops:conv'\]"):
        check_experiment(experiment, fixed_cells(experiment), data_folder)
    assert not own_ops.with_suffix(".ran").exists(), "its code ran"
    named = with_file(tmp_path, "finals.gdas-frc-digits.recipe.operations=['own_ops:conv']")
    check_experiment(named, fixed_cells(named), data_folder)
    assert own_ops.with_suffix(".ran").exists()


def test_a_search_with_own_operations_is_tried_before_anything_starts(
    own_ops: Path, data_folder: Path
) -> None:
    own_ops.write_text(CODE.replace("3, stride, 1", "3, 1, 1"))
    experiment = load_experiment(SMALL, [OPERATIONS])
    with pytest.raises(InputError) as refused:
        check_experiment(experiment, {}, data_folder)
    said = "searches.gdas-frc: recipe.operations=own_ops:conv: with 4 channels, stride=2"
    assert str(refused.value).startswith(said)


def test_a_random_cell_may_be_drawn_from_them() -> None:
    cell = "finals.gdas-frc-digits.cell={random: 1, operations: [skip_connect, 'own_ops:conv']}"
    experiment = load_experiment(SMALL, [cell, "finals.gdas-frc-digits.row=null"])
    drawn = fixed_cells(experiment)["gdas-frc-digits"]
    assert isinstance(drawn, Genotype)
    assert {name for name, _ in drawn.normal} == {"skip_connect", "own_ops:conv"}
    recipe = experiment.finals["gdas-frc-digits"].recipe
    assert isinstance(recipe, TrainConfig) and recipe.operations == ("own_ops:conv",)


def test_a_cell_is_shown_without_its_module_and_counted_with_its_name_only(
    own_ops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_file(tmp_path)
    file = str(tmp_path / "theirs.json")
    assert cell(["show", file]) == 0
    assert "own_ops:conv of c_{k-2}" in capsys.readouterr().out
    assert cell(["count", file]) == 2
    assert "--operations own_ops:conv" in capsys.readouterr().err
    assert not own_ops.with_suffix(".ran").exists(), "its code ran"
    assert cell(["count", file, "--operations", "own_ops:conv"]) == 0
    config = TrainConfig(operations=("own_ops:conv",), auxiliary_weight=0)
    with torch.device("meta"):
        network = build_network(config, Genotype("theirs", EDGES, EDGES), 10)
        adds = count_multiply_adds(network, torch.zeros(1, 3, 32, 32))
    assert f"{adds:,}" in capsys.readouterr().out


def test_a_model_from_elsewhere_is_built_only_if_its_operations_are_named(
    own_ops: Path, tmp_path: Path
) -> None:
    config = TrainConfig(channels=4, normals_per_block=1, operations=("own_ops:conv",))
    genotype = Genotype("theirs", EDGES, EDGES)
    about = {"config": settings_of(config), "genotype": genotype.to_json(), "outputs": 10}
    (tmp_path / "final.json").write_text(json.dumps(about))
    torch.save({}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="--operations own_ops:conv"):
        load_final(tmp_path, named=[])
    assert not own_ops.with_suffix(".ran").exists(), "its code ran"
    weights = build_network(config, genotype, 10).state_dict()
    torch.save(weights, tmp_path / "weights.pt")
    assert load_final(tmp_path, named=["own_ops:conv"]).network is not None
