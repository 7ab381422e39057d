"""experiments/extending.md: its settings are accepted as they are written, its names exist."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest

import gdas.cnn.genotype
import gdas.cnn.operations
from gdas import ALGORITHM_VERSION
from gdas.checkpoint import digest
from gdas.cnn.config import SearchConfig
from gdas.data.arrow import Images
from gdas.data.images import open_images
from gdas.data.shards import main as convert
from gdas.method import check_method
from orchestrator import reproduce_paper
from orchestrator.experiment.load import load_experiment
from tests.gdas.photo_folder import CLASSES, make_folder
from tests.gdas.tiny import run_search, search_config
from tests.narrow import present
from tests.readme import ROOT

PAGE = (ROOT / "experiments" / "extending.md").read_text(encoding="utf-8")


def test_a_folder_of_photos_becomes_an_experiment_by_the_settings_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "FLOWERS")
    (command,) = re.findall(r"^    python -m gdas.data.shards (.*)$", PAGE, re.M)
    assert convert(command.split()) == 0
    settings = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)[0]
    Path("flowers.yaml").write_text(settings.replace("102", str(len(CLASSES))))
    few = "searches.flowers.recipe.batch_size=8"  # the test's folder has fewer photos than a batch
    assert reproduce_paper.main(["flowers.yaml", few, "--data", "data", "--dry-run"]) == 0
    assert "search-flowers-seed0" in capsys.readouterr().out


def test_an_operation_of_ones_own_is_searched_by_the_settings_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = PAGE.partition("## Operations of your own")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)
    (settings,) = re.findall(r"^```yaml\n(.*?)^```", section, re.M | re.S)
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "own.yaml").write_text(
        f"{settings}    data: {{name: digits}}\n"
        "    network: {channels: 4, normals_per_block: 1}\n"
        "searches: {a: {select_by: shared_weights}}"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    assert reproduce_paper.main(["own.yaml", "--dry-run"]) == 0
    assert "search-a-seed0" in capsys.readouterr().out
    assert "mine" in sys.modules, "it was imported, and tried"
    config = load_experiment("own.yaml", []).searches["a"].recipe
    assert isinstance(config, SearchConfig) and config.operations[3] == "mine:conv_3x3"


def test_a_method_of_ones_own_searches_by_the_code_and_the_settings_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_folder: Path
) -> None:
    section = PAGE.partition("## A way to search of your own")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)
    (settings,) = re.findall(r"^```yaml\n(.*?)^```", section, re.M | re.S)
    assert len(code.splitlines()) <= 40
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "methods.yaml").write_text(settings)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    searches = load_experiment(str(tmp_path / "methods.yaml"), []).searches
    methods = [spec.recipe.sampler.method for spec in searches.values()]
    assert methods == ["mine:Reinforce", None, "evolution", None]
    check_method(searches["reinforce"].recipe.sampler)
    digits = open_images("digits", "train", data_folder)
    pixels = digits.images_NCHW[:, :, ::2, ::2].contiguous()
    digits = Images(pixels, digits.labels_N, digits.classes)
    config = search_config(sampler=searches["reinforce"].recipe.sampler, epochs=2)
    whole = run_search(config, digits)
    half = deepcopy(present(next(whole).state))
    (last,), (again,) = whole, run_search(config, digits, checkpoint=half)
    assert present(last.state)["method"]["usual"] > 0
    assert digest(again.state) == digest(last.state)


def edit(root: Path, file: str, before: str, after: str) -> None:
    """Replace one piece of text in a file that the page's section on operations names."""
    section = PAGE.partition("## A new operation inside")[2].partition("\n## ")[0]
    assert f"`{file}`" in section, f"the page does not say that {file} changes"
    text = (root / file).read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{file}: {before!r}"
    (root / file).write_text(text.replace(before, after), encoding="utf-8")


def test_a_new_operation_takes_part_everywhere_after_the_edits_of_the_page(tmp_path: Path) -> None:
    for folder in ("gdas", "orchestrator", "experiments"):
        ignored = shutil.ignore_patterns("__pycache__", "pictures")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    last = '"dil_conv_5x5",\n)'
    edit(tmp_path, "gdas/cnn/genotype.py", last, '"dil_conv_5x5",\n    "min_pool_3x3",\n)')
    case = '        case "none":\n            return Zero(stride)\n'
    own = (
        '        case "min_pool_3x3":\n'
        "            pool = nn.MaxPool2d(3, stride, 1)\n"
        "            norm = nn.BatchNorm2d(channels, affine=False)\n"
        "            return nn.Sequential(Negative(), pool, Negative(), norm)\n"
    )
    edit(tmp_path, "gdas/cnn/operations.py", case, case + own)
    module = (
        "class Negative(nn.Module):\n"
        "    def forward(self, x_BCHW: Tensor) -> Tensor:\n"
        "        return -x_BCHW\n\n\n"
    )
    edit(tmp_path, "gdas/cnn/operations.py", "class Zero(", module + "class Zero(")
    edit(tmp_path, "gdas/derive.py", '"avg_pool_3x3")', '"avg_pool_3x3", "min_pool_3x3")')
    version = f"ALGORITHM_VERSION = {ALGORITHM_VERSION}"
    edit(tmp_path, "gdas/__init__.py", version, f"{version} + 1")
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "examples" / "own_operation.py", "min_pool_3x3"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "min_pool_3x3: operation 8 of 9\n", done.stderr


def test_the_names_of_the_page_exist() -> None:
    for name in ("OPERATIONS", "DERIVED_OPERATIONS"):
        assert f"`{name}`" in PAGE and hasattr(gdas.cnn.genotype, name)
    assert "`build_operation`" in PAGE and hasattr(gdas.cnn.operations, "build_operation")
    for file in re.findall(r"`((?:gdas|tests)/[\w/.]+\.py)`", PAGE):
        assert (ROOT / file).is_file(), file
    for dotted in re.findall(r"`(gdas(?:\.\w+)*\.[A-Za-z]\w+)`", PAGE):
        module, _, name = dotted.rpartition(".")
        found = importlib.import_module(module)
        assert hasattr(found, name) or importlib.import_module(dotted), dotted
