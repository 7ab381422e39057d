"""A finished final's network in a file of another program, and its labels for photos."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import gdas.cnn.export
from gdas.checkpoint import Segment, save
from gdas.cnn.config import TrainConfig
from gdas.cnn.train import build_network
from gdas.data.augment import normalise
from gdas.data.digits import digits
from gdas.data.images import open_images
from gdas.errors import InputError
from gdas.genotype import any_from_json
from orchestrator import cell, export, predict
from orchestrator.driver.finals import open_final
from orchestrator.experiment.build import settings_of
from orchestrator.experiment.study import Job
from orchestrator.store.failure import note_failure, write_failure
from orchestrator.store.recorded import open_recorded
from orchestrator.store.results import FinalResult
from tests.narrow import present
from tests.orchestrator.fake_study import fake_study
from tests.readme import blocks

YAML = """
finals:
  gdas-frc-digits:
    seeds: [0]
    cell: {published: GDAS_F1}
    recipe:
      {data: {name: digits}, channels: 4, normals_per_block: 1, epochs: 1, auxiliary_weight: 0.4}
  twice: {seeds: [0, 1], cell: {published: GDAS_F1}, recipe: {data: {name: digits}}}
  words: {cell: {published: RNN_GDAS}, recipe: {data: {name: prose}}}
"""
"""The network has an auxiliary head, which no file has a use for."""


def finished(where: Path, data: Path) -> Job:
    """A study in `where`/runs/smoke whose first final is done, with the weights it began with."""
    from orchestrator.experiment.load import load_experiment
    from orchestrator.run.checks import fixed_cells

    (where / "three.yaml").write_text(YAML)
    out, of = where / "runs" / "smoke", str(where / "three.yaml")
    cells = fixed_cells(load_experiment(of, []))
    _, study, store = fake_study(out, of=of, cells={k: c.to_json() for k, c in cells.items()})
    (job,) = study.final("gdas-frc-digits")
    folder = store.prepare(job, {"data": str(data)})
    genotype = cells["gdas-frc-digits"].to_json()
    config = TrainConfig(channels=4, normals_per_block=1, epochs=1)
    network = build_network(config, any_from_json(genotype), 10)  # type: ignore[arg-type]
    with torch.no_grad():  # statistics and a classifier as of a trained network
        images = open_images("digits", "train", data).images_NCHW[:64]
        network.train()(normalise(images, config.data))
        network.classifier.weight.mul_(20)
    save(folder.checkpoints, Segment(1, 1, {}, {}, {"weights": network.state_dict()}), [])
    result: FinalResult = {
        "digest": "",
        "genotype": genotype,
        "provenance": {"source": "published", "genotype": genotype},
        "metrics": {"test/top1": 12.5},
        "best": {"epoch": 1},
        "workers": 1,
        "seconds": 1.0,
        "parameters": 7,
    }
    folder.write_result(result)
    return job


@pytest.fixture
def study(tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The working directory has it in runs/smoke."""
    monkeypatch.chdir(tmp_path)
    open_images("digits", "test", data_folder)
    finished(tmp_path, data_folder)
    return "runs/smoke:gdas-frc-digits"


def photos(folder: Path, count: int = 3) -> list[int]:
    """Test digits as PNG files, in two folders; returns what they show."""
    (folder / "more").mkdir(parents=True)
    pixels, labels = digits("test")
    for i in range(count):
        name = folder / ("more" if i == count - 1 else ".") / f"{i}.png"
        Image.fromarray(pixels[i].transpose(1, 2, 0)).save(name)
    return [int(label) for label in labels[:count]]


def scores_of(study: str, count: int) -> Tensor:
    return torch.from_numpy(open_final(study, []).model.predict(digits("test")[0][:count]))


