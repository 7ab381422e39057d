"""Try the oldest packages that pyproject.toml allows: install them apart, and run some tests there.

    python -m tests.floor [--venv DIR] [TEST ...]

By default PyTorch and torchvision have the versions that pyproject.toml names, everything else is
as new as may be, and the tests are those of what depends on PyTorch's version: compiling,
operations, batch norm, checkpoints. PyTorch from PyPI brings gigabytes of CUDA libraries, so this
is no part of any suite; PIP_INDEX_URL and PIP_EXTRA_INDEX_URL choose another source.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

from tests.readme import ROOT

OLDEST = ("torch", "torchvision")
TESTS = (
    *("tests/gdas/test_compile.py", "tests/gdas/test_cnn_steps.py", "tests/gdas/test_cnn_cells.py"),
    *("tests/gdas/test_cnn_networks.py", "tests/gdas/test_rearrange.py"),
    *("tests/gdas/test_space.py", "tests/gdas/test_resume.py", "tests/gdas/test_checkpoint.py"),
    *("tests/gdas/test_recurrent_cells.py", "tests/gdas/test_recurrent_search.py"),
    "tests/gdas/test_recurrent_training.py",
    *("tests/gdas/test_algorithm_version.py", "tests/gdas/test_pooling.py"),
    "tests/gdas/test_replica.py",
)


def floors(names: Sequence[str]) -> list[str]:
    """The requirements of these packages, pinned to the lowest version that is allowed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {}
    for line in project["dependencies"]:
        requirement = Requirement(line)
        lowest = [s.version for s in requirement.specifier if s.operator == ">="]
        if requirement.name in names and lowest:
            found[requirement.name] = f"{requirement.name}=={lowest[0]}.*"
    return [found[name] for name in names]


def commands(venv: Path, tests: Sequence[str], names: Sequence[str] = OLDEST) -> list[list[str]]:
    """What is run, in order."""
    python = str(venv / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return [
        [sys.executable, "-m", "venv", str(venv)],
        [*pip, *floors(names), "-e", f"{ROOT}[dev]"],
        [python, "-c", "import torch; print('PyTorch', torch.__version__, flush=True)"],
        [python, "-m", "pytest", "-m", "not slow", *tests],
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Install and test; returns the tests' exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.floor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tests", nargs="*", metavar="TEST")
    parser.add_argument("--venv", type=Path, help="where to install (default: a temporary folder)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        venv = options.venv or Path(folder) / "venv"
        *before, test = commands(venv, options.tests or TESTS)
        for command in before:
            subprocess.run(command, check=True, cwd=ROOT)
        return subprocess.run(test, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode


if __name__ == "__main__":
    sys.exit(main())
