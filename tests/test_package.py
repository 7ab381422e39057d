"""The package as a plain installation has it: it runs from anywhere, with all of its files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from orchestrator.experiment.load import EXPERIMENTS
from tests.readme import ROOT

SHIPPED = ("gdas", "orchestrator", "experiments", "pyproject.toml", "README.md", "LICENSE")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
WHERE = "import gdas, orchestrator; print(gdas.__file__, orchestrator.__file__)"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the project's wheel installs."""
    folder = tmp_path_factory.mktemp("package")
    source, wheels, site = folder / "source", folder / "wheels", folder / "site"
    source.mkdir()
    wheels.mkdir()
    for name in SHIPPED:
        there = ROOT / name
        if there.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(there, source / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(there, source / name)
    command = [sys.executable, "-c", BUILD, str(wheels)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_packages_and_the_experiments(site: Path) -> None:
    def below(root: Path) -> set[str]:
        found = (p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
        return {name for name in found if "__pycache__" not in name and not name.endswith(".pyc")}

    for package in ("gdas", "orchestrator"):
        inside = {name for name in below(site / package) if not name.startswith("experiments/")}
        mine = {name for name in below(ROOT / package) if not name.startswith("experiments/")}
        assert inside == mine
    assert below(site / "orchestrator" / "experiments") == {
        path.name for path in EXPERIMENTS.glob("*.yaml")
    }
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {
        "gdas",
        "orchestrator",
    }


@pytest.mark.slow
def test_an_installed_package_plans_an_experiment_from_another_folder(
    site: Path, tmp_path: Path
) -> None:
    environment = os.environ | {"PYTHONPATH": str(site)}

    def python(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    where = python("-c", WHERE).stdout.split()
    assert len(where) == 2 and all(path.startswith(str(site)) for path in where)
    planned = python("-m", "orchestrator.reproduce_paper", "smoke", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "search-gdas-frc-seed3" in planned.stdout and "in all: about" in planned.stdout
    unknown = python("-m", "orchestrator.reproduce_paper", "smoky", "--dry-run")
    assert unknown.returncode == 2 and "did you mean smoke" in unknown.stderr, unknown.stderr
    shown = python("-m", "orchestrator.cell", "show", "GDAS_V1")
    assert shown.returncode == 0 and "node 3" in shown.stdout, shown.stderr


def test_a_checkout_runs_as_it_is_from_another_folder(tmp_path: Path) -> None:
    """Its experiments are those that lie in it, under their real path."""
    assert EXPERIMENTS == ROOT / "experiments" and (ROOT / "orchestrator/experiments").is_symlink()
    code = "from orchestrator.experiment.load import *; print(load_experiment('smoke', []).name)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "smoke\n", done.stderr