def test_weights_and_what_they_mean_are_in_one_file(
    study: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main([study, "--to", "net.safetensors"]) == 0
    assert "on 16 test images its scores are the network's" in capsys.readouterr().out
    final = open_final(study, [])
    again = build_network(final.config, any_from_json(final.about["genotype"]), 10)  # type: ignore[arg-type]
    again.load_state_dict(load_file("net.safetensors"))
    pixels = torch.from_numpy(digits("test")[0][:4])
    with torch.no_grad():
        found = again.eval()(normalise(pixels, final.config.data))[0]
    torch.testing.assert_close(found, scores_of(study, 4))
    head = Path("net.safetensors").read_bytes()
    header = json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")])
    about = json.loads(header["__metadata__"]["gdas"])
    assert about["labels"] == list("0123456789") and about["metrics"] == {"test/top1": 12.5}
    assert about["settings"] == json.loads(json.dumps(settings_of(final.config)))
    assert about["input"]["shape"] == ["batch", 3, 32, 32]
    Path("ours").touch()
    assert Path("net.safetensors").stat().st_mode == Path("ours").stat().st_mode, (
        "as the umask says"
    )


def test_a_file_with_other_scores_is_not_written(
    study: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(scores: Any, path: Path, images: Tensor, metadata: str) -> None:
        weights = {k: w.clone() for k, w in scores.network.state_dict().items()}
        weights["classifier.bias"] += 0.1
        save_file(weights, path)

    load = gdas.cnn.export.WAYS[".safetensors"][1]
    monkeypatch.setitem(gdas.cnn.export.WAYS, ".safetensors", (wrong, load))
    assert export.main([study, "--to", "net.safetensors"]) == 2
    assert "so it was not written" in capsys.readouterr().err
    assert list(Path().glob("*net*")) == [], "nothing is left"


def test_a_moved_study_is_checked_on_random_images_and_says_so(
    study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main([study, "--to", "n.safetensors", "--data", str(tmp_path / "gone")]) == 0
    assert "on 16 random images, since" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs/smoke:gdas-frc-digits", "--to", "net.h5"], "must end with .onnx, .pt2"),
        (["runs/smoke:gdas-frc-digit", "--to", "n.pt2"], "did you mean gdas-frc-digits?"),
        (["runs/smoke:twice", "--to", "n.pt2"], "name one of twice-seed0, twice-seed1"),
        (["runs/smoke:twice-seed1", "--to", "n.pt2"], "train-twice-seed1: is not finished"),
        (["runs/smoke", "--to", "n.pt2"], "must be OUT:FINAL"),
        (["runs/smoke:words", "--to", "n.onnx"], "is a language model"),
        (
            ["runs/smoke:gdas-frc-digits", "--to", "no/n.pt2"],
            "there is no folder no;",
        ),
        (["runs/smoke:gdas-frc-digits", "--to", "n.safetensors", "--pixels"], "weights alone"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_line(
    study: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main(words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_final_that_failed_says_so_and_why(
    study: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store, jobs = open_recorded("runs/smoke")
    (job,) = (job for job in jobs if job.name == "twice-seed1")
    place = store.prepare(job, {"data": ""}).place
    write_failure(place, "FloatingPointError: epoch 2: train/loss is nan", "", "diverged")
    note_failure(place, "", "diverged", 1, again=False)
    for command in (export, predict):
        Path("photos").mkdir(exist_ok=True)
        Path("photos/1.png").touch()
        more = ["--to", "n.pt2"] if command is export else ["photos"]
        assert command.main(["runs/smoke:twice-seed1", *more]) == 2
        error = capsys.readouterr().err
        assert "train-twice-seed1: failed (FloatingPointError: epoch 2" in error
        assert "not tried again" in error and error.endswith("add --only train-twice-seed1\n")


def test_a_final_that_was_copied_without_its_checkpoints_says_so(
    study: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its result says done, so the study's command leaves it as it is."""
    (folder,) = Path("runs/smoke/jobs").glob("train-gdas-frc-digits-*")
    shutil.rmtree(folder / "checkpoints")
    assert export.main([study, "--to", "net.pt2"]) == 2
    error = capsys.readouterr().err
    assert f"is done, but its checkpoints are not in {folder.resolve()}, as in a copy" in error
    assert "copy them from where it was trained, or delete that folder and run" in error


def test_photos_get_labels(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    photos(Path("photos"))
    assert predict.main([study, "photos", "--to", "labels.csv"]) == 0
    assert "3 photos" in capsys.readouterr().out
    head, *rows = [line.split(",") for line in Path("labels.csv").read_text().splitlines()]
    assert head[:4] == ["file", "label", "probability", "p(0)"] and len(head) == 13
    wanted = scores_of(study, 3).double().softmax(1)
    assert [row[0] for row in rows] == ["0.png", "1.png", "more/2.png"]
    for row, p_K in zip(rows, wanted, strict=True):
        assert row[1] == str(int(p_K.argmax())) and float(row[2]) == max(map(float, row[3:]))
        assert [float(p) for p in row[3:]] == pytest.approx(p_K.tolist(), abs=1e-5)
    assert predict.main([study, "photos", "--to", "labels.json"]) == 0
    values = json.loads(Path("labels.json").read_text())
    assert [value["label"] for value in values] == [row[1] for row in rows]
    assert sum(values[0]["probabilities"].values()) == pytest.approx(1)


ODD = "p\udce4st \\xe4.png"
"""A name in Latin-1, as an old archive leaves it, with a backslash that is no escape."""


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_names_that_are_no_utf_8_are_written_without_loss(
    study: str, ending: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(Path("photos"), 1)
    Path("photos/more/0.png").rename(Path("photos") / ODD)
    Path("photos/\udcfc.jpg").write_bytes(b"\xff\xd8\xff")
    labels = ["\udce4", *"123456789"]  # as a conversion of an earlier version has them
    monkeypatch.setattr("orchestrator.driver.finals.LABELS", {})
    monkeypatch.setattr("orchestrator.driver.finals.PhotoData", object)
    monkeypatch.setattr(
        "orchestrator.driver.finals.open_index", lambda *_: SimpleNamespace(classes=labels)
    )
    assert predict.main([study, "photos", "--to", f"labels.{ending}"]) == 1
    assert "\\xfc.jpg: cannot be read" in capsys.readouterr().err
    text = Path(f"labels.{ending}").read_text(encoding="utf-8")
    if ending == "csv":
        (head, row) = csv.reader(text.splitlines())
        assert row[0] == r"p\xe4st \x5cxe4.png" and head[3] == r"p(\xe4)"
        assert predict.main([study, "photos"]) == 1
        assert capsys.readouterr().out == text
        assert predict.main([study, "photos", "--to", "l\udce4.csv"]) == 1
        assert Path("l\udce4.csv").read_text() == text
    else:
        (value,) = json.loads(text)
        assert value["file"] == r"p\xe4st \x5cxe4.png" and r"\xe4" in value["probabilities"]


def test_what_was_labelled_is_kept_if_the_command_is_interrupted(
    study: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(Path("photos"))
    every = predict.predictions

    def interrupted(*given: Any) -> Iterator[predict.Labelled]:
        yield from list(every(*given))[:2]
        raise KeyboardInterrupt

    assert predict.main([study, "photos", "--to", "whole.csv"]) == 0
    monkeypatch.setattr(predict, "predictions", interrupted)
    for ending in ("csv", "json"):
        capsys.readouterr()
        assert predict.main([study, "photos", "--to", f"labels.{ending}"]) == 130
        assert f"2 of 3 photos are labelled: labels.{ending}.partial" in capsys.readouterr().err
        assert not Path(f"labels.{ending}").exists()
    kept = Path("labels.csv.partial").read_text().splitlines()
    assert kept == Path("whole.csv").read_text().splitlines()[:3]
    assert len(json.loads(Path("labels.json.partial").read_text())) == 2


def test_a_file_that_cannot_be_is_refused_before_the_study_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.csv").mkdir()
    assert predict.main(["nowhere:x", ".", "--to", "no/labels.csv"]) == 2
    assert "--to no/labels.csv: there is no folder no; make it" in capsys.readouterr().err
    assert predict.main(["nowhere:x", ".", "--to", "x.csv"]) == 2
    assert "--to x.csv: is a folder" in capsys.readouterr().err
    for what, name in (("draw", "cell.svg"), ("convert", "cell.json")):
        assert cell.main([what, "nowhere", "--to", f"no/{name}"]) == 2
        assert f"--to no/{name}: there is no folder no" in capsys.readouterr().err


def test_a_damaged_photo_is_named_and_the_others_get_their_labels(
    study: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(Path("photos"))
    Path("photos/z.jpg").write_bytes(b"\xff\xd8\xff")
    Path("photos/notes.txt").write_text("no photo")
    assert predict.main([study, "photos"]) == 1
    told = capsys.readouterr()
    assert "z.jpg: cannot be read" in told.err and told.out.count("\n") == 4
    assert predict.main([study, "nowhere"]) == 2
    Path("empty").mkdir()
    assert predict.main([study, "empty"]) == 2


@pytest.mark.slow
def test_the_page_loads_them(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Both files give the network's scores, in batches of any size, outside this package."""
    assert export.main([study, "--to", "net.onnx", "--pixels"]) == 0
    assert export.main([study, "--to", "net.pt2"]) == 0
    told = re.findall(r"its scores are the network's to ([0-9e.-]+)\n", capsys.readouterr().out)
    assert len(told) == 2 and max(map(float, told)) < 1e-4
    found = [block for block in blocks("python") if '"net.' in block]
    assert len(found) == 2
    pixels = digits("test")[0][:5]
    for block in found:
        used = re.sub(r"(np|torch)\.zeros\(.*\)", "PIXELS", block)
        assert used != block
        given = pixels if "onnxruntime" in block else torch.from_numpy(pixels)
        names: dict[str, Any] = {"given": given}
        exec(used.replace("PIXELS", "given"), names)
        scores = torch.as_tensor(names["scores"]).detach()
        torch.testing.assert_close(scores, scores_of(study, 5), rtol=1e-4, atol=1e-4)


def test_a_missing_package_is_named(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    final = open_final(study, [])
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(InputError, match="pip install onnx onnxscript onnxruntime"):
        gdas.cnn.export.export(
            final.model.network, Path("n.safetensors"), torch.zeros(2, 3, 32, 32), {}
        )
    assert present(final.about["parameters"]) == 7
