"""The command's surface: help, dry run, and bad input before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import gdas.data.cifar
from gdas.errors import InputError
from orchestrator.cost import estimate, plan
from orchestrator.experiment.build import build_study
from orchestrator.experiment.load import EXPERIMENTS, load_experiment
from orchestrator.reproduce_paper import main
from orchestrator.run.checks import fixed_cells
from tests.orchestrator.fake_study import TINY, fake_study
from tests.orchestrator.test_photo_jobs import YAML as PHOTOS
from tests.orchestrator.test_study import identity
from tests.orchestrator.written import search_result


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Ray was about to be started")

    import orchestrator.run.machines

    monkeypatch.setattr(orchestrator.run.machines, "ray_cluster", refuse)
    monkeypatch.chdir(tmp_path)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    for word in ("--dry-run", "--only", "--address", "--yes", "laptop --data DIR", "130"):
        assert word in shown


@pytest.mark.parametrize("name", ["smoke", "laptop", "headline", "paper"])
def test_a_dry_run_lists_jobs_and_starts_nothing(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([name, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "search-gdas-frc-seed3" in out and "select-gdas-frc" in out
    assert list(tmp_path.iterdir()) == [], "no folder was made"


def test_bad_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert "one experiment at a time" in refused(capsys, "smoke", "laptop")
    assert "did you mean epochs" in refused(capsys, "search.recipe.epoch=1")
    assert "no such job" in refused(capsys, "--only", "train-x")
    assert refused(capsys, "--only", "serch-gdas-frc").endswith("did you mean search-gdas-frc?")


def test_help_names_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    named = capsys.readouterr().out.partition("experiments (")[2].partition("examples:")[0]
    shipped = {path.stem for path in EXPERIMENTS.glob("*.yaml")}
    assert {line.split()[0] for line in named.splitlines()[1:] if line} == {
        name
        for name in shipped
        if not name.startswith("drill")  # those are of a checkout
    }


def test_a_missing_data_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no such folder" in refused(capsys, "laptop", "--data", str(tmp_path / "none"))


def test_a_missing_data_set_that_cannot_be_downloaded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(CIFAR10, "download", offline)
    line = refused(capsys, "laptop", "--data", str(tmp_path))
    assert "CIFAR-10 is not in" in line and "--data" in line


def test_a_damaged_data_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    (base / "data_batch_1").write_bytes(b"not what it claims")
    line = refused(capsys, "laptop", "--data", str(tmp_path))
    assert "data_batch_1: damaged" in line
    assert gdas.data.cifar.cifar_files("cifar10", "train")[0][1] in line


def test_shapes_that_cannot_be_built(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "final.recipe.channels=6")
    assert "finals.gdas-frc-digits: recipe.channels=6" in line and "divisible by 4" in line
    line = refused(capsys, "final.recipe.stem=imagenet")
    assert "32 x 32 images do not suit the imagenet auxiliary head" in line
    line = refused(capsys, "search.recipe.train_images=2000")
    assert "the training split has only 1437" in line


def test_a_malformed_genotype_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    path.write_text('{"format": "gdas-genotype/1", "normal": [["skip", 0]], "reduce": "fixed"}')
    line = refused(capsys, f"finals.mine.cell.file={path}")
    assert str(path) in line
    assert str(tmp_path / "no.json") in refused(
        capsys, f"finals.mine.cell.file={tmp_path / 'no.json'}"
    )
    cell = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    path.write_text(json.dumps({"format": "gdas-bench201-genotype/1", "cell": cell}))
    line = refused(capsys, f"finals.mine.cell.file={path}")
    assert str(path) in line and "NAS-Bench-201" in line


def test_a_row_that_the_paper_has_not(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "finals.gdas-frc-digits.row.method=GDAZ")
    assert "not in table 1" in line


def test_an_incompatible_output_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text('{"format": "gdas-study/0"}')
    assert "incompatible version" in refused(capsys, "--out", str(tmp_path))


def at_hand(data: Any, split: str) -> str:
    """No ImageNet."""
    if data.name == "imagenet":
        raise InputError("no ImageNet")
    return identity(data, split)


def test_the_report_of_a_study_that_is_not_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "no study there yet" in refused(capsys, "--report", "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_report_of_what_is_there_by_now(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _, _, store = fake_study(tmp_path / "out")  # no job has begun
    before = (store.out / "study.json").read_bytes()
    assert main([TINY, "--report", "--out", str(store.out)]) == 0
    assert "| not run |" in (store.out / "report" / "report.md").read_text()
    assert (store.out / "study.json").read_bytes() == before
    assert f"report: {store.out / 'report' / 'report.html'}" in capsys.readouterr().out


CELL = "finals.v1.cell={searched: both}"


def test_the_report_of_a_study_on_photos_needs_no_photos(tmp_path: Path) -> None:
    settings = tmp_path / "photos.yaml"
    settings.write_text(PHOTOS)
    _, study, store = fake_study(tmp_path / "out", CELL, of=str(settings))
    (job,) = study.of_kind("search")
    store.folder(job).write_result(search_result({"valid/top1": 30.0}))
    words = ["--report", "--out", str(store.out), "--data", str(tmp_path)]
    assert main([str(settings), *words]) == 0
    assert (
        f"| jobs done | 1 of {len(study.jobs)} |"
        in (store.out / "report" / "report.md").read_text()
    )


def test_rough_times_order_the_experiments_sensibly() -> None:
    def hours(name: str, *overrides: str) -> float:
        experiment = load_experiment(name, list(overrides))
        cells = {name: cell.to_json() for name, cell in fixed_cells(experiment).items()}
        study = build_study(experiment, at_hand, cells)
        return sum(estimate.estimated_seconds(job) for job in study) / 3600

    assert hours("smoke") < 0.5 < hours("laptop") < 5 < hours("headline") < hours("paper")
    on_cpu = ["search.recipe.execution=eager",
              "search.resources.gpus=0", "search.resources.device=cpu",
              "proxy.resources.gpus=0", "proxy.resources.device=cpu"]  # fmt: skip
    final = ["final.resources.gpus_per_worker=0", "final.resources.device=cpu",
             "final.resources.backend=gloo"]  # fmt: skip
    assert hours("headline", *on_cpu, *final) * 3600 > plan.DAY_S
