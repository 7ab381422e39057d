"""The report's first screen, what failed, the cell over the epochs, and tables as files."""

from __future__ import annotations

import csv
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

import orchestrator.run.checks
from gdas.cnn.genotype import OPERATIONS, PUBLISHED
from gdas.errors import InputError
from orchestrator.driver.settled import settle, settled
from orchestrator.experiment.study import Job, Study
from orchestrator.report.figures.over_epochs import over_epochs
from orchestrator.report.first_screen import headline
from orchestrator.report.parts import Measured, Table, measured
from orchestrator.report.report import write_report
from orchestrator.report.table_files import csv_of, latex_of
from orchestrator.report.view import Results
from orchestrator.reproduce_paper import main
from orchestrator.store.failure import note_failure, write_failure
from orchestrator.store.recorded import recorded_study
from orchestrator.store.results import FinalResult, Provenance
from orchestrator.store.store import Store
from tests.narrow import present
from tests.orchestrator.fake_study import TINY, fake_study, record, select
from tests.orchestrator.test_study import identity
from tests.orchestrator.written import CELL, plain_record, search_result

TRACE = "Traceback (most recent call last):\n  File 'a.py', line 1\nRuntimeError: 2 | 3 <b>"

SEARCHED: Provenance = {
    "source": "searched",
    "track": "frc",
    "seed": 2,
    "by": "shared_weights",
    "genotype": CELL,
}


def of(study: Study, label: str) -> Job:
    return next(job for job in study if job.label == label)


def final_result(top1: float) -> FinalResult:
    return {
        "digest": "",
        "genotype": CELL,
        "metrics": {"test/top1": top1},
        "seconds": 1.0,
        "provenance": {
            "source": "searched",
            "track": "frc",
            "seed": 2,
            "by": "s",
            "genotype": CELL,
        },
        "workers": 1,
        "best": {"epoch": 3, "test/top1": top1},
        "parameters": 35_000,
        "multiply_adds": 10,
    }


def done_study(out: Path, *overrides: str) -> tuple[Results, Store, Study]:
    """The tiny study with its searches, selection and finals done."""
    experiment, study, store = fake_study(out, *overrides)
    for job in study.of_kind("search"):
        for position in (1, 2, 3):
            store.folder(job).append_record(record(position))
        store.folder(job).write_result(search_result({"valid/top1": 30.0}))
    select(store, study)
    for i, job in enumerate(study.of_kind("train")):
        for position in (1, 2, 3):
            store.folder(job).append_record(record(position))
        store.folder(job).write_result(final_result(90.0 + i))
    return Results(experiment, study, store), store, study


def test_the_first_screen_answers(tmp_path: Path) -> None:
    results, store, _ = done_study(tmp_path, "final.seeds=[0, 1, 2]")
    path = write_report(results)
    page, text = path.read_text(), path.with_suffix(".md").read_text()
    top = page[: page.index("<h2")]
    # The mean of errors 10, 9 and 8, with its spread, and the paper's figure.
    assert "<b>9.00 ± 1.00 %</b><span>test error on digits, frc-digits</span>" in top
    assert "n = 3, 95 % interval 6.52 to 11.48; paper 2.82: run too small to compare" in top
    assert "<b>8 of 8</b><span>jobs done</span>" in top
    assert "The cell that frc found (seed 2)" in top and "copy genotype" in top
    assert json.loads(unescape(present(re.search("<pre>(.*?)</pre>", top))[1])) == CELL
    assert str(store.study()["command"]) in unescape(top)
    assert "cores" in top, "the machine"
    for link in re.findall(r"href='([^'#]+)'", top):
        assert (path.parent / link).exists(), link
    assert "9.00 ± 1.00 %" in text.split("##")[0], "in the Markdown too"


def test_the_page_is_one_file_that_reads_without_its_script(tmp_path: Path) -> None:
    results, _, _ = done_study(tmp_path)
    page = write_report(results).read_text()
    without = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert page.count("<script>") == 1 and "<script" not in without
    assert not re.search(r"(src|href)=[\"']?(http|//|[\w/-]+\.(png|svg|js|css))", without)
    assert "class=curves" in without and "class=arcs" in without and "whose cell" not in without
    assert "<p class=slider hidden>" in without, "what needs the script is not shown"


