"""The table of NAS-Bench-201 from a file of the benchmark's layout, read without running it."""

from __future__ import annotations

import csv
import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gdas.bench201 import extract
from gdas.bench201.genotype import ACCURACIES, CELLS, CLASSES, bench201_cell
from gdas.bench201.table import read_table
from gdas.errors import InputError

SPLITS = {
    "full": {
        "cifar10": ["ori-test"],
        "cifar100": ["x-valid", "x-test"],
        "ImageNet16-120": ["x-test"],
    },
    "less": {"cifar10-valid": ["x-valid", "ori-test"], "cifar10": ["ori-test"]},
}
LAST = {"full": 199, "less": 11}


def trainings(which: str, base: float) -> dict[str, Any]:
    """A cell's trainings, as the benchmark's program keeps them; two seeds on cifar10-valid."""
    results = OrderedDict()
    for images, splits in SPLITS[which].items():
        for seed in (777, 888) if images == "cifar10-valid" else (777,):
            accuracies = {
                f"{split}@{epoch}": base + len(images) / 10 + seed / 1000 + (epoch == LAST[which])
                for split in splits
                for epoch in (0, LAST[which])
            }
            results[images, seed] = {
                "name": "infer.tiny",
                "net_state_dict": None,
                "eval_acc1es": accuracies,
                "params": np.float64(0.1),  # the benchmark counts with numpy
                "seed": np.int64(seed),
            }
    return {"arch_index": 0, "all_results": results, "dataset_seed": {"cifar10": [777]}}


@pytest.fixture(scope="module")
def benchmark() -> dict[str, Any]:
    """All cells, the last first; a cell's accuracies are about 10 and more, by its number."""
    numbers = range(CELLS - 1, -1, -1)
    same = {n: {w: trainings(w, n / 1000) for w in SPLITS} for n in range(0, CELLS, 125)}
    infos = {i: same[n - n % 125] for i, n in enumerate(numbers)}
    return {"meta_archs": [str(bench201_cell(n)) for n in numbers], "arch2infos": infos}


def test_the_table_has_the_means_over_seeds_after_the_last_epoch(
    benchmark: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without the check of what guessing gives, which has its own tests."""
    monkeypatch.setattr(extract, "check_chance", lambda table, path: None)
    torch.save(benchmark, tmp_path / "public.pth")
    to = tmp_path / "nasbench201" / "nasbench201.csv"
    assert extract.main([str(tmp_path / "public.pth"), "--to", str(to)]) == 0
    told = capsys.readouterr().out
    for path in (tmp_path / "public.pth", to):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in told
    assert extract.TABLE_SHA256 in told, "another table, which is said"
    rows = list(csv.DictReader(to.open()))
    assert list(rows[0]) == ["index", "architecture", *ACCURACIES] and len(rows) == CELLS
    last = CELLS - 125  # what the first row's cell shares
    assert rows[0]["architecture"] == str(bench201_cell(CELLS - 1))
    added: dict[str, tuple[int, float]] = {
        "cifar10_test_200": (7, 777),
        "cifar100_test_200": (8, 777),
    }
    added |= {"imagenet16_120_test_200": (14, 777), "cifar10_test_12": (7, 777)}
    added |= {"cifar10_valid_12": (13, 832.5)}
    for column, (letters, seed) in added.items():
        wanted = round(last / 1000 + letters / 10 + seed / 1000 + 1, 3)
        assert float(rows[0][column]) == pytest.approx(wanted, abs=6e-4), column
    assert read_table(to).accuracies_N("cifar10_test_200")[CELLS - 1] == float(
        rows[0]["cifar10_test_200"]
    )


def test_what_is_missing_is_named(benchmark: dict[str, Any]) -> None:
    path = Path("public.pth")
    with pytest.raises(InputError, match="has 3 cells; the benchmark has 15625"):
        extract.table_of({**benchmark, "meta_archs": benchmark["meta_archs"][:3]}, path)
    infos = {**benchmark["arch2infos"], 5: {"full": trainings("full", 1.0)}}
    with pytest.raises(InputError, match=r"cell 5: has no less, cifar10-valid"):
        extract.table_of({**benchmark, "arch2infos": infos}, path)
    odd = ["|none~0|", *benchmark["meta_archs"][1:]]
    with pytest.raises(InputError, match=r"public\.pth, cell 0"):
        extract.table_of({**benchmark, "meta_archs": odd}, path)


class Harm:
    """What a pickle of another kind could do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harmed"),)


@pytest.mark.parametrize("what", ["code", "text", "another", "missing"])
def test_another_file_is_refused_and_never_run(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if what == "code":
        torch.save({"meta_archs": [], "arch2infos": Harm()}, "public.pth")
    elif what == "another":
        torch.save({"weights": torch.zeros(2)}, "public.pth")
    elif what == "text":
        Path("public.pth").write_text("a page that says: sign in to download")
    assert extract.main(["public.pth", "--to", "t.csv"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: public.pth: ") and error.count("\n") == 1
    assert not Path("harmed").exists() and not Path("t.csv").exists()


def test_a_table_whose_numbers_cannot_be_is_not_kept(
    benchmark: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this file the cell that can only guess has 2.5 % of ten classes."""
    torch.save(benchmark, tmp_path / "public.pth")
    assert extract.main([str(tmp_path / "public.pth"), "--to", str(tmp_path / "t.csv")]) == 2
    assert "guessing" in capsys.readouterr().err and not (tmp_path / "t.csv").exists()


def test_every_column_has_its_place() -> None:
    assert set(extract.PLACES) == set(ACCURACIES) == set(CLASSES)
