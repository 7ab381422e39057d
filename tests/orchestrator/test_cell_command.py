"""The command cell: cells shown, counted, drawn and converted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gdas.cnn.genotype import PUBLISHED
from gdas.genotype import load
from orchestrator import cell
from orchestrator.store.cells import find_cell
from tests.orchestrator.command_output import Capture, refused
from tests.orchestrator.fake_study import fake_study, select
from tests.orchestrator.written import CELL

pytestmark = pytest.mark.usefixtures("elsewhere")

# cell


def test_cells_are_found_by_name_by_file_and_in_a_study(capsys: Capture, tmp_path: Path) -> None:
    Path("mine.json").write_text(json.dumps(PUBLISHED["GDAS_V1"].to_json()))
    _, study, store = fake_study(tmp_path / "out")
    assert "nothing is selected yet" in refused(capsys, cell.main(["show", "out:frc"]))
    select(store, study)
    assert find_cell("GDAS_V1") == find_cell("mine.json") == PUBLISHED["GDAS_V1"]
    assert find_cell("out:frc").to_json() == CELL
    assert "the study's are frc" in refused(capsys, cell.main(["show", "out:typo"]))
    assert "did you mean GDAS_V1?" in refused(capsys, cell.main(["count", "gdas_v1"]))
    assert "published are" in refused(capsys, cell.main(["draw", "nothing.json"]))


def test_a_cell_is_shown_node_by_node_and_as_a_file(capsys: Capture) -> None:
    assert cell.main(["show", "GDAS_F1"]) == 0
    out = capsys.readouterr().out
    assert "node 1  =  skip_connect of c_{k-2}  +  sep_conv_3x3 of node 0" in out
    assert "reduction cell: fixed" in out
    assert cell.main(["show", "GDAS_F1", "--json"]) == 0
    Path("again.json").write_text(capsys.readouterr().out)
    assert load("again.json") == PUBLISHED["GDAS_F1"]
    assert cell.main(["show", "RNN_GDAS"]) == 0
    assert "state 4 = relu of state 1" in capsys.readouterr().out


def test_counts_are_the_papers(capsys: Capture) -> None:
    def counted(*words: str) -> list[str]:
        assert cell.main(["count", *words]) == 0
        return [line.split()[-1] for line in capsys.readouterr().out.splitlines()[2:-1]]

    assert counted("GDAS_F1") == ["2,543,014", "402,781,834"]
    small = counted("GDAS_F1", "--channels", "8", "--normals-per-block", "1", "--image-size", "16")
    assert int(small[0].replace(",", "")) < 100_000
    assert counted("RNN_GDAS", "--hidden", "32", "--vocabulary", "100") == ["23,780"]
    refused(capsys, cell.main(["count", "GDAS_F1", "--channels", "10"]))
    refused(capsys, cell.main(["count", "GDAS_F1", "--image-size", "0"]))


def test_cells_are_drawn_to_svg_and_png(capsys: Capture) -> None:
    assert cell.main(["draw", "GDAS_V1"]) == 0
    assert Path("GDAS_V1.svg").read_text().count('<g id="normal-') == 12
    assert cell.main(["draw", "fixed-reduction", "--to", "frc.png"]) == 0
    assert Path("frc.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    own = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    assert cell.main(["draw", own, "--to", "own.svg"]) == 0
    # Its network is not counted here.
    assert f"next: python -m orchestrator.cell show '{own}'" in capsys.readouterr().out
    assert "must end with" in refused(capsys, cell.main(["draw", "GDAS_V1", "--to", "x.gif"]))
    assert "is no folder no" in refused(capsys, cell.main(["draw", "GDAS_V1", "--to", "no/x.svg"]))


DARTS_TEXT = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)], normal_concat=range(2, 3), "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1)], reduce_concat=range(2, 3))"
)


def test_a_genotypes_text_is_a_cell_on_the_command_line(capsys: Capture) -> None:
    long = DARTS_TEXT.replace("'skip_connect'", " " * 300 + "'skip_connect'")
    for text in (DARTS_TEXT, long, json.dumps(PUBLISHED["GDAS_V1"].to_json())):
        assert cell.main(["show", text]) == 0
        assert "node 0  =  s" in capsys.readouterr().out
    assert cell.main(["count", DARTS_TEXT, "--channels", "4"]) == 0
    assert cell.main(["draw", DARTS_TEXT]) == 0 and Path("unnamed.svg").is_file()
    Path("two.py").write_text(f"A = {DARTS_TEXT}\nB = {DARTS_TEXT.replace('skip_connect', 'none')}")
    assert cell.main(["draw", "two.py:B"]) == 0 and Path("B.svg").is_file()
    capsys.readouterr()
    assert "2 different genotypes" in refused(capsys, cell.main(["show", "two.py"]))
    for word in (
        "x" * 300,
        "x" * 300 + ":y",
        "(" * 400,
        " ",
        "a\0b",
        "|" * 300,
        "out:" + "y" * 300,
    ):
        assert "\n" not in refused(capsys, cell.main(["show", word])).strip()


def test_a_cell_is_converted_from_and_to_the_text_of_darts(capsys: Capture) -> None:
    Path("log.txt").write_text(f"03/01 10:00:00 AM genotype = {DARTS_TEXT}\n")
    assert cell.main(["convert", "log.txt", "--to", "cell.json"]) == 0
    capsys.readouterr()
    assert cell.main(["convert", "cell.json"]) == 0
    assert capsys.readouterr().out == DARTS_TEXT + "\n"
    assert cell.main(["convert", "GDAS_F1", "--to", "f1.txt"]) == 0
    assert load("f1.txt").to_json() | {"name": "GDAS_F1"} == PUBLISHED["GDAS_F1"].to_json()
    capsys.readouterr()
    assert cell.main(["convert", "GDAS_V1", "--as", "gdas"]) == 0
    assert json.loads(capsys.readouterr().out) == PUBLISHED["GDAS_V1"].to_json()
    assert "must end with" in refused(capsys, cell.main(["convert", "GDAS_V1", "--to", "x.svg"]))
    assert "is no folder no" in refused(
        capsys, cell.main(["convert", "GDAS_V1", "--to", "no/x.txt"])
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("show GDAS_V1 --json --to v.json", "--to: does not apply to show; leave it out"),
        ("show GDAS_V1 --as darts", "--as: does not apply to show"),
        ("draw GDAS_V1 --json", "--json: does not apply to draw"),
        ("draw GDAS_V1 --channels 3", "--channels: does not apply to draw"),
        ("convert GDAS_V1 --stem imagenet", "--stem: does not apply to convert"),
        ("count GDAS_V1 --to x.json", "--to: does not apply to count"),
        ("count GDAS_V1 --hidden 3", "--hidden: does not apply to a cell of images (GDAS_V1)"),
        ("count RNN_GDAS --channels 3", "--channels: does not apply to a recurrent cell (RNN_GDAS"),
        ("show out", "out: is a study; name one of its searches: out:frc"),
    ],
)
def test_what_does_not_apply_is_refused(
    line: str, said: str, capsys: Capture, tmp_path: Path
) -> None:
    if line == "show out":
        fake_study(tmp_path / "out")
    assert said in refused(capsys, cell.main(line.split()))
    assert not list(tmp_path.glob("*.*"))


def test_sizes_that_no_network_has_are_refused(capsys: Capture) -> None:
    count = ["count", "GDAS_V1"]
    odd = [*count, "--stem", "imagenet", "--channels", "51"]
    assert "--channels 51: the ImageNet stem needs an even number" in refused(
        capsys, cell.main(odd)
    )
    for key in ("channels", "image-size", "normals-per-block", "classes"):
        assert f"--{key}" in refused(capsys, cell.main([*count, f"--{key}", str(10**18)]))
