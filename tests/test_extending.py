"""experiments/extending.md: its settings are accepted as they are written, its names exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import gdas.cnn.operations
import gdas.genotype
from gdas.data.shards import main as convert
from orchestrator import reproduce_paper
from tests.gdas.photo_folder import CLASSES, make_folder
from tests.readme import ROOT

PAGE = (ROOT / "experiments" / "extending.md").read_text(encoding="utf-8")


def test_a_folder_of_photos_becomes_an_experiment_by_the_settings_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "FLOWERS")
    (command,) = re.findall(r"^    python -m gdas.data.shards (.*)$", PAGE, re.M)
    assert convert(command.split()) == 0
    (settings,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    Path("flowers.yaml").write_text(settings.replace("102", str(len(CLASSES))))
    assert reproduce_paper.main(["flowers.yaml", "--data", "data", "--dry-run"]) == 0
    assert "search-flowers-seed0" in capsys.readouterr().out


def test_the_names_of_the_page_exist() -> None:
    for name in ("OPERATIONS", "DERIVED_OPERATIONS"):
        assert f"`{name}`" in PAGE and hasattr(gdas.genotype, name)
    assert "`build_operation`" in PAGE and hasattr(gdas.cnn.operations, "build_operation")
    for file in re.findall(r"`((?:gdas|tests)/[\w/.]+\.py)`", PAGE):
        assert (ROOT / file).is_file(), file
    for dotted in re.findall(r"`(gdas(?:\.\w+)*\.[A-Za-z]\w+)`", PAGE):
        module, _, name = dotted.rpartition(".")
        found = importlib.import_module(module)
        assert hasattr(found, name) or importlib.import_module(dotted), dotted
