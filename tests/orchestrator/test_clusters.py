"""What a cluster of some size would do with an experiment, from the plan alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from gdas.errors import InputError
from orchestrator import reproduce_paper
from orchestrator.cost.clusters import critical_path, page, rows, spans_of, whole_study
from orchestrator.cost.estimate import Estimator
from orchestrator.experiment.load import load_experiment
from orchestrator.experiment.study import Study
from orchestrator.store.store import Store
from tests.orchestrator.fake_study import record

ROOT = Path(__file__).resolve().parents[2]


def study() -> Study:
    return whole_study(load_experiment("paper", []), Path("none"))


def hours(found: Study, **of_kind: float) -> dict[str, float]:
    return {job.id: 3600 * of_kind.get(job.kind, 0.0) for job in found}


def test_all_of_the_paper_is_there_whatever_data_are_at_hand() -> None:
    found = study()
    assert found.left_out == {}
    assert {job.cost["GPU"] for job in found if job.label.endswith("imagenet")} == {4.0}


def test_the_critical_path_is_the_longest_chain_and_no_cluster_is_faster() -> None:
    found = study()
    spans = hours(found, search=4, proxy=2, train=20, measure=1)
    path = [job.kind for job in critical_path(found, spans)]
    assert path == ["search", "proxy", "select", "train"]
    few, many = rows(found, spans, [4, 100_000])
    assert many.seconds == 26 * 3600 and few.seconds > many.seconds
    held = sum(spans[job.id] * job.cost["GPU"] for job in found)
    for row in (few, many):
        assert row.use == pytest.approx(held / (row.seconds * row.gpus))
    assert 0.5 < few.use <= 1 and many.use < 0.01


def test_the_page_has_a_line_a_size_and_the_chain_that_decides() -> None:
    found = study()
    lines = page(found, hours(found, search=4, proxy=2, train=20, measure=1), [4, 32])
    assert lines[2].startswith("| 4 | ") and lines[3].startswith("| 32 | ")
    said = next(line for line in lines if line.startswith("The shortest possible"))
    assert said.startswith("The shortest possible: 26 hours, by search-")
    assert "| final training | 2 | 4 | 20.0 to 20.0 | 160 |" in lines


def test_too_few_gpus_and_other_bad_input_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    found = study()
    with pytest.raises(InputError, match="--gpus 2: train-gdas-imagenet needs 4"):
        rows(found, hours(found, train=1), [2])
    for words, said in {
        "paper --dry-run --gpus four": "--gpus four: must be whole numbers above 0",
        "paper --dry-run --gpus 4,0": "--gpus 4,0: must be whole numbers above 0",
        "paper --dry-run --gpus 4 --faster 0": "--faster 0: must be above 0",
        "smoke --dry-run --gpus 4": "--gpus: no job of this experiment uses a GPU",
        "paper --dry-run --faster 2": "--faster: goes with --gpus",
        "paper --gpus 4": "--gpus: goes with --dry-run",
        "smoke --price 2": "--price: goes with --dry-run",
    }.items():
        assert reproduce_paper.main(words.split()) == 2
        assert capsys.readouterr().err.startswith(f"error: {said}"), words


def test_a_dry_run_says_what_clusters_would_do_with_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Photos need not be at hand; a recorded pace is no guess, which `--faster` divides."""
    words = ["paper", "--dry-run", "--gpus", "4,32", "--out", str(tmp_path / "none")]
    assert reproduce_paper.main([*words, "--only", "train-gdas-imagenet", "--price", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("| over the shortest | at 2 an hour |")
    four, many = ([float(c.strip(" %").replace(",", "")) for c in line.split("|")[1:-1]]
                  for line in lines[2:4])  # fmt: skip
    assert four[0] == 4 and many[0] == 32
    assert four[5] == pytest.approx(2 * four[2], abs=2) and many[5] > four[5]
    assert any(line.startswith("| final training | 1 | 4 |") for line in lines)
    assert lines[-1].startswith("next: python -m orchestrator.reproduce_paper paper --dry-run -")
    assert not (tmp_path / "none").exists()
    found = whole_study(load_experiment("headline", []), tmp_path)
    slow, fast = (spans_of(found, Estimator(), faster) for faster in (1.0, 2.0))
    train = next(job for job in found if job.kind == "train")
    start = 2.0
    assert slow[train.id] - start == pytest.approx(2 * (fast[train.id] - start))
    store = Store(tmp_path / "out")
    epochs = train.recipe["config"]["epochs"]
    for position in (1, 2):
        store.prepare(train, {"data": "", "selections": ""}).append_record(
            record(position, epochs, seconds=10.0)
        )
    for faster in (1.0, 2.0):
        spans = spans_of(found, Estimator(store), faster)
        assert spans[train.id] == pytest.approx(start + 10.0 * (epochs - 2))


def test_the_page_of_the_repository_is_what_the_command_prints() -> None:
    found = study()
    lines = page(found, spans_of(found, Estimator(), 1.0), [4, 32, 256])
    assert "\n".join(lines) in (ROOT / "cluster" / "scale.md").read_text()
