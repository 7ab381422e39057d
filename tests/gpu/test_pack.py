"""The pack for cards runs on a CPU, tiny: nothing is tried for the first time on a card."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gdas.data.arrow import write_images
from tests.bench.search_step import random_images
from tests.gpu import (
    clock,
    compiled,
    exact,
    fast,
    findings,
    page,
    passes,
    problems,
    real,
    right,
    setup,
    shared,
)
from tests.gpu.__main__ import PARTS, main
from tests.gpu.carry import IDENTITY
from tests.gpu.findings import Findings
from tests.gpu.sizes import TRIAL

CPU = torch.device("cpu")


def findings_of(folder: Path, part: str, seconds: float = 3600.0) -> Findings:
    return Findings(folder, part, time.monotonic() + seconds)


def checks(folder: Path, part: str) -> dict[str, Any]:
    found: dict[str, Any] = findings.read(folder)[part]["checks"]
    return found


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in place of CIFAR-10."""
    file = tmp_path_factory.mktemp("carried") / "images.arrow"
    images = random_images(40)
    arrays = images.images_NCHW.numpy(), images.labels_N.numpy()
    write_images(file, *arrays, classes=10, identity=IDENTITY)
    return file


TRITON = "graph"
"""The part that runs in Triton's interpreter, where a step takes half a minute."""


@pytest.mark.slow
def test_the_part_of_graphs_runs(tmp_path: Path, carried: Path) -> None:
    words = ["--device", "cpu", "--minutes", "0.05", "--parts", TRITON, "--out", str(tmp_path)]
    main([*words, "--cifar", str(carried)])
    found = checks(tmp_path, TRITON)
    assert [name for name, of in found.items() if "error" in of] == []
    assert found["search, FRC"]["graph"]["ms"]["n"] == 1


def test_all_parts_run_within_their_time_and_write_the_page(tmp_path: Path, carried: Path) -> None:
    parts = [part for part in PARTS if part != TRITON]
    words = ["--device", "cpu", "--minutes", "0.05", "--parts", ",".join(parts)]
    main([*words, "--out", str(tmp_path), "--cifar", str(carried)])
    results = json.loads((tmp_path / "results.json").read_text())
    assert parts == [part for part in results if part != "about"]
    every = [(name, of) for part in parts for name, of in results[part]["checks"].items()]
    assert [name for name, of in every if "error" in of] == []
    assert all(of for _, of in every), "figures, or why there are none"
    assert "pieces" in results["right"]["checks"]["pieces"], "the first check always runs"
    text = (tmp_path / page.PAGE).read_text()
    assert "Not a measurement" in text
    assert "Not run (no time left): " in text


