"""What a cluster of some size would do with an experiment, from the plan alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from gdas.errors import InputError
from orchestrator import scale
from orchestrator.experiment.load import load_experiment
from orchestrator.experiment.study import Study

ROOT = Path(__file__).resolve().parents[2]


def study() -> Study:
    return scale.whole_study(load_experiment("paper", []))


def hours(found: Study, **of_kind: float) -> dict[str, float]:
    return {job.id: 3600 * of_kind.get(job.kind, 0.0) for job in found}


def test_all_of_the_paper_is_there_whatever_data_are_at_hand() -> None:
    found = study()
    assert found.left_out == {}
    assert {job.cost["GPU"] for job in found if job.label.endswith("imagenet")} == {4.0}


def test_the_critical_path_is_the_longest_chain_and_no_cluster_is_faster() -> None:
    found = study()
    spans = hours(found, search=4, proxy=2, train=20, measure=1)
    path = [job.kind for job in scale.critical_path(found, spans)]
    assert path == ["search", "proxy", "select", "train"]
    few, many = scale.rows(found, spans, [4, 100_000])
    assert many.seconds == 26 * 3600 and few.seconds > many.seconds
    held = sum(spans[job.id] * job.cost["GPU"] for job in found)
    for row in (few, many):
        assert row.use == pytest.approx(held / (row.seconds * row.gpus))
    assert 0.5 < few.use <= 1 and many.use < 0.01


def test_the_page_has_a_line_a_size_and_the_chain_that_decides() -> None:
    found = study()
    lines = scale.page(found, hours(found, search=4, proxy=2, train=20, measure=1), [4, 32])
    assert lines[2].startswith("| 4 | ") and lines[3].startswith("| 32 | ")
    said = next(line for line in lines if line.startswith("The shortest possible"))
    assert said.startswith("The shortest possible: 26 hours, by search-")
    assert "| final training | 2 | 4 | 20.0 to 20.0 | 160 |" in lines


def test_too_few_gpus_and_other_bad_input_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    found = study()
    with pytest.raises(InputError, match="--gpus 2: train-gdas-imagenet needs 4"):
        scale.rows(found, hours(found, train=1), [2])
    for words in (["--gpus", "four"], ["--gpus", "0"], ["--faster", "0"], ["smoke"]):
        assert scale.main(words) == 2
        assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.slow
def test_the_page_of_the_repository_is_what_the_command_prints() -> None:
    found = study()
    lines = scale.page(found, scale.spans_of(found, 1.0), [4, 32, 256])
    assert "\n".join(lines) in (ROOT / "cluster" / "scale.md").read_text()
