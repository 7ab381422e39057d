"""What commands say of the kernels and the precision of jobs on this machine."""

from __future__ import annotations

from typing import Any

import pytest

from gdas.cnn.fused import build
from orchestrator.experiment.build import build_study
from orchestrator.experiment.load import load_experiment
from orchestrator.experiment.study import Study
from orchestrator.terminal.arithmetic import arithmetic, has_matrix_unit, say_arithmetic
from tests.orchestrator.test_study import identity


def study(*overrides: str, of: str = "smoke") -> Study:
    return build_study(load_experiment(of, list(overrides)), identity, {})


def lines(study: Study) -> list[str]:
    return [finding.line() for finding in arithmetic(study)]


def with_library(monkeypatch: pytest.MonkeyPatch, library: Any, words: str) -> None:
    monkeypatch.setattr(build, "kernels", lambda: build.Kernels(library, words))


def test_which_kernels_there_are_and_how_to_get_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    smoke = study()
    asking = sum(job.fused for job in smoke)
    assert 0 < asking < len(list(smoke)), "searches on text have no such kernels"
    with_library(monkeypatch, object(), "compiled by c++ 12 for this processor, /cache/k.so")
    (found,) = lines(smoke)
    assert found.startswith(f"ok    kernels: fused for {asking} jobs (compiled by c++ 12")
    assert "kernels=plain" in found
    with_library(
        monkeypatch, None, "there is no C++ compiler; install one (such as apt install g++)"
    )
    (found,) = lines(smoke)
    assert found.startswith("note  kernels: plain PyTorch") and found.endswith("apt install g++)")
    say_arithmetic(smoke)
    assert capsys.readouterr().out == found.removeprefix("note  ") + "\n"


def test_no_word_of_kernels_where_no_job_asks_for_them() -> None:
    assert lines(study(of="headline")) == [], "its jobs are for GPUs"


def test_bfloat16_is_noted_where_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    with_library(monkeypatch, object(), "")  # none is compiled for a processor of the test's
    slow = study("search.recipe.precision=bfloat16", "search.recipe.kernels=plain")
    monkeypatch.setattr(build, "processor", lambda: "x86_64\nflags : fma avx512f avx512_bf16")
    (note,) = [line for line in lines(slow) if "bfloat16" in line]
    assert note.startswith("note") and note.endswith("-> precision=float32")
    assert not [line for line in lines(study()) if "bfloat16" in line]
    monkeypatch.setattr(build, "processor", lambda: "x86_64\nflags : avx512f amx_bf16 amx_tile")
    assert not [line for line in lines(slow) if "bfloat16" in line]


def test_matrix_units_by_their_names() -> None:
    assert has_matrix_unit("aarch64\nFeatures : fp asimd svebf16 i8mm")
    assert has_matrix_unit("aarch64\nFeatures : fp asimd bf16")
    assert not has_matrix_unit("x86_64\nflags : avx512_bf16 avx512f")