def test_what_failed_is_said_with_its_last_lines(tmp_path: Path) -> None:
    experiment, study, store = fake_study(tmp_path)
    job = of(study, "search-frc-seed0")
    assert "What failed" not in write_report(Results(experiment, study, store)).read_text()
    folder = store.folder(job)
    write_failure(folder.place, "RuntimeError: 2 | 3 <b>", TRACE)
    note_failure(folder.place, "", "own", 3, again=False)
    folder.note_damage(["/jobs/a/000003: damaged state.pt; going on from the one before it"])
    path = write_report(Results(experiment, study, store))
    text, page = path.with_suffix(".md").read_text(), path.read_text()
    part = text[text.index("## What failed") :]
    part = part[: part.index("\n## ")]
    assert "### search-frc-seed0: failed 3 times, given up" in part
    assert "    RuntimeError: 2 | 3 <b>" in part, "the traceback's end"
    assert "select-frc** could not run" in part and "train-frc-digits** could not run" in part
    assert "damaged state.pt" in part
    assert "<b>" not in page[page.index("What failed</h2>") : page.index("ours</h2>")]
    assert "<small>1 failed" in page, "on the first screen"


def test_the_outlined_edges_are_those_of_the_epoch_whose_cell_was_chosen() -> None:
    """A search on text may choose an epoch before its last."""
    cells = [PUBLISHED["GDAS_V1"].to_json(), PUBLISHED["GDAS_F1"].to_json()]
    logits = {"normal": [[0.0] * len(OPERATIONS) for _ in range(14)]}
    records = [
        plain_record(i + 1, details={"genotype": cell, "logits": logits})
        for i, cell in enumerate(cells)
    ]
    shown = present(over_epochs(records, "normal", OPERATIONS, 1))
    data = json.loads(unescape(present(re.search("data-over='([^']*)'", shown))[1]))
    assert data["epochs"] == [1, 2] and data["chosen"] == 0
    assert data["kept"][0] != data["kept"][1]
    assert "epoch 1, whose cell was chosen" in shown
    drawn = re.findall(r"<path data-edge=(\d+) d=", shown)
    assert set(drawn) == set(data["kept"][0]), "the arcs of the chosen epoch"
    edges = [(node, source) for node in range(4) for source in range(node + 2)]
    names = {
        str(edges.index((i // 2, source))): name
        for i, (name, source) in enumerate(PUBLISHED["GDAS_V1"].normal)
    }
    assert {edge: ops[0] for edge, ops in data["kept"][0].items()} == names


def test_a_study_of_ones_own_has_its_own_title_and_no_rows_of_the_paper(tmp_path: Path) -> None:
    results, _, _ = done_study(
        tmp_path, "finals.frc-digits.row=null", "finals.frc-digits.seeds=[0, 1, 2, 3]"
    )
    path = write_report(results)
    text = path.with_suffix(".md").read_text()
    assert text.startswith("# tiny: cells searched by GDAS")
    assert "beside the paper" not in text and "### Table 1" not in text and "Verdicts" not in text
    assert "| 8.50 ± 1.29 % error (n = 4, 95 % interval 6.45 to 10.55) |" in text
    with (path.parent / "tables" / "own-finals.csv").open() as file:
        (row,) = csv.DictReader(file)
    found = {key: row[f"on the test set: {key}"] for key in ("mean", "sd", "n", "low", "unit")}
    assert found["n"] == "4" and found["unit"] == "%" and float(found["mean"]) == 8.5
    assert float(found["sd"]) == pytest.approx(1.2910, abs=1e-4)
    assert float(found["low"]) == pytest.approx(6.4457, abs=1e-3)


def test_every_table_of_the_page_is_a_file(tmp_path: Path) -> None:
    results, _, _ = done_study(tmp_path)
    path = write_report(results)
    files = {file.name for file in (path.parent / "tables").iterdir()}
    assert {f.removesuffix(".csv") for f in files if f.endswith(".csv")} == {
        f.removesuffix(".tex") for f in files if f.endswith(".tex")
    }
    assert path.read_text().count("<table>") == len(files) / 2
    assert path.read_text().count("<details class=folded>") == 1, "the paper's whole Table 1"
    for file in (path.parent / "tables").glob("*.csv"):
        _has_units_apart(list(csv.reader(file.read_text().splitlines())), file.name)


UNIT = re.compile(r"-?[\d.,]+ (s|min|h|%|MiB|% error|of \d+)( [\[(].*)?")
"""A number with its unit in one cell, as people read it."""


def _has_units_apart(lines: list[list[str]], name: str) -> None:
    header, *rows = lines
    for i, column in enumerate(header):
        if any(UNIT.fullmatch(row[i]) for row in rows):
            assert f"{column}: mean" in header and f"{column}: unit" in header, (name, column)


def test_a_table_as_csv_and_latex() -> None:
    rows: list[list[str | Measured]] = [
        ["**a_b** & 50 %", measured([1.0, 2.0], "%"), "x"],
        ["`c`", "2.5", "not run"],
        ["d", "-", ""],
    ]
    table = Table("t", ["name", "error", ""], rows)
    lines = list(csv.reader(csv_of(table).splitlines()))
    assert lines[0][:4] == ["name", "error", "error: mean", "error: sd"] and lines[0][-1] == "whose"
    assert lines[1][0] == "a_b & 50 %" and lines[1][2:8] == [
        *("1.5", "0.7071067811865476", "2", "", "", "%")
    ]
    assert lines[2] == ["c", "2.5", "2.5", "", "", "", "", "", "not run"]
    assert lines[3][2] == ""
    tex = latex_of(table)
    assert r"a\_b \& 50 \% & 1.50 $\pm$ 0.71 (n = 2) & x \\" in tex
    assert tex.index(r"\toprule") < tex.index(r"\midrule") < tex.index(r"\bottomrule")


def test_a_command_with_nothing_to_do_says_what_was_found_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        orchestrator.run.checks, "identity", lambda folder, data, split: identity(data, split)
    )
    results, store, study = done_study(tmp_path / "out")
    write_report(results)
    settings: dict[str, Any] = store.study()["settings"]
    (store.tracking_folder / "mlflow.db").touch()
    assert settled(study, store, settings) is None, "no command has ended with all of it done"
    reported = sorted((store.out / "report").iterdir())
    settle(study, store, settings, headline(results))
    assert sorted((store.out / "report").iterdir()) == reported, "which is sent to MLflow as it was"

    def refuse(*_: object) -> None:
        raise AssertionError("there was nothing to do")

    for name in ("_report_of", "Tracker", "prepare_data"):
        monkeypatch.setattr(f"orchestrator.driver.reproduce.{name}", refuse)
    assert main([TINY, "--out", str(store.out)]) == 0
    said = capsys.readouterr().out
    assert "nothing is left to do" in said
    assert "test error on digits, frc-digits: 10.00 % (one seed; paper 2.82: run too small" in said
    assert f"report: {store.out / 'report' / 'report.html'}" in said
    # Another result, a lost report, other settings: there is something to do.
    (job,) = study.of_kind("train")
    store.folder(job).write_result(final_result(50.0))
    assert settled(study, store, settings) is None
    settle(study, store, settings, ["found"])
    assert settled(study, store, settings) == ["found"]
    assert settled(study, store, settings | {"note": "other"}) is None
    (store.out / "report" / "report.md").unlink()
    assert settled(study, store, settings) is None


def test_what_is_done_is_recorded_whatever_only_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(address: str | None) -> None:
        raise InputError("no Ray here")

    monkeypatch.setattr(
        orchestrator.run.checks, "identity", lambda folder, data, split: identity(data, split)
    )
    monkeypatch.setattr("orchestrator.run.machines.ray_cluster", refuse)
    monkeypatch.setattr("orchestrator.driver.reproduce.prepare_data", lambda *_: None)
    _, store, study = done_study(tmp_path / "out")
    (store.folder(study.jobs[0]).path / "result.json").unlink()
    words = ["--only", study.jobs[0].label, "finals.frc-digits.recipe.lr=0.05"]
    assert main([TINY, "--out", str(store.out), *words]) == 2, "it would have begun"
    known = {job.label for job in recorded_study(Store(store.out))}
    assert known == {job.label for job in study if job.kind != "train"}, "that one is not done"


def test_while_ray_starts_the_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(address: str | None) -> None:
        raise InputError("no Ray here")

    monkeypatch.setattr("orchestrator.run.machines.ray_cluster", refuse)
    monkeypatch.setattr("orchestrator.driver.reproduce.prepare_data", lambda *_: None)
    assert main([TINY, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith("starting Ray; the first job")
    assert main([TINY, "--out", str(tmp_path / "out"), "--address", "1.2.3.4:6379"]) == 2
    assert "connecting to Ray at 1.2.3.4:6379" in capsys.readouterr().out


def test_a_report_has_all_that_is_done_whatever_only_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, store, study = done_study(tmp_path / "out")
    texts = []
    for words in ([], ["--only", study.jobs[0].label]):
        assert main([TINY, "--out", str(store.out), "--report", *words]) == 0
        texts.append((store.out / "report" / "report.md").read_text())
    assert texts[0] == texts[1] and "| 10.00" in texts[0]
