"""The command doctor: what is right, and the fix of what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import doctor
from orchestrator.cost.estimate import estimated_bytes
from orchestrator.driver import doctor as examining
from orchestrator.experiment.build import build_study
from orchestrator.experiment.load import load_experiment
from tests.orchestrator.command_output import Capture
from tests.orchestrator.test_study import identity

pytestmark = pytest.mark.usefixtures("elsewhere")

# doctor


def test_doctor_of_the_smoke_experiment_is_content(capsys: Capture, tmp_path: Path) -> None:
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    for line in ("digits: built in", "search-gdas-frc-seed0 and 3 alike", "torch ", "GiB free"):
        assert line in out
    assert out.splitlines()[-1] == "next: python -m orchestrator.reproduce_paper smoke"
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_doctor_names_the_fix_of_what_is_bad(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / name).write_bytes(b"not it")
    (tmp_path / "file").write_text("")
    words = ["laptop", "--data", "data", "--out", "file/out", "search.resources.cpus=4000"]
    assert doctor.main([*words, "mlflow.tracking_uri=http://127.0.0.1:9"]) == 1
    bad = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  BAD")]
    assert all(" -> " in line for line in bad)
    text = "\n".join(bad)
    for word in (
        "data_batch_1: is not the published file",
        "127.0.0.1:9: [Errno 111] Connection refused",
        "file/out: cannot write",
    ):
        assert word in text
    assert "more cores than here: lower searches.*.resources" in text


def test_doctor_looks_where_the_command_would(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert doctor.main(["--data", "none", "--out", "s3://bucket/runs"]) == 1
    out = capsys.readouterr().out
    assert "BAD   --data none: no such folder -> mkdir none" in out
    assert "BAD   --out s3://bucket/runs: cannot be written to" in out
    assert list(tmp_path.iterdir()) == []


def test_doctor_finds_a_package_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "version", lambda name: "1.0" if name == "torch" else "99")
    found = {one.what.split()[0]: one for one in examining.versions()}
    assert found["torch"].level == "BAD" and found["torch"].fix.startswith("pip install 'torch")


def test_the_memory_estimate_grows_with_the_batch_and_with_all_operations() -> None:
    def estimate(*overrides: str) -> dict[str, float]:
        study = build_study(load_experiment("smoke", list(overrides)), identity, {})
        return {job.label: estimated_bytes(job) for job in study}

    plain, larger = estimate(), estimate("search.recipe.batch_size=256")
    assert larger["search-gdas-frc-seed0"] > 1.1 * plain["search-gdas-frc-seed0"]
    assert plain["measure-acceleration"] > 1.1 * plain["search-gdas-frc-seed0"]
    assert plain["train-gdas-rnn-prose"] > 0 and plain["select-gdas-frc"] == 0
