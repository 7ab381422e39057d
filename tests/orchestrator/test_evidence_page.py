"""The page of evidence, from job folders written by hand."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from orchestrator.__main__ import COMMANDS
from orchestrator.evidence import main
from orchestrator.experiment.load import load_experiment
from orchestrator.report.evidence import without_places
from orchestrator.report.kept_section import file_name, read_section
from orchestrator.store.recorded import open_recorded
from tests.orchestrator.command_output import refused
from tests.orchestrator.test_report import SCORES, report_of

KEPT = Path(__file__).parents[2] / "experiments/evidence"
FINALS = """
finals:
  ours:
    cell: {searched: plain}
    row: {table: 1, method: "GDAS (FRC)", columns: [err_c10]}
measures:
  acceleration: {}
"""


def page_of(folder: Path, capsys: pytest.CaptureFixture[str], more: str = "") -> str:
    report_of(folder, SCORES, more=more)
    assert main([str(folder / "out")]) == 0
    return capsys.readouterr().out


def line_of(page: str, claim: str) -> list[str]:
    """The cells of a claim's line."""
    study, _, _ = page.partition("## What no study above bears on")
    (line,) = (line for line in study.splitlines() if line.startswith(f"| {claim}"))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_searching_against_drawing_and_against_another_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = page_of(tmp_path, capsys)
    assert "- jobs: " in page and "It bears on no claim" not in page
    assert "exact up to\n200,000 splits, else by 20,000 random splits" in page
    claim, ran, n, ours, p, verdict = line_of(page, "plain finds better cells than cells drawn")
    assert claim.endswith("drawn at random") and "batch" in ran and n == "4 and 4"
    # Four values, each 5 above its like: the best of 70 ways to divide the eight.
    assert ours.startswith("better by 5.00 (95 % interval ") and p == f"{1 / 70:.4f}"
    assert verdict == "yes"
    *_, ours, p, verdict = line_of(page, "slow finds better cells than plain")
    assert ours.startswith("better by -10.00") and p == "1.0000" and verdict == "not shown"


def test_what_was_not_run_is_a_line_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = page_of(tmp_path, capsys, FINALS)
    *_, ran, n, ours, p, verdict = line_of(page, "Table 1, GDAS (FRC): ")
    assert (n, ours, p, verdict) == ("0", "not run", "", "not run") and "final ours" in ran
    *_, n, ours, _, verdict = line_of(page, "Section 3.2")
    assert (n, ours, verdict) == ("0", "not run", "not run")


def test_the_papers_other_figures_are_listed_as_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, rest = page_of(tmp_path, capsys, FINALS).partition("## What no study above bears on")
    lines = [line for line in rest.splitlines() if line.startswith("| Table ")]
    assert len(lines) == 20 and all(line.endswith("| not run |") for line in lines)
    frc = [line for line in lines if line.startswith("| Table 1, GDAS (FRC): ")]
    assert frc and not any("CIFAR-10 " in line for line in frc), "a study bears on that one"


def test_the_command_names_no_folder_of_the_machine() -> None:
    command = "python -m orchestrator.reproduce_paper /home/me/own.yaml epochs=3 --data /d --out /o"
    shown = without_places(command)
    assert shown == "python -m orchestrator.reproduce_paper own.yaml epochs=3 --data DIR"


def test_an_older_studys_folder_is_read_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ids are no longer those that this version gives its jobs."""
    page = page_of(tmp_path, capsys)
    monkeypatch.setattr("gdas.ALGORITHM_VERSION", 10_000)
    assert load_experiment(str(tmp_path / "own.yaml"), [])
    assert main([str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == page


def test_it_is_one_of_the_commands() -> None:
    assert COMMANDS["evidence"][0] == "evidence"


def test_a_study_that_has_begun_in_part_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After `--only` some searches are not in its folder; a job that never began has no recipe."""
    report_of(tmp_path, SCORES)
    store, study = open_recorded(str(tmp_path / "out"))
    last = study.scored("drawn")[-1]
    shutil.rmtree(store.folder(last).path)
    recorded = json.loads((store.out / "study.json").read_text())
    recorded["jobs"] = [job for job in recorded["jobs"] if "slow" not in job["label"]]
    (store.out / "study.json").write_text(json.dumps(recorded))
    assert main([str(tmp_path / "out")]) == 0
    page = capsys.readouterr().out
    assert line_of(page, "plain finds better cells than cells drawn")[2] == "4 and 3"
    *_, ours, _, verdict = line_of(page, "slow finds better cells than plain")
    assert (ours, verdict) == ("not run", "not run")


def test_the_committed_page_is_made_of_the_committed_files(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After a study was kept: `python -m orchestrator.evidence experiments/evidence/*.json`."""
    files = sorted(KEPT.glob("*.json"))
    assert [file.name for file in files] == [file_name(read_section(file)) for file in files]
    assert re.fullmatch(r"laptop-2026-11-28-\d{4}\.json", files[0].name)
    assert len(files) >= 5 and main(list(map(str, files))) == 0
    assert capsys.readouterr().out == (KEPT.parent / "EVIDENCE.md").read_text()


def test_what_a_study_shows_outlives_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, kept = page_of(tmp_path, capsys, FINALS), tmp_path / "made" / "kept"
    assert main([str(tmp_path / "out"), "--keep", str(kept)]) == 0
    assert capsys.readouterr().out == page
    (file,) = kept.iterdir()
    assert file.name == "own.json", "no job of it has a time"
    assert main([str(tmp_path / "out"), "--keep", str(kept)]) == 0
    assert list(kept.iterdir()) == [file], "the same study again is the same file"
    capsys.readouterr()
    shutil.rmtree(tmp_path / "out")
    assert main([str(file)]) == 0
    assert capsys.readouterr().out == page


def test_a_kept_file_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(value: object) -> str:
        (tmp_path / "x.json").write_text(value if isinstance(value, str) else json.dumps(value))
        return refused(capsys, main([str(tmp_path / "x.json")]))

    whole = json.loads(next(KEPT.glob("laptop-*.json")).read_text())
    assert main([str(next(KEPT.glob("laptop-*.json")))]) == 0
    capsys.readouterr()
    assert "cannot be read as JSON" in said('{"form')
    assert "is no JSON object" in said([1])
    assert "no format is given" in said({"jobs": []})
    assert "not what `--keep` writes" in said({k: v for k, v in whole.items() if k != "claims"})
    assert "not what `--keep` writes" in said(whole | {"claims": [{"text": "only"}]})
    assert "unknown key 'more'" in said(whole | {"more": 1})
    assert "no such file" in refused(capsys, main([str(tmp_path / "none.json")]))


def test_two_studies_do_not_take_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(next(KEPT.glob("laptop-*.json")))
    assert "name each study once" in refused(capsys, main([file, file, "--keep", str(tmp_path)]))
    assert not list(tmp_path.iterdir())
    (tmp_path / "taken").write_text("")
    assert "is no folder" in refused(capsys, main([file, "--keep", str(tmp_path / "taken")]))


def test_a_kept_file_names_no_place_to_write_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = json.loads(next(KEPT.glob("laptop-*.json")).read_text())
    (tmp_path / "x.json").write_text(json.dumps(whole | {"name": "../../mine"}))
    assert main([str(tmp_path / "x.json"), "--keep", str(tmp_path / "a" / "b")]) == 0
    (kept,) = (tmp_path / "a" / "b").iterdir()
    assert kept.name.startswith("mine-2026-") and len(list(tmp_path.iterdir())) == 2