@pytest.fixture(autouse=True)
def one_profile(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Profiles of a CPU take seconds."""
    monkeypatch.setattr(clock, "PROFILED", 1)
    yield


def test_every_problem_is_solved_rightly_in_float32() -> None:
    every = [(name, build) for name, build, _ in right.networks(TRIAL)]
    every += right.parts(TRIAL)
    assert len(every) > 25
    for name, build in every:
        truth = right.answer(build, problems.TRUTH, CPU)
        found = right.error(right.answer(build, problems.Way(), CPU), truth)
        assert found["gradient"] < 1e-3, name
        assert found["cosine"] > 0.99999, name


def test_an_answer_in_bfloat16_is_seen_to_be_coarse() -> None:
    build = problems.operation("sep_conv_3x3", 1, 4, 2)
    truth = right.answer(build, problems.TRUTH, CPU)
    found = right.error(right.answer(build, problems.WAYS["bfloat16"], CPU), truth)
    assert 1e-4 < found["gradient"] < 0.1


def test_every_operation_goes_back_and_gives_its_gradients() -> None:
    for name, once in passes.operations(TRIAL, CPU):
        out, *gradients = once()
        assert all(torch.isfinite(x).all() for x in (out, *gradients)), name
        assert gradients, name


def test_a_backward_pass_that_varies_is_found() -> None:
    calls = iter(range(100))
    found = passes.repeated(lambda: [torch.tensor(float(next(calls)))], CPU, bfloat16=False)
    assert found["equal"] is False
    found = passes.repeated(lambda: [torch.tensor(1.0)], CPU, bfloat16=True)
    assert found["equal"] is True


def test_every_training_loop_yields() -> None:
    for name, run in exact.loops(TRIAL, CPU).items():
        assert next(run(None)).state is not None, name


def test_a_loop_that_varies_is_found() -> None:
    run = exact.text_training(TRIAL, CPU)
    found = exact.same(run)
    assert found["again"] == [True, True]
    assert found["resumed"] is True
    seeds = iter(range(100))
    found = exact.same(lambda state: exact.text_training(TRIAL, CPU, seed=next(seeds))(state))
    assert found["again"] == [False, False]
    assert found["again, difference"]["by up to"] > 0


def test_steps_are_timed_beside_the_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = findings_of(tmp_path, "fast")
    profile = {"kernels": 1.0, "kernel_ms": 1.0, "waiting": 0.5, "top": [], "calls": {}}
    monkeypatch.setattr(clock, "kernels", lambda *_, **__: dict(profile))
    of.take("search", lambda: fast._search(of, CPU, TRIAL, 4, "fixed"))
    of.take("kernels", lambda: fast._search_kernels(of, CPU, TRIAL, {}))
    of.take("acceleration", lambda: fast._acceleration(of, CPU, TRIAL))
    of.take("training", lambda: fast._training(of, CPU, TRIAL, photos=False))
    of.take("photos", lambda: fast._training(of, CPU, TRIAL, photos=True))
    of.take("language", lambda: fast._language(of, CPU, TRIAL))
    of.take("recurrent", lambda: fast._recurrent(of, CPU, TRIAL))
    of.take("settings", lambda: fast._settings(of, CPU, TRIAL))
    found = checks(tmp_path, "fast")
    assert [of["error"] for of in found.values() if "error" in of] == []
    assert found["training"]["ways"]["ours"]["times_faster"] > 0
    assert found["acceleration"]["time"] > 1
    assert "images/s" in page.render(findings.read(tmp_path))


def test_kernels_are_counted() -> None:
    x = torch.ones(200, 200)
    found = clock.kernels((lambda _: x @ x,), CPU, ms=1.0)
    assert found["top"][0][0] == "aten::mm"
    assert found["top"][0][2] == 1


def test_what_compiling_gains_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["compiled", "language", "--device", "cpu"])
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    compiled.main()
    assert json.loads(capsys.readouterr().out)["ways"]["ours, compiled"]["ms"]["n"] == 2


def test_a_seed_answers_with_its_rate() -> None:
    worker = shared.start(CPU, 0, "float32")
    try:
        assert shared._answer(worker) == "ready"
        assert shared.together([worker], 0.1)["steps_a_second"] > 0
    finally:
        worker.kill()
        worker.wait()


def test_a_real_search_has_a_curve_and_without_data_it_says_so(
    tmp_path: Path, carried: Path
) -> None:
    real.run(findings_of(tmp_path, "real"), CPU, TRIAL, carried)
    found = checks(tmp_path, "real")["search on CIFAR-10"]
    assert len(found["curve"]) == 1
    assert found["cell_top1"] >= 0
    real.run(findings_of(tmp_path, "real"), CPU, TRIAL, tmp_path / "nothing")
    assert "no data" in checks(tmp_path, "real")["search on CIFAR-10"]["not_run"]


def test_a_failed_check_is_kept_and_the_next_one_runs(tmp_path: Path) -> None:
    of = findings_of(tmp_path, "right")
    assert of.take("bad", lambda: {"x": 1 / 0}) is None
    assert of.take("good", lambda: {"x": float("nan")}) is not None
    found = checks(tmp_path, "right")
    assert found["bad"]["error"].startswith("ZeroDivisionError")
    assert "test_pack.py" in "".join(found["bad"]["at"])
    assert found["good"]["x"] == "nan"
    late = Findings(tmp_path, "exact", time.monotonic() - 1)
    late.take("late", lambda: {})
    assert checks(tmp_path, "exact")["late"] == {"not_run": "no time left"}


def test_a_part_in_a_process_of_its_own_is_read_back(tmp_path: Path) -> None:
    nothing = str(tmp_path / "nothing")
    line = ["--device", "cpu", "--minutes", "1", "--out", str(tmp_path), "--cifar", nothing]
    main([*line, "--parts", "real", "--isolate"])
    assert "no data" in (tmp_path / page.PAGE).read_text()


def test_contenders_draw_the_same_architectures() -> None:
    """Ours and the plain baseline begin with one loss: they are the same network."""
    images = setup.search_images(TRIAL, 4)
    config = setup.search_config(TRIAL, 4, "searched")
    ours = setup.search_steps(config, images, CPU)[0](0)
    plain = setup.plain_search_steps(config, images, CPU)[0](0)
    assert float(plain) == pytest.approx(float(ours.loss.detach()), rel=1e-4)  # type: ignore[attr-defined,arg-type]


def test_the_page_is_that_of_the_results_beside_it() -> None:
    folder = Path(__file__).parent
    assert (folder / page.PAGE).read_text() == page.render(findings.read(folder))
