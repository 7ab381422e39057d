"""`kernels`: part of a job's id; what really ran is in its records, and the report says so."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gdas.cnn.config import SearchConfig
from gdas.cnn.fused import build
from gdas.cnn.fused.choice import chosen
from orchestrator.cost.plan import say_standings
from orchestrator.experiment.build import build_study, settings_of
from orchestrator.experiment.load import load_experiment
from orchestrator.experiment.study import Study
from orchestrator.report.parts import markdown_of
from orchestrator.report.times import times
from orchestrator.report.view import Results
from orchestrator.work.body import open_job, run_to_end
from tests.orchestrator.fake_study import fake_study, record
from tests.orchestrator.test_storage import counting
from tests.orchestrator.test_study import identity

REASON = "there is no C++ compiler; install one (such as apt install g++)"


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls decide from now on whether this machine has the kernels."""

    def decide(*, here: bool) -> None:
        found = build.Kernels(object() if here else None, "compiled" if here else REASON)  # type: ignore[arg-type]
        monkeypatch.setattr(build, "kernels", lambda: found)

    return decide


def study(*overrides: str) -> Study:
    return build_study(load_experiment("smoke", list(overrides)), identity, {})


def ids(study: Study, kind: str) -> list[str]:
    return [job.id for job in study.of_kind(kind)]


def test_the_setting_is_in_the_ids_of_the_jobs_that_have_it() -> None:
    assert settings_of(SearchConfig())["kernels"] == "fused"
    fused, plain = study(), study("search.recipe.kernels=plain")
    on_images = [job for job in fused.of_kind("search") if job.recipe["config"]["task"] == "image"]
    assert len(on_images) > 3 and not {job.id for job in on_images} & set(ids(plain, "search"))
    proxies = [job for job in fused.of_kind("proxy") if "genotype" in job.recipe]
    assert proxies and all("kernels" not in job.recipe["search"] for job in proxies)
    assert all(job.recipe["config"]["kernels"] == "fused" for job in proxies)
    assert ids(fused, "measure") == ids(plain, "measure"), "a measurement is in plain PyTorch"


def test_fused_kernels_are_for_float32_on_a_cpu_with_a_compiler(compiler: Any) -> None:
    compiler(here=True)
    assert chosen("fused", "cpu", "float32") == "fused"
    assert chosen("plain", "cpu", "float32") == "plain"
    assert chosen("fused", "cuda", "float32") == "plain"
    assert chosen("fused", "cpu", "bfloat16") == "plain"
    assert chosen("fused", "cpu", "float32", compiled=True) == "plain"
    compiler(here=False)
    assert chosen("fused", "cpu", "float32") == "plain"


def test_a_job_that_goes_on_with_other_kernels_says_so(
    tmp_path: Path, compiler: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, made, store = fake_study(tmp_path)
    folder = store.folder(made.of_kind("search")[0])
    compiler(here=True)
    with open_job(folder.address) as opened:
        first = next(counting(checkpoint=None))
        run_to_end(opened.folder, lambda *, checkpoint: iter([first]), kernels=opened.kernels)
    assert [r.get("kernels") for r in folder.records()] == ["fused"]
    assert "segment" not in capsys.readouterr().err
    compiler(here=False)
    say_standings(made, store)
    (standing,) = [s for s in capsys.readouterr().out.splitlines() if "goes on after epoch 1" in s]
    assert "segment 1 ran with fused kernels" in standing and standing.endswith(REASON)
    with open_job(folder.address) as opened:
        run_to_end(opened.folder, counting, kernels=opened.kernels)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "segment 1 ran with fused kernels" in said and REASON in said
    assert {r.get("kernels") for r in folder.records()[1:]} == {"plain"}


def test_the_report_lists_what_ran_without_the_kernels_that_were_asked_for(tmp_path: Path) -> None:
    experiment, made, store = fake_study(tmp_path, of="smoke")
    whole, part, text = (
        next(job for job in made if job.kind == kind and job.fused == fused)
        for kind, fused in (("search", True), ("train", True), ("search", False))
    )
    for position, kernels in ((1, "fused"), (2, "plain"), (3, "plain")):
        store.folder(whole).append_record(record(position) | {"kernels": "fused"})
        store.folder(part).append_record(record(position) | {"kernels": kernels})
        store.folder(text).append_record(record(position))
    said = markdown_of(times(Results(experiment, made, store)))
    assert "fused 1 to 1, plain 2 to 3" in said
    (line,) = [line for line in said.splitlines() if line.startswith("Asked for fused kernels")]
    assert part.name in line and whole.name not in line and text.name not in line


def test_plain_was_asked_for_and_is_no_news(tmp_path: Path) -> None:
    experiment, made, store = fake_study(tmp_path, "search.recipe.kernels=plain")
    (job, *_) = made.of_kind("search")
    store.folder(job).append_record(record(1) | {"kernels": "plain"})
    assert not job.fused
    assert "Asked for" not in markdown_of(times(Results(experiment, made, store)))
    assert dataclasses.asdict(experiment)["searches"]["frc"]["recipe"]["kernels"] == "plain"
