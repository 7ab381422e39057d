"""experiments/formats.md: every example of a file is read as the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gdas.cnn.genotype
import gdas.genotype
from gdas.bench201.genotype import ACCURACIES, bench201_from_string
from gdas.bench201.table import ARCHITECTURE
from orchestrator import cell
from tests.readme import FENCE, ROOT

PAGE = (ROOT / "experiments" / "formats.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    return str(text)


GENOTYPES = [text for kind, text in FENCE.findall(section("Genotypes")) if kind in ("json", "text")]


@pytest.mark.parametrize("text", GENOTYPES, ids=range(len(GENOTYPES)))
def test_every_genotype_of_the_page_is_read(text: str, tmp_path: Path) -> None:
    path = tmp_path / "cell.txt"
    path.write_text(text)
    genotype = gdas.genotype.load(path)
    assert gdas.genotype.any_from_json(genotype.to_json()) == genotype
    if '"format"' in text:
        assert (gdas.cnn.genotype.FORMAT in text) == isinstance(
            genotype, gdas.cnn.genotype.Genotype
        )


def test_the_commands_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.txt").write_text(next(text for text in GENOTYPES if "2019-04-01" in text))
    found = re.findall(r"^python -m orchestrator\.cell (.*?)(?:\s+#.*)?$", PAGE, re.M)
    assert len(found) == 3
    for command in found:
        assert cell.main(command.split()) == 0, capsys.readouterr().err
    assert gdas.genotype.load("cell.json") == gdas.genotype.load("log.txt")
    assert "Genotype(normal=[('skip_connect', 0)" in Path("cell.txt").read_text()


def test_the_table_of_the_page_has_the_columns_that_are_read() -> None:
    ((_, text),) = FENCE.findall(section("Tables of NAS-Bench-201"))
    header, row = (line.split(",") for line in text.splitlines())
    assert header == [ARCHITECTURE, *ACCURACIES]
    bench201_from_string(row[0])
    assert all(1 < float(value) <= 100 for value in row[1:])
